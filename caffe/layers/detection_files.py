"""The files that DetectionOutput writes: boxes in pixels, as VOC, COCO and ILSVRC take them."""

from __future__ import annotations

import json
import os
import re

import numpy as np

from boundary.errors import shown
from boundary.writing import write_text
from caffe.errors import CaffeError
from caffe.formats.detection import read_label_map, read_sizes
from caffe.proto import caffe_pb2 as pb

_NUMBER = re.compile(r"-?\d+(\.\d+)?")


class Saver:
    """Gathers the boxes of num_test_image images, then writes them (detection_output_layer.cpp).

    names: of the labels. sizes: (name, height, width) of each image in the order of the passes.
    """

    def __init__(
        self,
        param: pb.SaveOutputParameter,
        names: dict[int, str],
        sizes: list[tuple[str, int, int]],
        labels: list[int],
    ) -> None:
        self.param, self.names, self.sizes, self.labels = param, names, sizes, labels
        self.count = param.num_test_image if param.HasField("num_test_image") else len(sizes)
        if not 0 < self.count <= len(sizes):
            raise CaffeError(f"num_test_image is {self.count}, expected 1 to {len(sizes)}")
        self._images = 0
        self._found: list[tuple[str, int, float, list[float]]] = []

    @classmethod
    def of(
        cls, param: pb.SaveOutputParameter, classes: int, background: int
    ) -> tuple[Saver | None, str]:
        """The saver that a layer's save_output_param asks for, or None, and why there is none
        although it asks for one.
        """
        paths = (param.label_map_file, param.name_size_file)
        if not (param.output_directory and all(paths)):
            return None, ""
        for path in paths:
            if not os.path.exists(path):
                return None, f"there is no file {shown(path)}"
        labels = [label for label in range(classes) if label != background]
        return cls(param, read_label_map(paths[0]), read_sizes(paths[1]), labels), ""

    def add(self, rows: np.ndarray, images: int) -> None:
        """Take the rows of one pass over that many images; write when enough are there."""
        for image in range(images):
            name, height, width = self.sizes[self._images]
            of_image = rows[(rows[:, 0] == image) & (rows[:, 1] != -1)]
            resize = self.param.resize_param if self.param.HasField("resize_param") else None
            corners = in_pixels(of_image[:, 3:7], height, width, resize)
            for row, corner in zip(of_image, corners, strict=True):
                label = int(row[1])
                if label not in self.names:
                    raise CaffeError(
                        f"{shown(self.param.label_map_file)}: has no label {label}, which was found"
                    )
                sides = [*corner[:2], *(corner[2:] - corner[:2])]
                rounded = [round(float(v), 2) for v in sides]
                self._found.append((name, label, float(row[2]), rounded))
            self._images += 1
            if self._images == self.count:
                self._write()
                self._images, self._found = 0, []

    def _write(self) -> None:
        folder, prefix = self.param.output_directory, self.param.output_name_prefix
        texts = {}
        if self.param.output_format == "VOC":
            texts = {f"{prefix}{self._name(label)}.txt": self._voc(label) for label in self.labels}
        elif self.param.output_format == "ILSVRC":
            rows = [f"{n} {label} {s:g} {_corners(b)}\n" for n, label, s, b in self._found]
            texts = {f"{prefix}.txt": "".join(rows)}
        elif self.param.output_format == "COCO":
            texts = {f"{prefix}.json": self._coco()}
        try:
            os.makedirs(folder, exist_ok=True)
        except OSError as error:
            raise CaffeError(f"{shown(folder)}: {error.strerror or error}") from None
        for name, text in texts.items():
            write_text(os.path.join(folder, name), text, CaffeError)

    def _name(self, label: int) -> str:
        name = self.names.get(label, "")
        if "/" in name or "\0" in name:
            raise CaffeError(f"label {label} has the name {name!r}, which is no name of a file")
        return name

    def _voc(self, label: int) -> str:
        rows = [f"{n} {s:g} {_corners(b)}\n" for n, found, s, b in self._found if found == label]
        return "".join(rows)

    def _coco(self) -> str:
        rows = [
            {
                "image_id": _numeric(name),
                "category_id": _numeric(self.names[label]),
                "bbox": sides,
                "score": float(f"{score:.9g}"),
            }
            for name, label, score, sides in self._found
        ]
        return json.dumps(rows, indent=4) + "\n"


def _corners(sides: list[float]) -> str:
    """xmin ymin xmax ymax of xmin, ymin, width, height, each cut to a whole number first."""
    x, y, width, height = (int(v) for v in sides)
    return f"{x} {y} {x + width} {y + height}"


def _numeric(text: str) -> str | int | float:
    """COCO's numbers are numbers, other names stay texts."""
    if not _NUMBER.fullmatch(text):
        return text
    return float(text) if "." in text else int(text)


def in_pixels(
    boxes: np.ndarray, height: int, width: int, resize: pb.ResizeParameter | None = None
) -> np.ndarray:
    """Boxes (n, 4) given as fractions of the net's input, as pixels of the picture.

    resize: how the picture was brought to the input's size (OutputBBox in SSD's bbox_util.cpp).
    """
    scale = np.array([width, height, width, height], np.float32)
    mode = resize.resize_mode if resize is not None else pb.ResizeParameter.WARP
    if mode == pb.ResizeParameter.FIT_LARGE_SIZE_AND_PAD:
        boxes = _without_padding(boxes, width / height, resize)
    elif mode == pb.ResizeParameter.FIT_SMALL_SIZE and resize.height_scale and resize.width_scale:
        inner = np.array([resize.width_scale, resize.height_scale] * 2, np.float32)
        return np.clip(boxes * inner, 0, scale)
    return np.clip(boxes, 0, 1) * scale


def _without_padding(boxes: np.ndarray, aspect: float, resize: pb.ResizeParameter) -> np.ndarray:
    """Boxes as fractions of the picture within its padding; those wholly outside stay."""
    high, wide = resize.height, resize.width
    if not (high and wide):
        raise CaffeError("resize_param must give height and width")
    if aspect > wide / high:
        border = np.array([0, (high - wide / aspect) / 2 / high], np.float32)
    else:
        border = np.array([(wide - high * aspect) / 2 / wide, 0], np.float32)
    inner = 1 - 2 * border
    within = ((boxes[:, :2] < 1 - border) & (boxes[:, 2:] > border)).all(1)
    moved = (boxes - np.tile(border, 2)) / np.tile(inner, 2)
    return np.where(within[:, None], moved, boxes)
