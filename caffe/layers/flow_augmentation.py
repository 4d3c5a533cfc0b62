"""FlowNet2's augmentation layers: what they do without drawing random numbers.

Crops, given transformations and means are there. Transformations that are drawn at random are not:
a net that asks for them is told so when it is made, and gets the image as it is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from caffe.formats.onnx import Graph, Names, Value
from caffe.layers.base import Layer, Shape, Tensors, can_look, register
from caffe.layers.flow import bilinear, corners, pixels
from caffe.proto import caffe_pb2 as pb

COEFFICIENTS = 42  # fields of FlowNet2's AugmentationCoeff; the first six say where pixels go
DRAWN = "Transformations are not drawn at random: the image stays as it is."


def matrices(coefficients: torch.Tensor, top: Sequence[int], image: Sequence[int]) -> torch.Tensor:
    """For each sample the matrix (N, 2, 3) that takes x, y, 1 of a result to a point in the image.

    coefficients: (N, 42, ...): mirror, dx, dy and angle, and the logarithms of zoom_x and zoom_y.
    top, image: height and width (augmentation_layer_base.cpp).
    """
    mirror, dx, dy, angle, zoom_x, zoom_y = coefficients.flatten(1)[:, :6].unbind(1)
    (h, w), (image_h, image_w) = top, image
    one, zero = torch.ones_like(dx), torch.zeros_like(dx)
    side = torch.where(mirror != 0, -one, one)
    cos, sin = angle.cos(), angle.sin()

    def rows(*values: torch.Tensor) -> torch.Tensor:
        return torch.stack(values, 1).view(-1, 3, 3)

    centre = rows(side, zero, -side * w / 2, zero, one, one * -h / 2, zero, zero, one)
    turn = rows(cos, -sin, dx * w, sin, cos, dy * h, zero, zero, one)
    zoom = rows(
        *((-zoom_x).exp(), zero, one * image_w / 2),
        *(zero, (-zoom_y).exp(), one * image_h / 2),
        *(zero, zero, one),
    )
    return (zoom @ turn @ centre)[:, :2]


def carried(matrix: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Points (N, 2, H, W) taken elsewhere by matrices (N, 2, 3)."""
    moved = torch.einsum("nij,njhw->nihw", matrix[:, :, :2], points)
    return moved + matrix[:, :, 2, None, None]


