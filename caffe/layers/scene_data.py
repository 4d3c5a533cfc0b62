"""Pictures with boxes from window files, and maps of what each place of a net should find."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from boundary import limits
from boundary.late import cv2
from boundary.reading import read_text
from caffe.data.order import RecordRandom, endless
from caffe.data.prefetch import Batch
from caffe.errors import CaffeError
from caffe.layers.base import Shape, register
from caffe.layers.data import PrefetchingLayer
from caffe.layers.image_data import read_image
from caffe.proto import caffe_pb2 as pb

FLAT = 0.4  # the share of a field inside regions of no interest from which on it is ignored
LEAST = 0.2  # the overlap of a field with an object that no field fits, from which on it is taken
NOISE = 10  # pixels by which a crop is moved
MOST = 10**7  # pictures
EDGE = 32  # EvalData: sides are multiples of this


@dataclass
class Scene:
    """A picture's path and size (channels, height, width); boxes (K, 4) with labels and whether
    they are ignored and difficult; regions of no interest (M, 4).
    """

    path: str
    size: tuple[int, int, int]
    boxes: np.ndarray
    labels: np.ndarray
    ignored: np.ndarray
    difficult: np.ndarray
    nowhere: np.ndarray


def read_scenes(source: str, root: str, difficult: bool) -> list[Scene]:
    """Parse a window file; for each picture: # index, path, channels, height, width, the number of
    boxes, and of each: label, ignore, perhaps difficult, x1 y1 x2 y2; the number of regions of no
    interest, and of each: x1 y1 x2 y2.
    """
    words = iter(read_text(source, CaffeError, paths=True).split())
    scenes: list[Scene] = []
    width = 7 if difficult else 6
    try:
        for mark in words:
            if mark != "#":
                raise CaffeError(f"{source}: {mark!r} where a picture's '# index' was expected")
            next(words)
            path = root + next(words)
            channels, high, wide, count = (int(next(words)) for _ in range(4))
            boxes = [[int(next(words)) for _ in range(width)] for _ in range(count)]
            flat = [[int(next(words)) for _ in range(4)] for _ in range(int(next(words)))]
            table = np.array(boxes, np.float32).reshape(-1, width)
            if len(table) and not (table[:, 0] > 0).all():
                raise CaffeError(f"{source}: {path}: labels start at 1")
            last = table[:, 2] if difficult else np.zeros(len(table), np.float32)
            nowhere = np.array(flat, np.float32).reshape(-1, 4)
            size = (channels, high, wide)
            scenes.append(Scene(path, size, table[:, -4:], table[:, 0], table[:, 1], last, nowhere))
    except (StopIteration, RuntimeError, ValueError, OverflowError) as error:
        if isinstance(error, CaffeError):
            raise
        where = f"picture {scenes[-1].path}" if scenes else "its start"
        raise CaffeError(f"{source}: broken off or no number behind {where}") from None
    if not scenes:
        raise CaffeError(f"{source}: lists no pictures")
    if scenes[-1].size[0] != 3:
        raise CaffeError(f"{source}: pictures of {scenes[-1].size[0]} channels; expected 3")
    return scenes


def away(value: float) -> int:
    """To the nearest integer, halves away from zero, as C's round."""
    return int(math.copysign(math.floor(abs(value) + 0.5), value))


