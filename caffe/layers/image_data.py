"""Layers that read picture files: ImageData from a list, WindowData from windows for detection."""

from __future__ import annotations

import functools
import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from boundary import limits
from boundary.errors import reason, shown
from boundary.late import cv2
from boundary.pictures import decode, read_picture
from boundary.reading import read_bytes, read_text
from caffe.blob import check_shape
from caffe.data.order import RecordRandom, Turns, endless
from caffe.data.prefetch import Batch
from caffe.errors import CaffeError
from caffe.formats.files import read_mean
from caffe.formats.lists import read_labelled
from caffe.layers.base import Shape, register
from caffe.layers.data import (
    PrefetchingLayer,
    Sample,
    in_batches,
    transformed_shape,
)
from caffe.process.log import emit


def read_image(path: str, color: bool = True) -> np.ndarray:
    """A picture, height x width x channels, uint8; B, G, R or grey. Raises CaffeError if the file
    cannot be read, is no picture or a too large one.
    """
    flags = cv2.IMREAD_COLOR if color else cv2.IMREAD_GRAYSCALE
    return np.atleast_3d(read_picture(path, flags, CaffeError))


# -- ImageData --------------------------------------------------------------------------------


@register("ImageData")
class ImageData(PrefetchingLayer):
    """Pictures of a list, "path label" on each line: top 0 (N, C, H, W), top 1 the label (N).

    Several solvers take the pictures in turns (image_data_layer.cpp).
    """

    tops = (2, 2)
    reads = ("image_data_param", "transform_param", "data_param")
    differs = (
        "Several solvers share the list out by turns; in Caffe each reads all of it. "
        "A label that is no integer is an error; Caffe takes it as 0. Tabs, ';', ',' or several "
        "blanks may stand before it. Of data_param, `prefetch`."
    )

    def setup(self, shapes: Sequence[Shape]) -> None:
        p = self.layer_param.image_data_param
        self.origin, self.prefetch = p.source, self.layer_param.data_param.prefetch
        self.batch_size, self.rand_skip = p.batch_size, p.rand_skip
        self.check(
            (p.new_height > 0) == (p.new_width > 0), "give both new_height and new_width, or none"
        )
        self.check(p.batch_size > 0, "batch_size must be positive")
        emit("image_data_layer.cpp:38", f"Opening file {p.source}")
        with self.named():
            self.entries = read_labelled(p.source, labels=False)
        if p.shuffle:
            self.shuffled = len(self.entries)
            emit("image_data_layer.cpp:53", "Shuffling data")
        emit("image_data_layer.cpp:63", f"A total of {len(self.entries)} images.")
        self.check(
            p.rand_skip <= len(self.entries),
            f"rand_skip {p.rand_skip} exceeds the {len(self.entries)} lines of {p.source}",
        )
        self.transformer = self.make_transformer()
        self.read = functools.partial(
            _read_sample, p.root_folder, (p.new_width, p.new_height), p.is_color
        )
        with self.named():
            if p.new_height:  # else the pictures' own size counts
                channels = 3 if p.is_color else 1
                check_shape((p.batch_size, channels, p.new_height, p.new_width))
                limits.check_pixels(p.new_width, p.new_height, "new_height, new_width", CaffeError)
            first = self.read(self.entries[0], 0)
            self.shape = (p.batch_size, *transformed_shape(first, self.transformer))
        emit("image_data_layer.cpp:90", f"output data size: {','.join(map(str, self.shape))}")

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        return [self.shape, self.shape[:1]]

    def contents(self) -> dict[str, int]:
        return {"pictures": len(self.entries)}

    def batches(self) -> Iterator[Batch]:
        p = self.layer_param.image_data_param
        entries, read = self.entries, self.read
        places = endless(len(entries), self.turns(), self.shuffling())
        samples = (read(entries[i], number) for number, i in places)
        return in_batches(samples, self.transformer, self.random(), p.batch_size)


def _read_sample(
    root: str, size: tuple[int, int], color: bool, entry: tuple[str, int], number: int
) -> Sample:
    path, label = root + entry[0], entry[1]
    image = read_image(path, color)
    if any(size):
        image = np.atleast_3d(cv2.resize(image, size))
    return Sample(number, path, np.ascontiguousarray(image.transpose(2, 0, 1)), label)


# -- WindowData -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Window:
    """A window of one picture; corners in pixels, both included."""

    image: int
    label: int
    corners: tuple[int, int, int, int]  # x1, y1, x2, y2


@dataclass(frozen=True)
class WindowFile:
    """A window file: its pictures, and its windows on objects and on background."""

    images: list[str]
    channels: int
    objects: list[Window]
    background: list[Window]