@register("DataAugmentation")
class DataAugmentation(Layer):
    """Crops, transforms and centres images (FlowNet2's data_augmentation_layer.cu).

    Bottoms: images (N, C, H, W); optionally coefficients (N, 42, 1, 1). Tops: images (N, C,
    crop_height, crop_width), cut from the middle and transformed by the coefficients if both sizes
    are given, else as they are; the coefficients. Then a mean is subtracted: with recompute_mean
    that of the first so many passes, of each pixel or of each channel, else `mean`.
    Blobs: the number of passes (1, 1, 1, 1); with recompute_mean the means of the pixels (1, C, h,
    w) and of the channels (1, C, 1, 1). Weights of a net for another size bring their mean along.
    No bottom has a gradient.
    """

    bottoms = (1, 2)
    tops = (1, 2)
    labels = (0, 1)
    in_place = False
    gathers = True
    fork = "FlowNet2"
    judge = "recorded"
    reads = ("augmentation_param",)
    takes = tuple(
        f"augmentation_param.{name}"
        for name in (
            *("crop_width", "crop_height", "recompute_mean", "mean_per_pixel", "mean"),
            *("augment_during_test", "max_multiplier", "write_augmented", "write_mean"),
        )
    )
    differs = f"{DRAWN} Coefficients of colours and effects are without effect."

    def setup(self, shapes: Sequence[Shape]) -> None:
        p = self.layer_param.augmentation_param
        self.crops = p.HasField("crop_width") and p.HasField("crop_height")
        (_, channels, *size), *_ = self.infer_shapes(shapes)
        self.add_blob((1, 1, 1, 1), pb.FillerParameter())
        if p.recompute_mean:
            self.add_blob((1, channels, *size), pb.FillerParameter())
            self.add_blob((1, channels, 1, 1), pb.FillerParameter())

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        p, image = self.layer_param.augmentation_param, shapes[0]
        self.check(
            len(image) == 4 and min(image) > 0,
            f"images (bottom 0) have the shape {image}, expected (N, C, H, W)",
        )
        size = image[2:]
        if self.crops:
            size = (p.crop_height, p.crop_width)
            self.check(
                0 < size[0] <= image[2] and 0 < size[1] <= image[3] and min(image[2:]) > 1,
                f"crop_height and crop_width are {size[0]} and {size[1]}, expected at most "
                f"{image[2]} and {image[3]}, in an image of at least 2 x 2",
            )
        if self.blobs and p.recompute_mean:
            self.check(
                self.blobs[2].shape[1] == image[1],
                f"images have {image[1]} channels, expected {self.blobs[2].shape[1]} as at the "
                "start",
            )
            self.check(
                not p.mean_per_pixel or self.blobs[1].shape[2:] == size,
                f"the top's size is {size}, expected {self.blobs[1].shape[2:]}, that of the mean",
            )
        self.check(
            p.recompute_mean > 0 or p.mean_per_pixel or len(p.mean) != 3 or image[1] == 3,
            f"images have {image[1]} channels, expected 3 as `mean` has",
        )
        coefficients = (image[0], COEFFICIENTS, 1, 1)
        if len(shapes) > 1:
            given = shapes[1]
            self.check(
                given[:2] == coefficients[:2] and math.prod(given[2:]) == 1,
                f"coefficients (bottom 1) have the shape {given}, expected {coefficients}",
            )
            coefficients = given
        return [(*image[:2], *size), coefficients][: self.num_tops]

    def forward(self, bottom: Tensors, blobs: Tensors) -> Tensors:
        top = self.top_shapes(bottom)[0]
        images = bottom[0].detach()
        n = images.shape[0]
        given = bottom[1].detach() if len(bottom) > 1 else images.new_zeros(n, COEFFICIENTS, 1, 1)
        if self.crops:
            images = self._transformed(images, given, top)
        with torch.no_grad():
            images = self._centred(images, blobs)
        return [images.clone() if images is bottom[0] else images, given.clone()][: self.num_tops]

    def _transformed(
        self, images: torch.Tensor, coefficients: torch.Tensor, top: Shape
    ) -> torch.Tensor:
        h, w = images.shape[2:]
        matrix = matrices(coefficients, top[2:], (h, w))
        grid = pixels(images.new_empty(images.shape[0], 1, *top[2:]))
        x, y = carried(matrix, grid).split(1, 1)
        x, y = x.clamp(0, w - 1.05), y.clamp(0, h - 1.05)
        left, above = x.long(), y.long()
        values = corners(images, above, left, above + 1, left + 1)
        return bilinear(values, y - above, x - left)

    def _centred(self, images: torch.Tensor, blobs: Tensors) -> torch.Tensor:
        """The images minus the mean; counts the pass, and updates the mean in the first ones."""
        p = self.layer_param.augmentation_param
        if can_look(images):
            blobs[0].copy_(blobs[0].trunc() + 1)
        if p.recompute_mean:
            if can_look(images):
                self._gather(images, blobs)
            return images - (blobs[1] if p.mean_per_pixel else blobs[2])
        if len(p.mean) == 3 and not p.mean_per_pixel:
            return images - images.new_tensor(list(p.mean)).view(1, 3, 1, 1)
        return images

    def _gather(self, images: torch.Tensor, blobs: Tensors) -> None:
        """Let the images count for the mean, unless enough have done so."""
        passes, by_pixel, by_channel = blobs
        limit = self.layer_param.augmentation_param.recompute_mean
        share = (passes <= limit) / passes  # of this pass; 0 when the mean is done
        mean = images.mean(0, keepdim=True)
        if by_pixel.shape[2:] == mean.shape[2:]:
            by_pixel.lerp_(mean.to(by_pixel), share.item())
            if share.item():
                by_channel.copy_(by_pixel.mean((2, 3), keepdim=True))
        else:
            by_channel.lerp_(mean.mean((2, 3), keepdim=True).to(by_channel), share.item())

    def from_file(self, index: int, arrays: Sequence[np.ndarray | None]) -> np.ndarray | None:
        """The mean of a net for images of another size: that of each channel."""
        array = super().from_file(index, arrays)
        shape = self.blobs[index].shape
        if index != 1 or array is None or array.ndim != 4 or array.shape[:2] != shape[:2]:
            return array
        if array.shape == shape:
            return array
        return np.broadcast_to(array.mean((2, 3), keepdims=True), shape)

    def onnx(self, graph: Graph, *bottoms: Value) -> Names:
        p, image = self.layer_param.augmentation_param, bottoms[0]
        self.check(len(bottoms) == 1, "has no ONNX form with coefficients")
        self.check(self.num_tops == 1, "has no ONNX form with coefficients as a top")
        top, x = self.infer_shapes([image.shape])[0], image.name
        if self.crops and top != image.shape:
            starts = [(a - b) / 2 for a, b in zip(image.shape[2:], top[2:], strict=True)]
            self.check(
                all(start == int(start) for start in starts),
                "has an ONNX form for crops by a whole number of pixels on each side only",
            )
            ends = [int(start) + n for start, n in zip(starts, top[2:], strict=True)]
            x = graph.slice(x, [2, 3], [int(start) for start in starts], ends)
        if p.recompute_mean:
            self.check(
                float(self.array(0).item()) >= p.recompute_mean,
                "computes its mean in the first passes, which has no ONNX form; load weights "
                "that have it",
            )
            mean = self.array(1 if p.mean_per_pixel else 2)
        elif len(p.mean) == 3 and not p.mean_per_pixel:
            mean = np.array(p.mean, np.float32).reshape(1, 3, 1, 1)
        else:
            return graph.add("Identity", x)
        return graph.add("Sub", x, graph.constant(mean))


