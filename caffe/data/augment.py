"""Augmentation: random zoom, free crops and colour jitter of training records.

The settings are `augmentation_param` in a data layer's `transform_param`; they act in TRAIN only. A
record may hold colour, depth and label in its channels. Colour is interpolated and jittered; every
other channel takes the value of the nearest pixel unchanged.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from boundary import limits
from caffe.errors import CaffeError
from caffe.proto import caffe_pb2 as pb

# B, G, R to YIQ: luminance and two chroma axes, which are zero for grey and whose angle is the hue.
_TO_YIQ = np.array([[0.114, 0.587, 0.299], [-0.321, -0.275, 0.596], [0.311, -0.523, 0.212]])
_FROM_YIQ = np.linalg.inv(_TO_YIQ)
MAX_SCALE = 64  # a picture that is resized to more has few of its own pixels in any crop
JITTERS = ("brightness", "contrast", "saturation", "hue")


@dataclass(frozen=True)
class Placing:
    """How one axis of a picture, resized from `old` to `new` pixels, is placed on an output axis.

    `count` pixels of the resized picture, from pixel `first` on, are copied to the output, from
    pixel `start` on.
    """

    old: int
    new: int
    first: int
    start: int
    count: int

    @classmethod
    def draw(cls, old: int, scale: float, out: int, rng: np.random.Generator) -> Placing:
        """A random placing on an output of `out` pixels, old * scale pixels of picture.

        A larger picture is cropped at a random place; a smaller one lies whole at a random place.
        """
        new = max(1, round(old * scale))
        place = int(rng.integers(abs(new - out) + 1))
        first, start = (place, 0) if new >= out else (0, place)
        return cls(old, new, first, start, min(new, out))

    @property
    def seen(self) -> slice:
        """The copied pixels in the resized picture."""
        return slice(self.first, self.first + self.count)

    @property
    def where(self) -> slice:
        """The place of the copied pixels in the output."""
        return slice(self.start, self.start + self.count)

    def nearest(self) -> np.ndarray | slice:
        """For each copied pixel, the pixel of the old picture whose centre is nearest."""
        if self.new == self.old:
            return self.seen
        centres = np.arange(self.first, self.first + self.count) + 0.5
        return np.minimum((centres * (self.old / self.new)).astype(np.intp), self.old - 1)


class Augmentation:
    """Applies one augmentation_param. Raises CaffeError for settings that contradict each other."""

    def __init__(self, param: pb.AugmentationParameter, crop_size: int, has_mean_file: bool):
        self.param = param
        self.color, self.label = list(param.color_channel), list(param.label_channel)
        self.zooms = (param.min_scale, param.max_scale) != (1, 1)
        self.jitters = any(getattr(param, name) for name in JITTERS)
        self.moves = self.zooms or param.crop_h > 0
        for good, message in self._rules(crop_size, has_mean_file):
            if not good:
                raise CaffeError(f"augmentation_param: {message}")

    def _rules(self, crop_size: int, has_mean_file: bool) -> list[tuple[bool, str]]:
        p = self.param
        channels = [*self.color, *self.label]
        rules = [
            (
                0 < p.min_scale <= p.max_scale < math.inf,
                f"min_scale {p.min_scale:g} and max_scale {p.max_scale:g}; expected "
                "0 < min_scale <= max_scale",
            ),
            (
                p.max_scale <= MAX_SCALE,
                f"max_scale is {p.max_scale:g}, expected at most {MAX_SCALE}",
            ),
            (
                p.crop_h * p.crop_w <= limits.max_pixels(),
                f"crop_h {p.crop_h} and crop_w {p.crop_w} make more than {limits.max_pixels()} "
                "pixels",
            ),
            ((p.crop_h > 0) == (p.crop_w > 0), "give both crop_h and crop_w, or none"),
            (not (p.crop_h and crop_size), "give either crop_h and crop_w, or crop_size"),
            (
                not (self.moves and has_mean_file),
                "mean_file does not go with zoom and free crops; give mean_value",
            ),
            (
                not (self.zooms and crop_size),
                "crop_size does not go with zoom; give crop_h and crop_w",
            ),
            (len(set(channels)) == len(channels), f"a channel is named twice: {channels}"),
            (
                not self.jitters or bool(self.color),
                "colour jitter needs color_channel, once for each channel of colour",
            ),
            (
                not (p.saturation or p.hue) or len(self.color) == 3,
                f"saturation and hue need three color_channel, B, G, R; given {self.color}",
            ),
        ]
        for name in JITTERS:
            value, most = getattr(p, name), 0.5 if name == "hue" else 1
            rules.append((0 <= value <= most, f"{name} is {value:g}; expected 0 to {most:g}"))
        return rules

    def shape(self, shape: Sequence[int]) -> tuple[int, int, int]:
        """The shape, (channels, height, width), that a record of this shape becomes.

        Raises CaffeError if the settings name a channel that the record lacks.
        """
        channels, height, width = shape
        most = max([*self.color, *self.label], default=0)
        if most >= channels:
            raise CaffeError(
                f"augmentation_param: channel {most} is named, the record has {channels}"
            )
        return channels, self.param.crop_h or height, self.param.crop_w or width

    def apply(self, pixels: np.ndarray, out: np.ndarray, rng: np.random.Generator) -> None:
        """Write the augmented record into `out`, float32 of shape(pixels.shape)."""
        matrix, shift = self._draw_jitter(rng)
        scale = rng.uniform(self.param.min_scale, self.param.max_scale) if self.zooms else 1.0
        rows, columns = (
            Placing.draw(old, scale, new, rng)
            for old, new in zip(pixels.shape[1:], out.shape[1:], strict=True)
        )
        if (rows.count, columns.count) != out.shape[1:]:
            out[:] = self.param.pad_value
            out[self.label] = self.param.ignore_label
        place = (rows.where, columns.where)
        nearest = columns.nearest()
        for i in set(range(len(pixels))) - set(self.color):
            out[i][place] = pixels[i][rows.nearest()][:, nearest]
        for i in self.color:
            out[i][place] = _zoomed(pixels[i], rows, columns)
        if self.jitters:
            colors = np.ascontiguousarray(out[(self.color, *place)])
            out[(self.color, *place)] = jittered(colors, matrix, shift)

    def _draw_jitter(self, rng: np.random.Generator) -> tuple[np.ndarray, float]:
        """Draw the matrix to multiply colours by, and the share of the mean grey to add."""
        p, n = self.param, len(self.color)
        bright, contrast, saturation = (
            1 + rng.uniform(-amount, amount) if amount else 1.0
            for amount in (p.brightness, p.contrast, p.saturation)
        )
        turn = rng.uniform(-p.hue, p.hue) * 2 * math.pi if p.hue else 0.0
        matrix = np.eye(n)
        if n == 3:
            turned = np.array(
                [[1, 0, 0],
                 [0, saturation * math.cos(turn), -saturation * math.sin(turn)],
                 [0, saturation * math.sin(turn), saturation * math.cos(turn)]]
            )  # fmt: skip
            matrix = _FROM_YIQ @ turned @ _TO_YIQ
        return matrix * (bright * contrast), bright * (1 - contrast)


def jittered(colors: np.ndarray, matrix: np.ndarray, mean_share: float) -> np.ndarray:
    """Colours, channels x height x width, times a matrix, plus a share of their mean grey.

    The result is clipped to 0..255.
    """
    flat = colors.reshape(len(colors), -1)
    grey = _TO_YIQ[0] if len(colors) == 3 else np.full(len(colors), 1 / len(colors))
    mean = float(grey @ flat.mean(1, dtype=np.float64)) if mean_share else 0.0
    changed = np.empty_like(flat)
    for row, out in zip(matrix.astype(np.float32), changed, strict=True):
        out[:] = np.float32(mean_share * mean)  # no matmul: BLAS would take threads from training
        for weight, channel in zip(row, flat, strict=True):
            out += weight * channel
    np.clip(changed, 0, 255, out=changed)
    return changed.reshape(colors.shape)


def _zoomed(plane: np.ndarray, rows: Placing, columns: Placing) -> np.ndarray:
    """The copied part of a channel, resized by bilinear interpolation."""
    if (rows.new, columns.new) != plane.shape:
        import cv2  # not above: it takes 16 MB, and most nets do not need it

        size = (columns.new, rows.new)
        plane = cv2.resize(np.ascontiguousarray(plane), size, interpolation=cv2.INTER_LINEAR)
    return plane[rows.seen, columns.seen]
