"""Region: the activations of YOLO 2's boxes, as darknet's layer of this name has them."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from caffe.layers.base import Layer, Shape, Tensors, register
from caffe.layers.look import OUTPUT


@register("Region")
class Region(Layer):
    """Puts each place's boxes one behind another and activates their scores.

    Bottom: (N, boxes (coords + 1 + classes), H, W). Top: the same shape, but its memory is (N, H,
    W, boxes, coords + 1 + classes): the coordinates as they are, the logistic function of what
    stands at place 4, and with `softmax` the softmax of the classes from place 5 on. coords is 4
    (Redmon and Farhadi, 2016; region_layer.cpp). darknet2caffe's nets say `num` for
    boxes_of_each_grid; their `biases` and `anchors` have no effect on the values.
    """

    fork = "BirdeeChen/caffe_yolo_v2, darknet2caffe"
    judge = "worked cases"
    in_place = False
    labels = (0,)
    reads = ("region_param",)
    differs = (
        "The fork never reads `softmax`, so that chance decides, and its GPU code takes 80 classes."
    )
    look = OUTPUT

    def setup(self, shapes: Sequence[Shape]) -> None:
        p = self.layer_param.region_param
        both = p.HasField("num") and p.HasField("boxes_of_each_grid")
        self.check(not both, "give either boxes_of_each_grid or num, not both")
        self.boxes = p.num if p.HasField("num") else p.boxes_of_each_grid
        self.check(p.coords == 4, f"coords is {p.coords}, expected 4")
        self.check(
            self.boxes > 0 and p.classes > 0,
            f"{self.boxes} boxes and {p.classes} classes, expected at least 1",
        )
        self.size = p.coords + 1 + p.classes

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        [shape] = shapes
        self.check(
            len(shape) == 4 and shape[1] == self.boxes * self.size,
            f"the bottom has the shape {shape}, expected (N, {self.boxes * self.size}, H, W) for "
            f"{self.boxes} boxes of {self.size} values",
        )
        return [shape]

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        [shape] = self.top_shapes(bottom)
        n, _, h, w = shape
        boxes = bottom[0].detach().permute(0, 2, 3, 1).reshape(n, h, w, self.boxes, self.size)
        places, score, classes = boxes[..., :4], boxes[..., 4:5], boxes[..., 5:]
        if self.layer_param.region_param.softmax:
            classes = classes.softmax(-1)
        return torch.cat([places, score.sigmoid(), classes], -1).reshape(shape)
