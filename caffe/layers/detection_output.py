"""DetectionOutput: from predictions for default boxes to the boxes that are found (SSD)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from caffe.formats.onnx import Graph, Names, Value
from caffe.kernels import boxes as box
from caffe.layers.base import RAW, Layer, Shape, Tensors, register
from caffe.layers.detection_files import Saver
from caffe.layers.detection_onnx import write
from caffe.layers.look import Look
from caffe.process.log import WARNING, emit

# The hint of layers whose priors do not fit: TextBoxes' PriorBox needs no field for that.
DENSER = (
    "; some forks' PriorBox makes more boxes of the same fields: set denser_prior_boxes: true for "
    "TextBoxes' (twice as many), dense_faces: true for sfzhang15/FaceBoxes' (21 of three sizes)"
)
_TAKES = (
    *("num_classes", "share_location", "background_label_id", "nms_param", "code_type"),
    *("keep_top_k", "variance_encoded_in_target", "confidence_threshold"),
)


class _Detections(Layer):
    """Boxes of each class after non-maximum suppression.

    Bottoms: codes of locations (N, priors x classes or 1 x 4), confidences (N, priors x classes),
    priors and variances (1, 2, priors x 4). Each class but the background: of the boxes whose
    confidence is above confidence_threshold the nms_param.top_k best are suppressed; of what all
    classes keep, the keep_top_k best of an image are left. Their rows stand by image and class, the
    most confident first. If nothing is found at all, there is a row of -1 for each image.
    """

    bottoms = (3, 3)
    in_place = False
    varying = 2
    raw_bottoms = 3
    look = Look("Output")
    reads = ("detection_output_param",)
    fields = 7  # in a row of the top
    extra = 0  # further codes of a location behind the four of its box
    background = 0

    def setup(self, shapes: Sequence[Shape]) -> None:
        self.labels = tuple(range(self.num_bottoms))
        p = self.layer_param.detection_output_param
        self.check(p.num_classes >= 1, "must give num_classes of at least 1")
        self.classes = p.num_classes
        self.places = 1 if p.share_location else p.num_classes  # locations of a prior
        nms = p.nms_param
        self.check(nms.nms_threshold >= 0, f"nms_threshold is {nms.nms_threshold:g}, not negative")
        self.check(0 < nms.eta <= 1, f"eta is {nms.eta:g}, expected more than 0, at most 1")
        self.top_k = nms.top_k if nms.HasField("top_k") else -1
        given = p.HasField("confidence_threshold")
        self.least = p.confidence_threshold if given else -math.inf

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        locations, confidences, priors = (tuple(shape) for shape in shapes[:3])
        self.check(
            locations[:1] == confidences[:1] and len(locations) > 1 and len(confidences) > 1,
            f"bottoms have the shapes {locations} and {confidences}: expected the same samples",
        )
        count = check_priors(self, priors)
        for shape, each, what in (
            (locations, (4 + self.extra) * self.places, "location"),
            (confidences, self.classes, "confidence"),
        ):
            given = math.prod(shape[1:])
            self.check(
                given == count * each,
                f"{given} {what} predictions do not fit {count} priors, expected "
                f"{count * each}{DENSER}",
            )
        return [(1, 1, 1, self.fields)]

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        (shape,) = self.top_shapes(bottom)
        if bottom[0].is_meta:
            return bottom[0].new_empty(shape)
        with torch.no_grad():
            boxes, scores = self._decode(*bottom[:3])
        rows = [row for i in range(len(boxes)) for row in self._image(i, boxes[i], scores[i])]
        if rows:
            found = np.concatenate(rows)
        else:
            found = np.full((len(boxes), self.fields), -1.0, np.float32)
            found[:, 0] = np.arange(len(boxes))
        self.found(bottom, found, len(boxes))
        return torch.from_numpy(found.astype(np.float32)).to(bottom[0].device)[None, None]

    def found(self, bottom: Tensors, rows: np.ndarray, images: int) -> None:
        """Called with the rows of each pass."""

    def _decode(
        self, locations: torch.Tensor, confidences: torch.Tensor, priors: torch.Tensor
    ) -> tuple[np.ndarray, np.ndarray]:
        """Boxes (N, priors, places, 4), with what belongs to them behind the four, and scores
        (N, priors, classes), on the host.
        """
        p, n = self.layer_param.detection_output_param, len(locations)
        codes = locations.float().reshape(n, -1, self.places, 4 + self.extra)
        prior, variances = (x[:, None] for x in split_priors(priors))
        used = None if p.variance_encoded_in_target else variances
        boxes = box.decode(codes[..., :4], prior, used, p.code_type)
        if self.extra:
            boxes = torch.cat([boxes, _outlines(codes[..., 4:], prior, variances)], -1)
        scores = confidences.float().reshape(n, -1, self.classes)
        return boxes.cpu().numpy(), scores.cpu().numpy()

    def _image(self, image: int, boxes: np.ndarray, scores: np.ndarray) -> Iterator[np.ndarray]:
        """The rows of one image, an array for each class that has some."""
        kept = [*self._suppressed(boxes, scores)]
        most = self.layer_param.detection_output_param.keep_top_k
        if -1 < most < sum(len(index) for _, index in kept):
            confidences = np.concatenate([scores[index, label] for label, index in kept])
            best = np.argsort(-confidences, kind="stable")[:most]
            chosen = np.zeros(len(confidences), bool)
            chosen[best] = True
            ends = np.cumsum([len(index) for _, index in kept])[:-1]
            parts = np.split(chosen, ends)
            kept = [(c, index[part]) for (c, index), part in zip(kept, parts, strict=True)]
        for label, index in kept:
            if len(index):
                place = label if self.places > 1 else 0
                yield self._rows(image, label, index, scores[index, label], boxes[index, place])

    def _suppressed(
        self, boxes: np.ndarray, scores: np.ndarray
    ) -> Iterator[tuple[int, np.ndarray]]:
        """(class, indices of the priors whose boxes are kept) for each class."""
        p = self.layer_param.detection_output_param.nms_param
        for label in range(self.classes):
            if label == self.background:
                continue
            index = np.flatnonzero(scores[:, label] > self.least)
            place = label if self.places > 1 else 0
            yield (
                label,
                index[
                    box.suppress(
                        boxes[index, place, :4],
                        scores[index, label],
                        p.nms_threshold,
                        top_k=self.top_k,
                        eta=p.eta,
                    )
                ],
            )

    def _rows(
        self, image: int, label: int, index: np.ndarray, scores: np.ndarray, boxes: np.ndarray
    ) -> np.ndarray:
        """(image, label, confidence, xmin, ymin, xmax, ymax) of each box."""
        rows = np.empty((len(index), self.fields), np.float32)
        rows[:, 0], rows[:, 1], rows[:, 2] = image, label, scores
        rows[:, 3 : 3 + boxes.shape[1]] = boxes
        return rows

    def onnx(self, graph: Graph, *bottoms: Value) -> Names:
        locations, confidences, priors = bottoms[:3]
        p = self.layer_param.detection_output_param
        self.check(
            p.nms_param.eta == 1
            and self.places == 1
            and p.nms_param.nms_threshold <= 1
            and not self.extra,
            "has no ONNX form with eta, with share_location: false, an nms_threshold above 1 or "
            "outlines" + RAW,
        )
        self.check(self.classes > (self.background == 0), "has no ONNX form without a class")
        self.check(not graph.dynamic_batch, "has an ONNX form for a fixed batch size only")
        return write(self, graph, locations, confidences, priors)

    def onnx_origin(self, graph: Graph, index: str) -> list[str]:
        """Further columns (n, 1) of the rows in ONNX, from the numbers (n, 1) of their priors."""
        return []


@register("DetectionOutput")
class DetectionOutput(_Detections):
    """The boxes that SSD finds: decoded, suppressed class by class, and the best of them.

    Bottoms, of which further ones only serve pictures that are not drawn here, and rules: as
    _Detections says (detection_output_layer.cpp; Liu et al., 2016). Top: (1, 1, rows, 7): image,
    label, confidence, xmin, ymin, xmax, ymax, the latter as fractions of the image. With 12 codes
    a prior instead of 4 (TextBoxes++) four corners x, y follow (15 numbers a row); with 9 two
    corners and the height of a rotated box (12 numbers).
    save_output_param: after each num_test_image images their boxes are written into files.
    """

    bottoms = (3, 4)
    fork = "SSD, NVCaffe, MobileNet-YOLO, TextBoxes++"
    judge = "recorded"
    takes = tuple(
        f"detection_output_param.{f}" for f in (*_TAKES, "save_output_param", "use_polygon")
    )
    differs = (
        "visualize is without effect. Where save_output_param names files that are not there, a "
        "warning says so and nothing is saved. In ONNX there is no form with eta below 1."
    )

    def setup(self, shapes: Sequence[Shape]) -> None:
        super().setup(shapes)
        p = self.layer_param.detection_output_param
        self.background = p.background_label_id
        with self.named():
            self.saver, why = Saver.of(p.save_output_param, self.classes, self.background)
        if why:
            emit("detection_output_layer.cpp:60", f"{self.where}: saves nothing: {why}", WARNING)

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        p = self.layer_param.detection_output_param
        priors = shapes[2][2] // 4 if len(shapes[2]) > 2 else 0
        codes = math.prod(shapes[0][1:]) / (priors * self.places) if priors else 4
        self.extra = {12: 8, 9: 5}.get(codes, 0)
        self.fields = 7 + self.extra
        self.check(
            not self.extra or (p.code_type == box.CENTER_SIZE and not p.variance_encoded_in_target),
            "outlines need code_type: CENTER_SIZE and variance_encoded_in_target: false",
        )
        return super().infer_shapes(shapes)

    def found(self, bottom: Tensors, rows: np.ndarray, images: int) -> None:
        if self.saver is not None:
            with self.named():
                self.saver.add(rows, images)


@register("DetectionOutputExtended")
class DetectionOutputExtended(_Detections):
    """DetectionOutput for one class and one feature map that also tells where a box comes from.

    Bottoms: (N, H, W, anchors x 4), (N, H, W, anchors x 2), (1, 2, H x W x anchors x 4). Top:
    (1, 1, rows, 10): the 7 of DetectionOutput, then the anchor and the place, x and y
    (training_toolbox_caffe, detection_output_extended_layer.cpp).
    """

    fork = "OpenCV training toolbox"
    judge = "recorded"
    takes = tuple(f"detection_output_param.{f}" for f in _TAKES)
    fields = 10

    def setup(self, shapes: Sequence[Shape]) -> None:
        super().setup(shapes)
        self.check(self.classes == 2, f"num_classes is {self.classes}, expected 2")

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        self.check(
            len(shapes[0]) == 4 and shapes[0][3] % 4 == 0,
            f"locations have the shape {tuple(shapes[0])}, expected samples, height, width, "
            "anchors x 4",
        )
        (_, self.width, anchors) = shapes[0][1:]
        self.anchors = anchors // 4
        return super().infer_shapes(shapes)

    def _rows(
        self, image: int, label: int, index: np.ndarray, scores: np.ndarray, boxes: np.ndarray
    ) -> np.ndarray:
        rows = super()._rows(image, label, index, scores, boxes)
        places = index // self.anchors
        rows[:, 7], rows[:, 8] = index % self.anchors, places % self.width
        rows[:, 9] = places // self.width
        return rows

    def onnx_origin(self, graph: Graph, index: str) -> list[str]:
        anchors, width = (graph.constant(n, np.int64) for n in (self.anchors, self.width))
        place = graph.add("Div", index, anchors)
        columns = [graph.add("Mod", index, anchors), graph.add("Mod", place, width)]
        return [graph.to_float(x) for x in (*columns, graph.add("Div", place, width))]


def _outlines(codes: torch.Tensor, priors: torch.Tensor, variances: torch.Tensor) -> torch.Tensor:
    """The corners of quadrangles from 8 codes, or two corners and the height of rotated boxes from
    5 (TextBoxes++'s bbox_util.cpp). Corners are told from the prior's own, or from its centre.
    """
    center, size = box.to_center_size(priors)
    unit = variances[..., :2] * size
    if codes.shape[-1] == 8:
        return codes * unit.repeat(1, 1, 4) + priors[..., [0, 1, 2, 1, 2, 3, 0, 3]]
    corners = codes[..., :4] * unit.repeat(1, 1, 2) + center.repeat(1, 1, 2)
    height = (codes[..., 4:] * variances[..., 3:]).exp() * size[..., 1:]
    return torch.cat([corners, height], -1)


def check_priors(layer: Layer, shape: Shape) -> int:
    """The number of priors in a bottom (1, 2, priors x 4)."""
    fits = len(shape) in (3, 4) and shape[:2] == (1, 2) and shape[2] % 4 == 0
    layer.check(
        fits and math.prod(shape[3:]) == 1,
        f"priors have the shape {shape}, expected 1, 2, priors x 4",
    )
    return shape[2] // 4


def split_priors(priors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Boxes and variances, each (priors, 4)."""
    boxes, variances = priors.detach().float().reshape(2, -1, 4)
    return boxes, variances