class _Scenes(PrefetchingLayer):
    """A layer that reads a window file; transform_param has the mean values."""

    judge = "worked cases"

    def read_list(
        self, param: pb.EvalDataParameter | pb.ImageGtDataParameter, difficult: bool
    ) -> None:
        """Set `scenes` and what all such layers have."""
        self.origin, self.batch_size = param.source, param.batch_size
        self.check(param.batch_size > 0, "batch_size must be positive")
        with self.named():
            self.scenes = read_scenes(param.source, param.root_folder, difficult)
        means = list(self.layer_param.transform_param.mean_value) or [0.0]
        self.check(
            len(means) in (1, 3), f"mean_value is given {len(means)} time(s), expected 1 or 3"
        )
        self.mean = np.array(means, np.float32).reshape(-1, 1, 1)

    def check_sides(self, high: int, wide: int) -> None:
        """Raise CaffeError unless a picture may be made so large."""
        self.check(min(high, wide) > 0, f"pictures become {high} x {wide}")
        with self.named():
            limits.check_pixels(wide, high, "the pictures' size", CaffeError)

    def contents(self) -> dict[str, int]:
        return {"pictures": len(self.scenes)}


def to_float(image: np.ndarray, mean: np.ndarray, scale: float) -> np.ndarray:
    """H x W x 3 as 3 x H x W float32, less the mean and scaled."""
    return (image.transpose(2, 0, 1).astype(np.float32) - mean) * np.float32(scale)


@register("EvalData")
class EvalData(_Scenes):
    """Pictures of a window file in their order, with their boxes, for testing a detector.

    Tops: pictures (N, 3, H, W), their sides brought to multiples of 32; boxes (K, 8, 1, 1): item,
    corners, label, ignored, difficult, or one row of -1; perhaps the sides (N, 2, 1, 1). Sizes are
    resize_height and resize_width, or by short_size the shorter side, both at most long_size; then
    a batch has one picture (Cascade R-CNN's eval_data_layer.cpp).
    """

    fork = "Cascade R-CNN"
    tops = (2, 3)
    reads = ("eval_data_param", "transform_param")

    def setup(self, shapes: Sequence[Shape]) -> None:
        p = self.layer_param.eval_data_param
        self.read_list(p, difficult=True)
        fixed = p.HasField("resize_width") and p.HasField("resize_height")
        self.check(
            fixed or p.batch_size == 1,
            f"batch_size is {p.batch_size}, but pictures keep sizes of their own; expected 1",
        )
        _, high, wide = self.scenes[-1].size
        if fixed:
            high, wide = p.resize_height, p.resize_width
        elif p.HasField("short_size") and p.HasField("long_size"):
            high, wide = p.long_size, p.short_size
        self.check_sides(high, wide)
        self.shape = (p.batch_size, 3, high, wide)

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        return [self.shape, (1, 8, 1, 1), (self.batch_size, 2, 1, 1)][: self.num_tops]

    def batches(self) -> Iterator[Batch]:
        places = (i for _, i in endless(len(self.scenes), self.turns(), self.shuffling()))
        p, scale = self.layer_param.eval_data_param, self.layer_param.transform_param.scale
        return _evaluated(self.scenes, places, p, self.mean, scale, self.num_tops)


def _evaluated(
    scenes: Sequence[Scene],
    places: Iterator[int],
    p: pb.EvalDataParameter,
    mean: np.ndarray,
    scale: float,
    tops: int,
) -> Iterator[Batch]:
    """Endless batches of EvalData."""
    while True:
        images, boxes = [], []
        for item in range(p.batch_size):
            scene = scenes[next(places)]
            image = read_image(scene.path)
            high, wide = image.shape[:2]
            size = _sides(p, high, wide)
            limits.check_pixels(size[1], size[0], scene.path, CaffeError)
            if size != (high, wide):
                image = cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR)
            ratio = np.array([size[1] / wide, size[0] / high] * 2, np.float32)
            images.append(torch.from_numpy(to_float(image, mean, scale)))
            columns = [np.full(len(scene.boxes), item), *(scene.boxes * ratio).T]
            columns += [scene.labels, scene.ignored, scene.difficult]
            boxes.append(np.stack(columns, 1).astype(np.float32))
        found = np.concatenate(boxes) if any(map(len, boxes)) else np.full((1, 8), -1, np.float32)
        sides = torch.tensor([x.shape[1:] for x in images]).float()
        batch = torch.stack(images), torch.from_numpy(found), sides
        yield Batch((batch[0], *(x[..., None, None] for x in batch[1:tops])))