@register("FlowAugmentation")
class FlowAugmentation(Layer):
    """The flow between two images after each was transformed (FlowNet2's
    flow_augmentation_layer.cu).

    Bottoms: flow (N, 2, H, W); the coefficients of the first and of the second image, (N, 42, 1, 1)
    each. Top: (N, 2, crop_height, crop_width). There is no gradient.
    """

    bottoms = (3, 3)
    labels = (0, 1, 2)
    in_place = False
    fork = "FlowNet2"
    judge = "recorded"
    reads = ("augmentation_param",)
    takes = tuple(
        f"augmentation_param.{n}" for n in ("crop_width", "crop_height", "augment_during_test")
    )
    differs = "Points beyond the flow take its edge; FlowNet2 reads other memory."

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        p, flow = self.layer_param.augmentation_param, shapes[0]
        self.check(p.crop_width > 0 and p.crop_height > 0, "needs crop_width and crop_height")
        self.check(
            len(flow) == 4 and flow[1] == 2 and min(flow) > 0,
            f"flow (bottom 0) has the shape {flow}, expected (N, 2, H, W)",
        )
        for i, given in enumerate(shapes[1:], 1):
            self.check(
                given[:2] == (flow[0], COEFFICIENTS) and math.prod(given[2:]) == 1,
                f"coefficients (bottom {i}) have the shape {given}, expected "
                f"{(flow[0], COEFFICIENTS, 1, 1)}",
            )
        return [(*flow[:2], p.crop_height, p.crop_width)]

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        (top,) = self.top_shapes(bottom)
        flow, size = bottom[0].detach(), tuple(bottom[0].shape[2:])
        first, second = (matrices(x.detach(), top[2:], size) for x in bottom[1:])
        grid = pixels(flow.new_empty(flow.shape[0], 1, *top[2:]))
        before = carried(first, grid)
        # C++ rounds to zero: numbers down to -1.5 are the first pixel.
        x, y = (before + 0.5).trunc().long().split(1, 1)
        place = y.clamp(0, size[0] - 1), x.clamp(0, size[1] - 1)
        after = before + corners(flow, *place, *place)[0]
        return _undone(second, after) - grid


