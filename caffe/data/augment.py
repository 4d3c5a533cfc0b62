"""Augmentation: random zoom, rotation, free crops, colour jitter and scaling of depth.

The settings are `augmentation_param` in a data layer's `transform_param`; they act in TRAIN only. A
record may hold colour, depth and label in its channels. Colour is interpolated and jittered; every
other channel takes the value of the nearest pixel. Zoom, rotation and crop are one resampling.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from boundary import limits
from boundary.late import cv2
from caffe.errors import CaffeError
from caffe.proto import caffe_pb2 as pb

# B, G, R to YIQ: luminance and two chroma axes, which are zero for grey and whose angle is the hue.
_TO_YIQ = np.array([[0.114, 0.587, 0.299], [-0.321, -0.275, 0.596], [0.311, -0.523, 0.212]])
_FROM_YIQ = np.linalg.inv(_TO_YIQ)
MAX_SCALE = 64  # a picture that is resized to more has few of its own pixels in any crop
MAX_ANGLE = 180  # degrees
LONGEST = 32766  # pixels of a side that OpenCV can turn
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


class Window:
    """What an output shows of a picture that was resized: the pixels that two Placings copy."""

    beyond: np.ndarray | None = None  # of the pixels at `where`, those that do not show the picture

    def __init__(self, rows: Placing, columns: Placing) -> None:
        self._rows, self._columns = rows, columns
        self.where = (rows.where, columns.where)  # the pixels of the output that are written
        self._nearest = columns.nearest()

    def nearest(self, plane: np.ndarray) -> np.ndarray:
        """The values at `where`, of the pixels whose centres are nearest."""
        return plane[self._rows.nearest()][:, self._nearest]

    def linear(self, plane: np.ndarray) -> np.ndarray:
        """The values at `where`, interpolated bilinearly."""
        rows, columns = self._rows, self._columns
        if (rows.new, columns.new) != plane.shape:
            size = (columns.new, rows.new)
            plane = cv2.resize(np.ascontiguousarray(plane), size, interpolation=cv2.INTER_LINEAR)
        return plane[rows.seen, columns.seen]


class TurnedWindow:
    """What an output shows of a picture that was resized, turned around its centre and placed.

    angle: in degrees, counterclockwise. shape: (height, width) of the output.
    """

    where = (slice(None), slice(None))  # as in Window

    def __init__(self, rows: Placing, columns: Placing, angle: float, shape: Sequence[int]) -> None:
        self._size = (shape[1], shape[0])
        # From pixels of the output (x, y) to pixels of the old picture. The resized picture, whose
        # first pixel has its centre at 0.5, is turned back around its middle.
        turn = math.radians(angle)
        back = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
        middle = np.array([columns.new, rows.new]) / 2
        first = np.array([columns.first - columns.start, rows.first - rows.start]) + 0.5
        ratio = np.array([[columns.old / columns.new], [rows.old / rows.new]])
        offset = ratio[:, 0] * (back @ (first - middle) + middle) - 0.5
        self._matrix = np.column_stack([ratio * back, offset])
        shown = self._turned(np.ones((rows.old, columns.old), np.uint8), spread=False)
        self.beyond: np.ndarray | None = shown == 0  # as in Window

    def nearest(self, plane: np.ndarray) -> np.ndarray:
        """The values at `where`, of the pixels whose centres are nearest."""
        return self._turned(plane)

    def linear(self, plane: np.ndarray) -> np.ndarray:
        """The values at `where`, interpolated bilinearly."""
        return self._turned(plane, linear=True)

    def _turned(self, plane: np.ndarray, linear: bool = False, spread: bool = True) -> np.ndarray:
        """A plane on the output. spread: the edge's values go on beyond the picture; else 0."""
        flags = (cv2.INTER_LINEAR if linear else cv2.INTER_NEAREST) | cv2.WARP_INVERSE_MAP
        border = cv2.BORDER_REPLICATE if spread else cv2.BORDER_CONSTANT
        plane = np.ascontiguousarray(plane)
        return cv2.warpAffine(plane, self._matrix, self._size, flags=flags, borderMode=border)