def _sides(p: pb.EvalDataParameter, high: int, wide: int) -> tuple[int, int]:
    """The height and width of a picture in the batch."""
    if p.HasField("resize_width") and p.HasField("resize_height"):
        high, wide = p.resize_height, p.resize_width
    elif p.HasField("short_size") and p.HasField("long_size"):
        ratio = np.float32(p.short_size) / np.float32(min(high, wide))
        high, wide = (min(p.long_size, away(float(np.float32(n) * ratio))) for n in (high, wide))
    return max(EDGE, away(high / EDGE) * EDGE), max(EDGE, away(wide / EDGE) * EDGE)


@register("ImageGtData")
class ImageGtData(_Scenes):
    """Pictures of a window file, cut about an object, and what each place of a net should find.

    Tops: pictures (N, 3, H, W); for each field_w, field_h and downsample_rate a map
    (N, 6, H / rate, W / rate) of labels, the boxes' middles and sides, and overlaps of the field
    with a box; perhaps the boxes (K, 7, 1, 1): item, corners, label, ignored. A place gets the box
    that its field overlaps most, by more than fg_threshold; the label is 0 if the box is ignored.
    An object that no field fits gets the place at its middle (MS-CNN's image_gt_data_layer.cpp).
    """

    fork = "MS-CNN"
    tops = (2, None)
    reads = ("image_gt_data_param", "transform_param")

    def setup(self, shapes: Sequence[Shape]) -> None:
        p = self.layer_param.image_gt_data_param
        self.read_list(p, difficult=False)
        self.check(p.coord_num == 4, f"coord_num is {p.coord_num}, expected 4")
        counts = {len(p.field_w), len(p.field_h), len(p.downsample_rate)}
        self.check(
            len(counts) == 1 and counts != {0} and min(p.downsample_rate) > 0,
            "field_w, field_h and downsample_rate must be given equally often, rates above 0",
        )
        expected = 1 + len(p.field_w) + p.output_gt_boxes
        self.check(self.num_tops == expected, f"has {self.num_tops} tops, expected {expected}")
        self.check(
            p.fg_img_multiple * len(self.scenes) <= MOST,
            f"fg_img_multiple {p.fg_img_multiple} makes more than {MOST} pictures",
        )
        self.scenes = [
            scene
            for scene in self.scenes
            for _ in range(p.fg_img_multiple if (scene.ignored == 0).any() else 1)
        ]
        self.check(bool(self.scenes), "fg_img_multiple 0 leaves no picture")
        if p.shuffle:
            self.shuffled = len(self.scenes)
        _, high, wide = self.scenes[-1].size
        if p.HasField("resize_width") and p.HasField("resize_height"):
            high, wide = p.resize_height, p.resize_width
            self.check_sides(high, wide)
        if p.crop_width and p.crop_height:
            self.check(
                p.crop_width <= wide and p.crop_height <= high,
                f"the crop {p.crop_height} x {p.crop_width} exceeds pictures of {high} x {wide}",
            )
            high, wide = p.crop_height, p.crop_width
        self.check_sides(high, wide)
        self.shape = (p.batch_size, 3, high, wide)

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        p = self.layer_param.image_gt_data_param
        count, _, high, wide = self.shape
        maps = [(count, 6, away(high / r), away(wide / r)) for r in p.downsample_rate]
        for shape, rate in zip(maps, p.downsample_rate, strict=True):
            self.check(
                min(shape[2:]) > 0,
                f"downsample_rate {rate} leaves no place in a picture of {high} x {wide}",
            )
        boxes = [(1, 7, 1, 1)] if p.output_gt_boxes else []
        return [self.shape, *maps, *boxes]

    def batches(self) -> Iterator[Batch]:
        places = endless(len(self.scenes), self.turns(), self.shuffling())
        p = self.layer_param.image_gt_data_param
        cutter = _Cutter(p, self.layer_param.transform_param.mirror, self.shape[2:])
        samples = _cut(self.scenes, places, cutter, self.random())
        return _labelled(samples, p, self.mean, self.shape)