def _undone(matrix: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """The points (N, 2, H, W) that matrices (N, 2, 3) take to these."""
    a, c, e = matrix[:, 0].unbind(1)
    b, d, f = matrix[:, 1].unbind(1)
    inverse = torch.stack([d, -c, c * f - d * e, -b, a, b * e - a * f], 1).view(-1, 2, 3)
    return carried(inverse / (a * d - b * c)[:, None, None], points)


@register("GenerateAugmentationParameters")
class GenerateAugmentationParameters(Layer):
    """Coefficients for DataAugmentation (FlowNet2's generate_augmentation_parameters_layer.cu).

    Bottoms: coefficients (N, 42, 1, 1), or images (N, C, H, W); or coefficients, images before and
    images after a transformation. Top: (N, 42, 1, 1): with the modes "add" and "replace" the given
    coefficients, with "regenerate", which images alone stand for, zeros: no transformation.
    """

    bottoms = (1, 3)
    labels = (0, 1, 2)
    in_place = False
    fork = "FlowNet2"
    judge = "recorded"
    reads = ("augmentation_param", "coeff_schedule_param")
    takes = (
        *(f"augmentation_param.{n}" for n in ("mode", "crop_width", "crop_height", "bottomwidth")),
        *("augmentation_param.bottomheight", "augmentation_param.augment_during_test"),
        *(f"coeff_schedule_param.{n}" for n in ("half_life", "initial_coeff", "final_coeff")),
    )
    differs = DRAWN

    def setup(self, shapes: Sequence[Shape]) -> None:
        self.check(len(shapes) != 2, "takes one bottom or three, got 2")

    def _keeps(self, shape: Shape) -> bool:
        """Whether bottom 0 holds coefficients that stay."""
        images = len(shape) == 4 and max(shape[2:]) > 1
        regenerates = self.layer_param.augmentation_param.mode == "regenerate"
        return not regenerates and not (images and self.num_bottoms == 1)

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        given = shapes[0]
        self.check(len(given) > 0 and given[0] > 0, f"bottom 0 has the shape {given}")
        if self._keeps(given):
            self.check(
                given[1:2] == (COEFFICIENTS,) and math.prod(given[2:]) == 1,
                f"coefficients (bottom 0) have the shape {given}, expected "
                f"{(given[0], COEFFICIENTS, 1, 1)}",
            )
        return [(given[0], COEFFICIENTS, 1, 1)]

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        (top,) = self.top_shapes(bottom)
        if self._keeps(tuple(bottom[0].shape)):
            return bottom[0].detach().reshape(top).clone()
        return bottom[0].new_zeros(top)

    def onnx(self, graph: Graph, *bottoms: Value) -> Names:
        (top,) = self.infer_shapes([x.shape for x in bottoms])
        if self._keeps(bottoms[0].shape):
            return graph.reshape(bottoms[0], top)
        return graph.add("Expand", graph.constant(0.0), graph.shape_like(bottoms[0], top))


@register("BlackAugmentation")
class BlackAugmentation(Layer):
    """The bottoms as they are (FlowNet2's black_augmentation_layer.cu, which blackens some images
    or their borders at random).

    Bottoms: images and flows, (N, 3 or 2, H, W). Tops: as the bottoms, which have no gradient.
    """

    bottoms = (1, None)
    tops = (1, None)
    labels = (0,)
    one_top_each = True
    in_place = False
    fork = "FlowNet2"
    judge = "worked cases"
    reads = ("black_augmentation_param",)
    differs = "Nothing is blackened at random: the images stay as they are."

    def setup(self, shapes: Sequence[Shape]) -> None:
        self.labels = tuple(range(len(shapes)))

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        for i, shape in enumerate(shapes):
            self.check(
                len(shape) == 4 and shape[1] in (2, 3) and shape[2:] == shapes[0][2:],
                f"bottom {i} has the shape {shape}, expected (N, 2 or 3, H, W) for one H, W",
            )
        return [tuple(shape) for shape in shapes]

    def forward(self, bottom: Tensors, blobs: Tensors) -> Tensors:
        self.top_shapes(bottom)
        return [x.detach().clone() for x in bottom]

    def onnx(self, graph: Graph, *bottoms: Value) -> Names:
        return [graph.add("Identity", x) for x in bottoms]
