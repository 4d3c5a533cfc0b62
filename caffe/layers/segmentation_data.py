"""Layers that read pictures with a label for each pixel: lists of pairs of files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from boundary import limits
from boundary.late import cv2
from caffe.blob import check_shape
from caffe.data.order import RecordRandom, endless
from caffe.data.prefetch import Batch
from caffe.errors import CaffeError
from caffe.formats.files import read_mean
from caffe.formats.lists import read_words
from caffe.layers.base import Shape, register
from caffe.layers.data import PrefetchingLayer
from caffe.layers.image_data import read_image
from caffe.process.log import emit
from caffe.proto import caffe_pb2 as pb

Size = tuple[int, int]  # height, width; (0, 0): as it is
Box = tuple[int, int, int, int]  # x1, y1, x2, y2, all included


class Scene(NamedTuple):
    """One line of a list: a picture, its labels (a picture or a number), a window, classes."""

    where: str
    image: str
    labels: str = ""
    box: Box | None = None
    classes: tuple[int, ...] = ()


class Pixels(NamedTuple):
    """A scene that was read: image (H, W, C) and labels (H', W'), uint8; the file's own size."""

    image: np.ndarray
    labels: np.ndarray
    size: Size


@dataclass(frozen=True)
class Reading:
    """How scenes are read. kind: what a line says of the labels (ImageDataParameter.LabelType)."""

    root: str
    size: Size
    label_size: Size
    color: bool
    kind: int
    ignore: int

    def read(self, scene: Scene) -> Pixels:
        """The scene's pixels. Raises CaffeError if a file cannot be read."""
        image = read_image(self.root + scene.image, self.color)
        labels = self._labels(scene, image.shape[:2])
        size = image.shape[:2]
        if scene.box is not None:
            image, labels = self._window(scene, image, labels)
        else:
            size = self.size if any(self.size) else size
        return Pixels(_resized(image, self.size), _resized(labels, self.label_size, True), size)

    def _labels(self, scene: Scene, size: Size) -> np.ndarray:
        kinds = pb.ImageDataParameter
        if self.kind == kinds.PIXEL:
            labels = read_image(self.root + scene.labels, False)
            return labels[..., 0]
        value = self.ignore if self.kind == kinds.NONE else _integer(scene, scene.labels)
        return np.full(size, value & 255, np.uint8)

    def _window(
        self, scene: Scene, image: np.ndarray, labels: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """The scene's window; what reaches beyond the picture is 0 and the ignored label."""
        if labels.shape != image.shape[:2]:
            raise CaffeError(f"{scene.where}: {_differ(image.shape[:2], labels.shape)}")
        assert scene.box is not None
        x1, y1, x2, y2 = scene.box
        if x2 < x1 or y2 < y1:
            raise CaffeError(f"{scene.where}: window {scene.box} is empty")
        limits.check_pixels(x2 - x1 + 1, y2 - y1 + 1, f"{scene.where}: window", CaffeError)
        out = np.zeros((y2 - y1 + 1, x2 - x1 + 1, image.shape[2]), np.uint8)
        marks = np.full(out.shape[:2], self.ignore & 255, np.uint8)
        top, left = max(y1, 0), max(x1, 0)
        rows, columns = slice(top, max(y2 + 1, top)), slice(left, max(x2 + 1, left))
        inside, known = image[rows, columns], labels[rows, columns]
        place = (
            slice(top - y1, top - y1 + inside.shape[0]),
            slice(left - x1, left - x1 + inside.shape[1]),
        )
        out[place], marks[place] = inside, known
        return out, marks


def _resized(pixels: np.ndarray, size: Size, nearest: bool = False) -> np.ndarray:
    if not any(size) or pixels.shape[:2] == size:
        return pixels
    how = cv2.INTER_NEAREST if nearest else cv2.INTER_LINEAR
    changed = cv2.resize(pixels, size[::-1], interpolation=how)
    return changed if pixels.ndim == 2 else np.atleast_3d(changed)


def _differ(image: Sequence[int], labels: Sequence[int]) -> str:
    return "its picture is {} x {}, its labels are {} x {}".format(*image, *labels)


def _integer(scene: Scene, word: str) -> int:
    try:
        value = int(word)
    except ValueError:
        raise CaffeError(f"{scene.where}: {word!r} where a whole number was expected") from None
    if not -(2**31) <= value < 2**31:
        raise CaffeError(f"{scene.where}: {word} is beyond 32 bits")
    return value


@dataclass(frozen=True)
class Cutting:
    """Scales, crops and mirrors a scene, subtracts the mean from its picture and scales that.

    crop: the size of the result. train: crops are drawn at random, else from the middle. pad:
    smaller pictures get zeros and the ignored label behind.
    """

    crop: Size
    mirror: bool
    train: bool
    scales: tuple[float, ...]
    mean: np.ndarray | None
    gain: float
    ignore: int
    pad: bool = False

    @property
    def random(self) -> bool:
        return self.mirror or bool(self.scales) or (self.train and any(self.crop))

    def cut(
        self, where: str, pixels: Pixels, rng: np.random.Generator | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The picture (C, H, W) and its labels (1, H', W'), float32."""
        image, labels, _ = pixels
        if self.scales:
            image, labels = self._scaled(where, image, labels, rng)
        values = image.transpose(2, 0, 1).astype(np.float32)
        if self.mean is not None:
            values = values - self._mean_for(where, values.shape)
        if self.gain != 1:
            values = values * np.float32(self.gain)
        if any(self.crop):
            values, labels = self._cropped(where, values, labels, rng)
        if self.mirror and rng.integers(2):
            values, labels = values[:, :, ::-1], labels[:, ::-1]
        return values, labels[None].astype(np.float32)

    def _scaled(
        self, where: str, image: np.ndarray, labels: np.ndarray, rng: np.random.Generator | None
    ) -> tuple[np.ndarray, np.ndarray]:
        factor = np.float32(self.scales[int(rng.integers(len(self.scales)))])
        size = tuple(int(np.float32(n) * factor) for n in image.shape[:2])
        if min(size) < 1:
            raise CaffeError(f"{where}: scale factor {factor:g} leaves nothing of the picture")
        limits.check_pixels(size[1], size[0], f"{where}: scaled by {factor:g}", CaffeError)
        return _resized(image, size), _resized(labels, size, True)

    def _mean_for(self, where: str, shape: Shape) -> np.ndarray:
        assert self.mean is not None
        if self.mean.shape[0] not in (1, shape[0]) or self.mean.shape[1:] not in (
            (1, 1),
            shape[1:],
        ):
            raise CaffeError(f"{where}: the mean's shape {self.mean.shape} does not fit {shape}")
        return self.mean

    def _cropped(
        self, where: str, values: np.ndarray, labels: np.ndarray, rng: np.random.Generator | None
    ) -> tuple[np.ndarray, np.ndarray]:
        if labels.shape != values.shape[1:]:
            raise CaffeError(
                f"{where}: {_differ(values.shape[1:], labels.shape)}; both are cropped"
            )
        more = [max(want - have, 0) for want, have in zip(self.crop, labels.shape, strict=True)]
        if any(more):
            if not self.pad:
                raise CaffeError(
                    f"{where}: {labels.shape[0]} x {labels.shape[1]} is smaller than the crop of "
                    f"{self.crop[0]} x {self.crop[1]}"
                )
            edges = [(0, n) for n in more]
            values = np.pad(values, [(0, 0), *edges])
            labels = np.pad(labels, edges, constant_values=self.ignore & 255)
        starts = []
        for want, have in zip(self.crop, labels.shape, strict=True):
            room = have - want
            starts.append(int(rng.integers(room + 1)) if self.train else room // 2)
        rows, columns = (
            slice(start, start + n) for start, n in zip(starts, self.crop, strict=True)
        )
        return values[:, rows, columns], labels[rows, columns]


class _Pairs(PrefetchingLayer):
    """Pictures and labels of each pixel, from a list; subclasses say how a line is read."""

    tops = (2, 3)
    expected = "picture labels"
    windows = False
    differs = (
        "Several solvers share the list out by turns. A file that cannot be read is an error; "
        "forks go on without. Labels are resized to the nearest value."
    )

    def settings(self) -> Any:
        """The message with source, batch_size, shuffle and the like."""
        raise AssertionError("set by the subclass")

    def kind(self) -> int:
        """What a line says of the labels."""
        return pb.ImageDataParameter.PIXEL

    def setup(self, shapes: Sequence[Shape]) -> None:
        p = self.settings()
        self.origin, self.batch_size, self.rand_skip = p.source, p.batch_size, p.rand_skip
        self.check(p.batch_size > 0, "batch_size must be positive")
        self.check(
            (p.new_height > 0) == (p.new_width > 0), "give both new_height and new_width, or none"
        )
        with self.named():
            self.scenes = [self.scene(*line) for line in read_words(p.source, self.expected)]
            self.reading = self.make_reading()
            self.cutting = self.make_cutting()
            self._check_sizes()
            first = self.reading.read(self.scenes[0])
            rng = np.random.default_rng(0)
            scene = self.scenes[0]
            image, labels = self.finisher()(scene, *self.cutting.cut(scene.where, first, rng))
        self.check(
            p.rand_skip <= len(self.scenes),
            f"rand_skip {p.rand_skip} exceeds the {len(self.scenes)} lines of {p.source}",
        )
        if p.shuffle:
            self.shuffled = len(self.scenes)
        sizes = [image.shape, labels.shape]
        if self.cutting.scales and not any(self.cutting.crop):
            self.check(False, "scale_factors need a crop: pictures of a batch are of one size")
        self.shapes = [(p.batch_size, *size) for size in sizes]
        emit("image_seg_data_layer.cpp:120", f"output data size: {_joined(self.shapes[0])}")

    def _check_sizes(self) -> None:
        for height, width, what in (
            (*self.reading.size, "new_height, new_width"),
            (*self.cutting.crop, "crop size"),
        ):
            if height or width:
                check_shape((self.batch_size, 3, height, width))
                limits.check_pixels(width, height, what, CaffeError)

    def scene(self, where: str, words: list[str]) -> Scene:
        """The scene of one line. Raises CaffeError if it holds too few words, or no number where
        one is expected.
        """
        count = 1 if self.kind() == pb.ImageDataParameter.NONE else 2
        if len(words) < count + (4 if self.windows else 0):
            raise CaffeError(f"{where}: expected {self.expected}")
        scene = Scene(where, words[0], words[1] if count == 2 else "")
        if not self.windows:
            return scene
        box = tuple(_integer(scene, word) for word in words[count : count + 4])
        classes = tuple(_integer(scene, word) for word in words[count + 4 :])
        return scene._replace(box=box, classes=classes)

    def make_reading(self) -> Reading:
        p = self.settings()
        size = (p.new_height, p.new_width)
        return Reading(p.root_folder, size, size, p.is_color, self.kind(), p.ignore_label)

    def make_cutting(self) -> Cutting:
        t = self.layer_param.transform_param
        self.check(not t.HasField("augmentation_param"), "does not take augmentation_param")
        crop = (t.crop_size, t.crop_size)
        if t.HasField("crop_height") or t.HasField("crop_width"):
            self.check(not t.crop_size, "give either crop_size, or crop_height and crop_width")
            crop = (t.crop_height, t.crop_width)
            self.check(min(crop) > 0, "give both crop_height and crop_width")
        ignore = self.reading.ignore
        train, scales = self.phase == pb.TRAIN, tuple(t.scale_factors)
        for factor in scales:
            self.check(0 < factor <= 64, f"scale factor is {factor:g}, expected above 0, up to 64")
        return Cutting(crop, t.mirror, train, scales, self._mean(), t.scale, ignore, self.pads())

    def pads(self) -> bool:
        """Whether pictures smaller than the crop are filled up."""
        return False

    def _mean(self) -> np.ndarray | None:
        t = self.layer_param.transform_param
        if t.HasField("mean_file"):
            self.check(not self.pads(), "takes mean_value, no mean_file")
            self.check(not t.mean_value, "give either mean_file or mean_value, not both")
            return read_mean(t.mean_file)
        if not t.mean_value:
            return None
        channels = 3 if self.settings().is_color else 1
        self.check(
            len(t.mean_value) in (1, channels),
            f"mean_value is given {len(t.mean_value)} time(s), expected 1 or {channels}",
        )
        return np.array(t.mean_value, np.float32).reshape(-1, 1, 1)

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        third = (self.batch_size, *self.third_shape())
        return [*self.shapes, third][: self.num_tops]

    def third_shape(self) -> Shape:
        """The shape of the third top for one scene: height and width of the picture."""
        return (1, 1, 2)

    @staticmethod
    def third(scene: Scene, pixels: Pixels, values: np.ndarray) -> np.ndarray:
        """The third top of a scene: the picture's size, but at most the top's."""
        sizes = zip(pixels.size, values.shape[1:], strict=True)
        return np.array([min(own, top) for own, top in sizes], np.float32)

    def contents(self) -> dict[str, int]:
        return {"pictures": len(self.scenes)}

    def batches(self) -> Iterator[Batch]:
        places = endless(len(self.scenes), self.turns(), self.shuffling())
        scenes, finish, third = self.scenes, self.finisher(), type(self).third
        stream = ((number, scenes[i]) for number, i in places)
        shape = self.third_shape() if self.num_tops == 3 else None
        return _batches(
            stream, self.reading, self.cutting, finish, third, self.random(), self.batch_size, shape
        )

    def finisher(self) -> Any:
        """A function (scene, values, labels) -> (values, labels) that does not hold the layer."""
        return lambda scene, values, labels: (values, labels)


def _joined(shape: Shape) -> str:
    return ",".join(map(str, shape))


def _batches(
    stream: Iterator[tuple[int, Scene]],
    reading: Reading,
    cutting: Cutting,
    finish: Any,
    third: Any,
    random: RecordRandom,
    size: int,
    third_shape: Shape | None,
) -> Iterator[Batch]:
    """Endless batches; the first scene of a batch sets its shape."""
    while True:
        tops: list[list[torch.Tensor]] = []
        for _ in range(size):
            number, scene = next(stream)
            pixels = reading.read(scene)
            rng = random.at(number) if cutting.random else None
            values, labels = finish(scene, *cutting.cut(scene.where, pixels, rng))
            one = [torch.from_numpy(np.ascontiguousarray(v)) for v in (values, labels)]
            if third_shape is not None:
                more = third(scene, pixels, values).reshape(third_shape)
                one.append(torch.from_numpy(more))
            if tops and one[0].shape != tops[0][0].shape:
                raise CaffeError(
                    f"{scene.where}: its picture becomes {_joined(one[0].shape)}, others in its "
                    f"batch {_joined(tops[0][0].shape)} (channels, height, width)"
                )
            if tops and one[1].shape != tops[0][1].shape:
                raise CaffeError(
                    f"{scene.where}: its labels become {_joined(one[1].shape)}, others in its "
                    f"batch {_joined(tops[0][1].shape)}"
                )
            tops.append(one)
        yield Batch([torch.stack(values) for values in zip(*tops, strict=True)])


@register("ImageSegData")
class ImageSegData(_Pairs):
    """Pictures and labels of their pixels, from a list of "picture labels" (DeepLab).

    Tops: pictures (N, C, H, W), labels (N, 1, H, W), and perhaps the pictures' heights and widths,
    (N, 1, 1, 2). `label_type` PIXEL: the labels are a picture; IMAGE: a number for all pixels;
    NONE: there are none, all pixels get `ignore_label`. transform_param: `scale_factors`, of which
    each picture draws one, `crop_size` or `crop_height` and `crop_width`, `mirror`, `mean_value`
    and `scale`. Smaller pictures are filled up with the mean and the ignored label
    (image_seg_data_layer.cpp, data_transformer.cpp of DeepLab, PSPNet and DeconvNet).
    """

    fork = "DeepLab, PSPNet, DeconvNet"
    judge = "worked cases"
    reads = ("image_data_param", "transform_param")
    takes = (
        *("image_data_param.label_type", "image_data_param.ignore_label"),
        *("transform_param.scale_factors", "transform_param.crop_height"),
        "transform_param.crop_width",
    )

    def settings(self) -> Any:
        return self.layer_param.image_data_param

    def kind(self) -> int:
        kind, kinds = self.layer_param.image_data_param.label_type, pb.ImageDataParameter
        self.check(
            kind in (kinds.PIXEL, kinds.IMAGE, kinds.NONE),
            f"label_type is {kinds.LabelType.Name(kind)}, expected PIXEL, IMAGE or NONE",
        )
        return kind

    def pads(self) -> bool:
        return True


@register("WindowSegData")
class WindowSegData(ImageSegData):
    """Windows of pictures and the labels of their pixels, from a list (DeconvNet).

    As ImageSegData, but each line is "picture labels x1 y1 x2 y2": the window, its corners
    included, is cut out, with zeros and the ignored label beyond the picture, and resized to
    new_height x new_width before the rest. The third top is the size of the whole picture
    (window_seg_data_layer.cpp; DeconvNet's nets say WINDOW_SEG_DATA).
    """

    fork = "DeconvNet"
    expected = "picture labels x1 y1 x2 y2"
    windows = True


@register("SelectSegBinary")
class SelectSegBinary(WindowSegData):
    """Windows in which only the wanted classes are left, and which these are (DecoupledNet).

    As WindowSegData, but behind the window each line has `window_cls_data_param.label_dim` numbers,
    one a class: these are the third top, (N, label_dim, 1, 1), and a pixel of class k > 0 gets the
    number of class k - cls_label_base, or 0 if there is none; 0 and the ignored label stay
    (select_seg_binary_layer.cpp; the nets say SELECT_SEG_BINARY).
    """

    expected = "picture labels x1 y1 x2 y2 class ..."
    reads = (
        *("image_data_param", "transform_param"),
        *("window_cls_data_param", "select_seg_binary_param"),
    )
    tops = (3, 3)

    def scene(self, where: str, words: list[str]) -> Scene:
        scene, count = super().scene(where, words), self.third_shape()[0]
        if len(scene.classes) < count:
            raise CaffeError(f"{where}: {len(scene.classes)} classes, expected {count}, label_dim")
        return scene._replace(classes=scene.classes[:count])

    def third_shape(self) -> Shape:
        return (self.layer_param.window_cls_data_param.label_dim, 1, 1)

    @staticmethod
    def third(scene: Scene, pixels: Pixels, values: np.ndarray) -> np.ndarray:
        return np.array(scene.classes, np.float32)

    def finisher(self) -> Any:
        base, ignore = self.layer_param.select_seg_binary_param.cls_label_base, self.cutting.ignore

        def finish(
            scene: Scene, values: np.ndarray, labels: np.ndarray
        ) -> tuple[np.ndarray, np.ndarray]:
            table = np.zeros(256, np.float32)
            wanted = np.array(scene.classes, np.float32)[: max(255 - base, 0)]
            table[base + 1 : base + 1 + len(wanted)] = wanted
            table[0] = 0
            if 0 <= ignore < 256:
                table[ignore] = ignore
            return values, table[labels.astype(np.int64)]

        return finish


@register("DenseImageData")
class DenseImageData(_Pairs):
    """Pictures and labels of their pixels, from a list of "picture labels" (SegNet, ENet).

    Tops: pictures (N, C, H, W), labels (N, 1, H', W'). `new_height` and `new_width` resize both;
    `label_divide_factor` makes the labels that many times smaller. `crop_height` and `crop_width`
    cut a piece, drawn at random in both phases, and `mirror` draws, too. Of transform_param:
    `crop_size`, `mirror`, the mean and `scale` (dense_image_data_layer.cpp).
    """

    fork = "SegNet, ENet"
    judge = "worked cases"
    tops = (2, 2)
    reads = ("dense_image_data_param", "transform_param")
    differs = (
        f"{_Pairs.differs} Crops and mirrors of transform_param are the same for picture and "
        "labels; the fork draws each its own."
    )

    def settings(self) -> Any:
        return self.layer_param.dense_image_data_param

    def make_reading(self) -> Reading:
        p = self.settings()
        self.check(p.label_divide_factor > 0, "label_divide_factor must be positive")
        size = (p.new_height, p.new_width)
        small = tuple(n // p.label_divide_factor for n in size)
        self.check(
            not any(size) or min(small) > 0,
            f"label_divide_factor {p.label_divide_factor} leaves nothing of {size}",
        )
        kind = pb.ImageDataParameter.PIXEL
        return Reading(p.root_folder, size, small, p.is_color, kind, 255)

    def make_cutting(self) -> Cutting:
        p, t = self.settings(), self.layer_param.transform_param
        self.check(not t.HasField("augmentation_param"), "does not take augmentation_param")
        self.check(
            (p.crop_height > 0) == (p.crop_width > 0),
            "give both crop_height and crop_width, or none",
        )
        self.check(
            not (p.crop_height and t.crop_size), "give either crop_size, or crop_height and _width"
        )
        own = (p.crop_height, p.crop_width)
        crop = own if any(own) else (t.crop_size, t.crop_size)
        train = self.phase == pb.TRAIN or any(own)
        mirror = p.mirror or t.mirror
        return Cutting(crop, mirror, train, (), self._mean(), t.scale, 255)


@register("ImageLabelmapData")
class ImageLabelmapData(_Pairs):
    """Pictures and maps of edges, from a list of "picture map" (HED).

    Tops: pictures (N, C, H, W), maps (N, 1, H, W): 1 where the map's grey is above 127, else 0;
    with `normalize: false` the grey itself. Both are resized to new_height x new_width, then
    cropped and mirrored alike (image_labelmap_data_layer.cpp of s9xie/hed; Xie and Tu, 2015).
    """

    fork = "HED, OSVOS, RAS"
    judge = "worked cases"
    tops = (2, 2)
    reads = ("image_data_param", "transform_param")
    takes = ("image_data_param.normalize",)
    differs = (
        "Several solvers share the list out by turns. RCF keeps greys between 0 and 1, and "
        "DeepSkeleton makes classes of scales; here they are as HED's."
    )

    def settings(self) -> Any:
        return self.layer_param.image_data_param

    def make_reading(self) -> Reading:
        p = self.settings()
        size, kind = (p.new_height, p.new_width), pb.ImageDataParameter.PIXEL
        return LinearReading(p.root_folder, size, size, p.is_color, kind, 255)

    def finisher(self) -> Any:
        if not self.settings().normalize:
            return lambda scene, values, labels: (values, labels)
        # OpenCV's division by 255 rounds, so that values from 128 on become 1.
        return lambda scene, values, labels: (values, (labels > 127).astype(np.float32))


@dataclass(frozen=True)
class LinearReading(Reading):
    """Reading that mixes labels linearly where it resizes them, as HED's does."""

    def read(self, scene: Scene) -> Pixels:
        image = read_image(self.root + scene.image, self.color)
        labels = read_image(self.root + scene.labels, False)[..., 0]
        if labels.shape != image.shape[:2]:
            raise CaffeError(f"{scene.where}: {_differ(image.shape[:2], labels.shape)}")
        size = self.size if any(self.size) else image.shape[:2]
        return Pixels(_resized(image, self.size), _resized(labels, self.label_size), size)