@dataclass
class _Sample:
    """A picture of the batch's size, the place of the picture within, and a scene in it."""

    image: np.ndarray
    place: tuple[int, int, int, int]  # top, left, height, width
    boxes: np.ndarray
    labels: np.ndarray
    ignored: np.ndarray
    nowhere: np.ndarray
    mask: np.ndarray  # which pixels are the picture's


class _Cutter:
    """Mirrors, resizes and cuts pictures (load_batch in image_gt_data_layer.cpp)."""

    def __init__(self, p: pb.ImageGtDataParameter, mirror: bool, size: Sequence[int]) -> None:
        self.p, self.mirror, (self.high, self.wide) = p, mirror, size

    def cut(self, scene: Scene, rng: np.random.Generator) -> _Sample:
        """One picture and its scene."""
        p, image = self.p, read_image(scene.path)
        boxes, nowhere = scene.boxes.copy(), scene.nowhere.copy()
        if self.mirror and rng.integers(2):
            image = image[:, ::-1]
            for x in (boxes, nowhere):
                x[:, [0, 2]] = image.shape[1] - x[:, [2, 0]]
        if p.HasField("resize_width") and p.HasField("resize_height"):
            ratio = p.resize_width / image.shape[1], p.resize_height / image.shape[0]
            image = cv2.resize(np.ascontiguousarray(image), (p.resize_width, p.resize_height))
            boxes, nowhere = (x * np.array(ratio * 2, np.float32) for x in (boxes, nowhere))
        chosen = boxes[rng.integers(len(boxes))] if len(boxes) else None
        middle = self._middle(image, chosen, rng)
        factors = self._factors(chosen, rng)
        image, middle, shift = self._zoomed(image, middle, factors)
        moves = np.array(factors * 2, np.float32)
        boxes, nowhere = ((x - shift) * moves for x in (boxes, nowhere))
        return self._placed(image, middle, (boxes, nowhere), scene, rng)

    def _middle(
        self, image: np.ndarray, chosen: np.ndarray | None, rng: np.random.Generator
    ) -> tuple[float, float]:
        """x and y of the middle of the crop."""
        if chosen is not None:
            return float(chosen[0] + chosen[2]) / 2, float(chosen[1] + chosen[3]) / 2
        found = []
        for size, target in ((image.shape[1], self.wide), (image.shape[0], self.high)):
            free = size >= target
            found.append(rng.integers(size - target + 1) + target / 2 if free else size / 2)
        return found[0], found[1]

    def _factors(self, chosen: np.ndarray | None, rng: np.random.Generator) -> tuple[float, float]:
        """By what width and height are multiplied: the object gets a size of half octaves."""
        p = self.p
        scales = p.do_multiple_scale and p.HasField("min_scale") and p.HasField("max_scale")
        if not scales or chosen is None or not rng.integers(2):
            return 1.0, 1.0
        least, most = max(1, p.min_scale), max(1, p.max_scale)
        steps = np.arange(max(1, away(2 * math.log2(most / least) + 1))) / 2
        wide, high = (max(1.0, float(chosen[i + 2] - chosen[i])) for i in (0, 1))
        areas = (least * 2.0**steps) ** 2
        fit = np.minimum(areas, wide * high) / np.maximum(areas, wide * high)
        factor = 2.0 ** (steps[rng.integers(len(steps))] - steps[fit.argmax()])
        across = down = factor
        aspects = p.HasField("min_whaspect") and p.HasField("max_whaspect")
        count = away((p.max_whaspect - p.min_whaspect) / 0.05) if aspects else 0
        if count > 0 and rng.integers(2):
            aspect = (rng.integers(count) * 0.05 + p.min_whaspect) / (wide / high)
            if rng.integers(2):
                if 0.8 * least <= wide * across * aspect <= 1.2 * most:
                    across *= aspect
            elif aspect > 0 and 0.8 * least <= high * down / aspect <= 1.2 * most:
                down /= aspect
        return across, down

    def _zoomed(
        self, image: np.ndarray, middle: tuple[float, float], factors: tuple[float, float]
    ) -> tuple[np.ndarray, tuple[float, float], np.ndarray]:
        """The picture times the factors, the middle there, and what was cut off before."""
        shift = np.zeros(4, np.float32)
        if factors == (1, 1):
            return image, middle, shift
        if max(factors) > 1.5:  # cut first: not all of the large picture is needed
            ends = []
            for size, factor, at in zip(image.shape[1::-1], factors, middle, strict=False):
                side = max(1, min(size, away(1.2 * size / factor)))
                start = min(max(0, away(at - side * 0.5)), size - side)
                ends.append((start, start + side))
            (left, right), (top, bottom) = ends
            image = image[top:bottom, left:right]
            shift = np.array([left, top] * 2, np.float32)
            middle = middle[0] - left, middle[1] - top
        wide, high = (
            max(1, away(n * f)) for n, f in zip(image.shape[1::-1], factors, strict=False)
        )
        limits.check_pixels(wide, high, "a zoomed picture", CaffeError)
        image = cv2.resize(np.ascontiguousarray(image), (wide, high))
        return image, (middle[0] * factors[0], middle[1] * factors[1]), shift

    def _placed(
        self,
        image: np.ndarray,
        middle: tuple[float, float],
        scene_boxes: tuple[np.ndarray, np.ndarray],
        scene: Scene,
        rng: np.random.Generator,
    ) -> _Sample:
        """The picture cut to, or put into, the batch's size."""
        spans = []
        for size, target, at in (
            (image.shape[1], self.wide, middle[0]),
            (image.shape[0], self.high, middle[1]),
        ):
            noise = int(rng.integers(2 * NOISE)) - NOISE
            into = start = 0
            if size < target:
                into = min(max(0, away((target - size) / 2) + noise), target - size)
            elif size > target:
                start = min(max(0, away(at) + noise - away(target / 2)), size - target)
            spans.append((into, start, min(size, target)))
        (left, x, wide), (top, y, high) = spans
        out = np.zeros((self.high, self.wide, 3), image.dtype)
        out[top : top + high, left : left + wide] = image[y : y + high, x : x + wide]
        mask = np.zeros((self.high, self.wide), bool)
        mask[top : top + high, left : left + wide] = True
        move = np.array([left - x, top - y] * 2, np.float32)
        boxes, nowhere = (b + move for b in scene_boxes)
        ignored = scene.ignored != 0
        cx, cy = (boxes[:, 0] + boxes[:, 2]) / 2, (boxes[:, 1] + boxes[:, 3]) / 2
        outside = (cx < 0) | (cx >= self.wide) | (cy < 0) | (cy >= self.high)
        sides = boxes[:, 2:] - boxes[:, :2] + 1
        small = (sides < [self.p.min_gt_width, self.p.min_gt_height]).any(1)
        place = (top, left, high, wide)
        return _Sample(out, place, boxes, scene.labels, ignored | outside | small, nowhere, mask)