@register("WindowData")
class WindowData(PrefetchingLayer):
    """Windows of pictures, drawn at random, warped to crop_size: values and label (R-CNN).

    Top 0 is (N, C, crop_size, crop_size), top 1 the label (N). In each batch a share fg_fraction
    shows objects, the rest background with label 0 (window_data_layer.cpp).
    """

    tops = (2, 2)
    reads = ("window_data_param", "transform_param", "data_param")
    differs = (
        "Of transform_param: crop_size, mirror, mean_file and mean_value; no `scale`, as in Caffe. "
        "Of data_param, `prefetch`. "
        "A missing picture is an error; in Caffe the rest of the batch stays 0."
    )

    def setup(self, shapes: Sequence[Shape]) -> None:
        p, t = self.layer_param.window_data_param, self.layer_param.transform_param
        self.origin, self.prefetch = p.source, self.layer_param.data_param.prefetch
        self.batch_size = p.batch_size
        self.check(p.batch_size > 0, "batch_size must be positive")
        self.check(t.crop_size > 0, "transform_param must give a crop_size, the windows' size")
        self.check(not t.HasField("augmentation_param"), "does not take augmentation_param")
        self.check(0 <= p.fg_fraction <= 1, f"fg_fraction is {p.fg_fraction:g}, expected 0 to 1")
        self.check(
            2 * p.context_pad < t.crop_size,
            f"context_pad {p.context_pad} leaves nothing of crop_size {t.crop_size}",
        )
        with self.named():
            self.windows = _read_windows(p.source, p.root_folder, p.fg_threshold, p.bg_threshold)
            mean = self._mean()
        for what, windows in (
            ("objects, above fg_threshold", self.windows.objects),
            ("background, below bg_threshold", self.windows.background),
        ):
            self.check(bool(windows), f"{p.source} has no window on {what}")
        self.cutter = _Cutter(t.crop_size, p.context_pad, p.crop_mode == "square", mean, p.scale)
        self.shape = (p.batch_size, self.windows.channels, t.crop_size, t.crop_size)
        self._log()
        emit("window_data_layer.cpp:180", f"output data size: {','.join(map(str, self.shape))}")

    def _log(self) -> None:
        p, windows = self.layer_param.window_data_param, self.windows
        emit("window_data_layer.cpp:157", f"Number of images: {len(windows.images)}")
        counts = Counter(w.label for w in (*windows.background, *windows.objects))
        for label in sorted(counts):
            emit("window_data_layer.cpp:161", f"class {label} has {counts[label]} samples")
        emit("window_data_layer.cpp:165", f"Amount of context padding: {p.context_pad}")
        emit("window_data_layer.cpp:168", f"Crop mode: {p.crop_mode}")

    def _mean(self) -> np.ndarray | None:
        """The mean, channels x crop_size x crop_size or channels x 1 x 1."""
        t, channels = self.layer_param.transform_param, self.windows.channels
        if t.HasField("mean_file"):
            self.check(not t.mean_value, "give either mean_file or mean_value, not both")
            mean = read_mean(t.mean_file)
            # As in Caffe, the one offset is for both axes.
            start, size = (mean.shape[2] - t.crop_size) // 2, t.crop_size
            cut = mean[:, start : start + size, start : start + size] if start >= 0 else mean[:0]
            if cut.shape != (channels, size, size):
                raise CaffeError(
                    f"mean_file {t.mean_file!r} has the shape {mean.shape}, expected {channels} "
                    f"channels of at least {size} x {size}"
                )
            return cut
        if not t.mean_value:
            return None
        self.check(
            len(t.mean_value) in (1, channels),
            f"mean_value is given {len(t.mean_value)} time(s), expected 1 or {channels}",
        )
        values = list(t.mean_value) * (channels // len(t.mean_value))
        return np.array(values, np.float32).reshape(channels, 1, 1)

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        return [self.shape, self.shape[:1]]

    def contents(self) -> dict[str, int]:
        return {"objects": len(self.windows.objects), "background": len(self.windows.background)}

    def batches(self) -> Iterator[Batch]:
        p, t = self.layer_param.window_data_param, self.layer_param.transform_param
        load = functools.cache(_load) if p.cache_images else _load
        objects = int(np.float32(p.batch_size) * np.float32(p.fg_fraction))
        draws = _draws(self.turns(), self.random())
        return _window_batches(
            self.windows, self.cutter, load, draws, self.shape, objects, t.mirror
        )


def _read_windows(source: str, root: str, fg: float, bg: float) -> WindowFile:
    """Parse a window file; for each picture: # index, path, channels, height, width, the number of
    windows, and of each: class overlap x1 y1 x2 y2.
    """
    words = iter(read_text(source, CaffeError, paths=True).split())
    images: list[str] = []
    channels, objects, background = 0, [], []
    try:
        for mark in words:
            if mark != "#":
                raise CaffeError(f"{source}: {mark!r} where a picture's '# index' was expected")
            index = int(next(words))
            images.append(root + next(words))
            channels, _, _, count = (int(next(words)) for _ in range(4))
            for _ in range(count):
                label, overlap = int(next(words)), float(next(words))
                x1, y1, x2, y2 = (int(next(words)) for _ in range(4))
                if overlap >= fg:
                    if not 0 < label < 2**31:
                        raise CaffeError(f"{source}: picture {index}: an object of class {label}")
                    objects.append(Window(index, label, (x1, y1, x2, y2)))
                elif overlap < bg:
                    background.append(Window(index, 0, (x1, y1, x2, y2)))
    except (StopIteration, RuntimeError, ValueError) as error:
        if isinstance(error, CaffeError):
            raise
        where = f"picture {images[-1]}" if images else "its start"
        raise CaffeError(f"{source}: broken off or no number at {where}") from None
    if not images:
        raise CaffeError(f"{source}: lists no pictures")
    if not 1 <= channels <= 4:
        raise CaffeError(f"{source}: pictures of {channels} channels; expected 1 to 4")
    for window in (*objects, *background):
        if not 0 <= window.image < len(images):
            raise CaffeError(
                f"{source}: picture index {window.image}; expected 0 to {len(images) - 1}, in order"
            )
    return WindowFile(images, channels, objects, background)


@dataclass(frozen=True)
class _Cutter:
    """Cuts a window out of a picture and warps it to crop x crop (window_data_layer.cpp)."""

    crop: int
    context: int
    square: bool
    mean: np.ndarray | None
    scale: float

    def cut(self, image: np.ndarray, corners: Sequence[int], mirror: bool, out: np.ndarray) -> None:
        """Write into `out`, channels x crop x crop and zero; context beyond the picture stays 0.

        Raises ValueError if the window does not lie in the picture, or the channels differ.
        """
        if image.shape[2] != out.shape[0]:
            raise ValueError(f"it has {image.shape[2]} channels; the window file says otherwise")
        x, width, left, right = self._span(corners[0], corners[2], corners, image.shape[1])
        y, height, top, _ = self._span(corners[1], corners[3], corners, image.shape[0])
        if mirror:
            left = right
        height, width = min(height, self.crop - top), min(width, self.crop - left)
        warped = cv2.resize(image[y, x], (width, height), interpolation=cv2.INTER_LINEAR)
        pixels = np.atleast_3d(warped).transpose(2, 0, 1).astype(np.float32)
        if mirror:
            pixels = pixels[:, :, ::-1]
        place = (slice(None), slice(top, top + height), slice(left, left + width))
        if self.mean is not None:
            pixels = pixels - (self.mean[place] if self.mean.shape[2] > 1 else self.mean)
        out[place] = pixels * np.float32(self.scale)

    def _span(
        self, first: int, last: int, corners: Sequence[int], size: int
    ) -> tuple[slice, int, int, int]:
        """Along one axis: the picture's part, the size to warp it to, the padding on each side."""
        if not (self.context or self.square):
            _check_inside(first, last, size, corners)
            return slice(first, last + 1), self.crop, 0, 0
        f = np.float32  # in Caffe's arithmetic, so that halves round as they do there
        half = f(last - first + 1) / 2
        centre = first + half
        if self.square:
            half = f(max(corners[2] - corners[0] + 1, corners[3] - corners[1] + 1)) / 2
        half = half * (f(self.crop) / f(self.crop - 2 * self.context))
        first, last = _round(centre - half), _round(centre + half)
        scale = f(self.crop) / f(last - first + 1)
        before, behind = max(0, -first), max(0, last - size + 1)
        first, last = first + before, last - behind
        _check_inside(first, last, size, corners)
        warped = _round((last - first + 1) * scale)
        return slice(first, last + 1), warped, _round(before * scale), _round(behind * scale)


def _check_inside(first: int, last: int, size: int, corners: Sequence[int]) -> None:
    if not 0 <= first <= last < size:
        raise ValueError(f"window {tuple(corners)} does not lie in the picture")


def _load(path: str) -> bytes:
    """A file's bytes."""
    return read_bytes(path, CaffeError, plain=True)


def _round(value: float) -> int:
    """To the nearest integer, halves away from zero, as C's round."""
    return int(np.copysign(np.floor(abs(value) + 0.5), value))


def _draws(turns: Turns, random: RecordRandom) -> Iterator[np.random.Generator]:
    """The random numbers of one window after the other."""
    return (random.at(number) for number in itertools.count(turns.first, turns.step))


def _window_batches(
    windows: WindowFile,
    cutter: _Cutter,
    load: Callable[[str], bytes],
    draws: Iterator[np.random.Generator],
    shape: Shape,
    objects: int,
    mirror: bool,
) -> Iterator[Batch]:
    """Endless batches: first background, then `objects` windows on objects."""
    while True:
        data, labels = torch.zeros(shape), torch.empty(shape[0])
        for i in range(shape[0]):
            kind = windows.objects if i >= shape[0] - objects else windows.background
            rng = next(draws)
            window = kind[int(rng.integers(len(kind)))]
            flip = mirror and bool(rng.integers(2))
            path = windows.images[window.image]
            try:
                image = decode(load(path), cv2.IMREAD_COLOR, shown(path), CaffeError)
                cutter.cut(image, window.corners, flip, data[i].numpy())
            except (cv2.error, ValueError) as error:
                raise CaffeError(f"{shown(path)}: {reason(error)}") from None
            labels[i] = window.label
        yield Batch((data, labels))