class Augmentation:
    """Applies one augmentation_param. Raises CaffeError for settings that contradict each other."""

    def __init__(self, param: pb.AugmentationParameter, crop_size: int, has_mean_file: bool):
        self.param = param
        self.color, self.label = list(param.color_channel), list(param.label_channel)
        self.depth = list(param.depth_channel)
        self.zooms = (param.min_scale, param.max_scale) != (1, 1)
        self.turns = param.max_angle != 0
        self.moves = self.zooms or self.turns or param.crop_h > 0
        self.jitters = any(getattr(param, name) for name in JITTERS)
        self.scales_depth = (param.min_depth_scale, param.max_depth_scale) != (1, 1)
        self.acts = self.moves or self.jitters or self.scales_depth
        for good, message in self._rules(crop_size, has_mean_file):
            if not good:
                raise CaffeError(f"augmentation_param: {message}")

    def _rules(self, crop_size: int, has_mean_file: bool) -> list[tuple[bool, str]]:
        p = self.param
        channels = [*self.color, *self.label, *self.depth]
        rules = [
            *_range_rules("scale", p.min_scale, p.max_scale),
            *_range_rules("depth_scale", p.min_depth_scale, p.max_depth_scale),
            (
                0 <= p.max_angle <= MAX_ANGLE,
                f"max_angle is {p.max_angle:g}; expected 0 to {MAX_ANGLE} degrees",
            ),
            (
                not self.scales_depth or bool(self.depth),
                "min_depth_scale and max_depth_scale need depth_channel",
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
                "mean_file does not go with zoom, rotation and free crops; give mean_value",
            ),
            (
                not ((self.zooms or self.turns) and crop_size),
                "crop_size does not go with zoom and rotation; give crop_h and crop_w",
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

        Raises CaffeError if the settings name a channel that the record lacks, or turn a record
        that is too large for that.
        """
        channels, height, width = shape
        most = max([*self.color, *self.label, *self.depth], default=0)
        if most >= channels:
            raise CaffeError(
                f"augmentation_param: channel {most} is named, the record has {channels}"
            )
        new_height, new_width = self.param.crop_h or height, self.param.crop_w or width
        longest = max(height, width, new_height, new_width)
        if self.turns and longest > LONGEST:
            raise CaffeError(
                f"augmentation_param: max_angle is for sides of up to {LONGEST} pixels, there is "
                f"one of {longest}"
            )
        return channels, new_height, new_width

    def apply(self, pixels: np.ndarray, out: np.ndarray, rng: np.random.Generator) -> None:
        """Write the augmented record into `out`, float32 of shape(pixels.shape)."""
        p = self.param
        matrix, shift = self._draw_jitter(rng)
        scale = rng.uniform(p.min_scale, p.max_scale) if self.zooms else 1.0
        rows, columns = (
            Placing.draw(old, scale, new, rng)
            for old, new in zip(pixels.shape[1:], out.shape[1:], strict=True)
        )
        angle = rng.uniform(-p.max_angle, p.max_angle) if self.turns else 0.0
        factor = rng.uniform(p.min_depth_scale, p.max_depth_scale) if self.scales_depth else 1.0

        window: Window | TurnedWindow = Window(rows, columns)
        if self.turns:
            window = TurnedWindow(rows, columns, angle, out.shape[1:])
        if (rows.count, columns.count) != out.shape[1:]:
            self._pad(out)
        for i, plane in enumerate(pixels):
            values = window.linear(plane) if i in self.color else window.nearest(plane)
            out[i][window.where] = _scaled(values, factor) if i in self.depth else values
        if self.jitters:
            colors = np.ascontiguousarray(out[(self.color, *window.where)])
            out[(self.color, *window.where)] = jittered(colors, matrix, shift, window.beyond)
        if window.beyond is not None:
            self._pad(out, window.beyond)

    def _pad(self, out: np.ndarray, where: np.ndarray | bool = True) -> None:
        """Set the pixels at `where`, a mask, to the values beyond a record's edges."""
        for i, plane in enumerate(out):
            value = self.param.ignore_label if i in self.label else self.param.pad_value
            np.copyto(plane, np.float32(value), where=where)

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


def _range_rules(name: str, low: float, high: float) -> list[tuple[bool, str]]:
    return [
        (
            0 < low <= high < math.inf,
            f"min_{name} {low:g} and max_{name} {high:g}; expected 0 < min_{name} <= max_{name}",
        ),
        (high <= MAX_SCALE, f"max_{name} is {high:g}, expected at most {MAX_SCALE}"),
    ]


def _scaled(depth: np.ndarray, factor: float) -> np.ndarray:
    """Depth times a factor, as float32, within the range of its type; 0, a hole, stays 0."""
    if factor == 1:
        return depth
    kind = depth.dtype
    limits = np.iinfo(kind) if np.issubdtype(kind, np.integer) else np.finfo(kind)
    return np.clip(depth.astype(np.float64) * factor, limits.min, limits.max).astype(np.float32)


def jittered(
    colors: np.ndarray, matrix: np.ndarray, mean_share: float, beyond: np.ndarray | None = None
) -> np.ndarray:
    """Colours, channels x height x width, times a matrix, plus a share of their mean grey.

    The result is clipped to 0..255. beyond: height x width, the pixels that the mean leaves out.
    """
    flat = colors.reshape(len(colors), -1)
    grey = _TO_YIQ[0] if len(colors) == 3 else np.full(len(colors), 1 / len(colors))
    mean = float(grey @ _means(flat, beyond)) if mean_share else 0.0
    changed = np.empty_like(flat)
    for row, out in zip(matrix.astype(np.float32), changed, strict=True):
        out[:] = np.float32(mean_share * mean)  # no matmul: BLAS would take threads from training
        for weight, channel in zip(row, flat, strict=True):
            out += weight * channel
    np.clip(changed, 0, 255, out=changed)
    return changed.reshape(colors.shape)


def _means(flat: np.ndarray, beyond: np.ndarray | None) -> np.ndarray:
    """The mean of each channel, channels x pixels, over the pixels that show the picture."""
    if beyond is None or not beyond.any():
        return flat.mean(1, dtype=np.float64)
    shown = ~beyond.ravel()
    sums = [(channel * shown).sum(dtype=np.float64) for channel in flat]
    return np.array(sums) / max(1, np.count_nonzero(shown))