def _cut(
    scenes: Sequence[Scene],
    places: Iterator[tuple[int, int]],
    cutter: _Cutter,
    random: RecordRandom,
) -> Iterator[_Sample]:
    """Endless samples."""
    for number, i in places:
        yield cutter.cut(scenes[i], random.at(number))


def _labelled(
    samples: Iterator[_Sample], p: pb.ImageGtDataParameter, mean: np.ndarray, shape: Shape
) -> Iterator[Batch]:
    """Endless batches of ImageGtData."""
    while True:
        found = list(itertools.islice(samples, shape[0]))
        images = np.stack([to_float(s.image, mean, p.scale) * s.mask for s in found])
        maps = [truth_maps(s, p) for s in found]
        tops = [images, *(np.stack(level) for level in zip(*maps, strict=True))]
        if p.output_gt_boxes:
            boxes = [
                np.column_stack(
                    [np.full(len(s.boxes), i), s.boxes, s.labels, s.ignored.astype(np.float32)]
                )
                for i, s in enumerate(found)
            ]
            table = np.concatenate(boxes) if any(map(len, boxes)) else [[0, 1, 1, 2, 2, 1, 1]]
            tops.append(np.array(table, np.float32)[..., None, None])
        yield Batch(tuple(torch.from_numpy(np.ascontiguousarray(x, np.float32)) for x in tops))


def shared(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The areas that boxes a (..., 1, 4) and b (K, 4) share: (..., K)."""
    start, end = np.maximum(a[..., :2], b[:, :2]), np.minimum(a[..., 2:], b[:, 2:])
    return np.maximum(end - start, 0).prod(-1)


def truth_maps(s: _Sample, p: pb.ImageGtDataParameter) -> list[np.ndarray]:
    """For each field a map (6, H, W): label, the box's middle and sides, overlap."""
    sizes = np.maximum(s.boxes[:, 2:] - s.boxes[:, :2], 0)
    area = sizes.prod(1)
    first, last = s.boxes[:, :2], s.boxes[:, 2:]
    whole = np.concatenate([(first + last) / 2, last - first], 1)
    maps, best = [], np.zeros((len(s.boxes), 2))  # the largest overlap with each box, and its map
    matched = np.zeros(len(s.boxes), bool)
    kinds = zip(p.field_w, p.field_h, p.downsample_rate, strict=True)
    for n, (wide, high, rate) in enumerate(kinds):
        lines, columns = (away(side / rate) for side in s.mask.shape)
        x, y = np.meshgrid((np.arange(columns) + 0.5) * rate, (np.arange(lines) + 0.5) * rate)
        fields = np.stack([x - wide / 2, y - high / 2, x + wide / 2, y + high / 2], -1)
        fields = fields.astype(np.float32)[:, :, None]
        out = np.zeros((6, lines, columns), np.float32)
        top, left, height, width = (away(v / rate) for v in s.place)
        free = np.zeros((lines, columns), bool)
        free[top : top + height, left : left + width] = True
        if len(s.nowhere):
            free &= shared(fields, s.nowhere).sum(-1) / max(1, wide * high) < FLAT
        out[5] = ~free
        if len(s.boxes):
            common = shared(fields, s.boxes)
            ratio = common / np.maximum(area + wide * high - common, 1e-12)
            ratio = np.where(free[..., None] & (area > 0), ratio, 0)
            most, which = ratio.max(-1), ratio.argmax(-1)
            out[5] = np.where(free, most, 1)
            hit = free & (most > p.fg_threshold)
            out[0][hit] = np.where(s.ignored, 0, s.labels)[which[hit]]
            out[1:5, hit] = whole[which[hit]].T
            matched[which[hit]] = True
            peaks = ratio.reshape(-1, len(s.boxes)).max(0)
            better = peaks > best[:, 0]
            best[better] = np.stack([peaks, np.full(len(peaks), n)], 1)[better]
        maps.append(out)
    for i in np.flatnonzero(~matched & ~s.ignored & (best[:, 0] >= LEAST)):
        n = int(best[i, 1])
        out, rate = maps[n], p.downsample_rate[n]
        column, line = (
            min(max(0, math.floor(v / rate)), extent - 1)
            for v, extent in zip(whole[i, :2], out.shape[:0:-1], strict=True)
        )
        if out[0, line, column] <= 0:
            out[:5, line, column] = s.labels[i], *whole[i]
    return maps
