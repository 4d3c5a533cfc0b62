"""Records of pictures with boxes: reading them, and what transform_param does to both (SSD)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from google.protobuf.message import DecodeError

from boundary.limits import check_pixels
from caffe.data import boxes
from caffe.data.transform import RecordTransformer
from caffe.errors import CaffeError
from caffe.proto import caffe_pb2 as pb


def parse_annotated(value: bytes, where: str) -> pb.AnnotatedDatum:
    """The AnnotatedDatum in a database's value. Raises CaffeError, starting with `where`, if it is
    none.
    """
    try:
        return pb.AnnotatedDatum.FromString(value)
    except DecodeError:
        raise CaffeError(f"{where}: the record is not an AnnotatedDatum") from None


def box_rows(datum: pb.AnnotatedDatum) -> np.ndarray:
    """The record's boxes as caffe.data.boxes has them, (n, 7)."""
    rows = [
        (group.group_label, a.instance_id, b.xmin, b.ymin, b.xmax, b.ymax, b.difficult)
        for group in datum.annotation_group
        for a in group.annotation
        for b in [a.bbox]
    ]
    return np.array(rows, np.float32).reshape(-1, 7)


SAME = 10  # batches


class AnnotatedTransformer(RecordTransformer):
    """What SSD's DataTransformer and AnnotatedData do to a picture and its boxes.

    Of several resize_params (MobileNet-YOLO) one is chosen every SAME batches, by their prob.

    In this order: distort_param, expand_param, a random crop by the samplers, resize_param,
    noise_param, crop (crop_size, or crop_h and crop_w), mirror, mean and scale. jitter:
    MobileNet-YOLO's, a random crop where there are no samplers. Boxes move with the
    picture; emit_constraint chooses those that a crop keeps. Raises CaffeError for settings that
    cannot be used.
    """

    def __init__(
        self,
        param: pb.TransformationParameter,
        phase: int,
        samplers: Sequence[pb.BatchSampler] = (),
        jitter: float = 0,
    ) -> None:
        from caffe.data import distort  # not above: it loads OpenCV

        super().__init__(param, phase)
        self.change = distort
        self.samplers, self.jitter = samplers, jitter
        if not 0 <= jitter < 1:
            raise CaffeError(f"yolo_data_jitter is {jitter:g}, expected 0 to less than 1")
        for sampler in samplers:
            boxes.check_sampler(sampler.sampler)
        p = param
        self.sizes = list(p.resize_param)
        if not all(size.height and size.width for size in self.sizes):
            raise CaffeError("resize_param must give height and width")
        if p.HasField("distort_param"):
            distort.check_distortion(p.distort_param)
        distort.check_noise(p.noise_param)
        if p.HasField("expand_param"):
            if not 1 < p.expand_param.max_expand_ratio < np.inf:
                raise CaffeError("expand_param: max_expand_ratio must be more than 1")
            if p.HasField("mean_file"):
                raise CaffeError("expand_param fills with mean_value, not with a mean_file")
        if bool(p.crop_h) != bool(p.crop_w):
            raise CaffeError("transform_param must give both crop_h and crop_w")
        self.emit = p.emit_constraint if p.HasField("emit_constraint") else None

    def choose(self, rng: np.random.Generator) -> pb.ResizeParameter | None:
        """One of the resize_params by their probabilities; None if there is none."""
        if len(self.sizes) < 2:
            return self.sizes[0] if self.sizes else None
        weights = np.array([max(size.prob, 0) for size in self.sizes])
        total = weights.sum()
        if not 0 < total < np.inf:
            raise CaffeError("resize_param: the probabilities are all 0")
        return self.sizes[rng.choice(len(weights), p=weights / total)]

    @property
    def _crop(self) -> tuple[int, int]:
        """(height, width) of the crop; zeros: none."""
        p = self.param
        return (p.crop_size, p.crop_size) if p.crop_size else (p.crop_h, p.crop_w)

    def shape(self, pixels: np.ndarray) -> tuple[int, int, int]:
        channels, height, width = pixels.shape
        if self.sizes:
            height, width = boxes.new_size(self.sizes[0], height, width)
        crop = self._crop
        if crop[0] > height or crop[1] > width:
            raise CaffeError(f"the crop {crop[0]} x {crop[1]} exceeds {height} x {width}")
        return (channels, *(crop if crop[0] else (height, width)))

    def transform(
        self,
        pixels: np.ndarray,
        rows: np.ndarray,
        rng: np.random.Generator,
        size: pb.ResizeParameter | None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Values (channels, height, width), float32, and boxes, of a record's. size: one of the
        resize_params.
        """
        p = self.param
        image = np.ascontiguousarray(pixels.transpose(1, 2, 0))
        if p.HasField("distort_param"):
            image = self.change.distorted(_bytes(image), p.distort_param, rng)
        if p.HasField("expand_param"):
            image, rows = self._expand(_bytes(image), rows, rng)
        if self.samplers or self.jitter:
            if self.samplers:
                window = boxes.sampled(self.samplers, rows[:, boxes.CORNERS], rng)
            else:
                padded = pb.ResizeParameter.FIT_LARGE_SIZE_AND_PAD
                square = size is not None and size.resize_mode == padded
                window = boxes.jittered(self.jitter, square, rng)
            if window is not None:
                image, rows = self._cut(image, rows, window)
        before = image.shape[:2]
        if size is not None:
            rows = boxes.resized(rows, size, *before)
            image = self.change.resize(_bytes(image), size, rng)
        if p.HasField("noise_param"):
            image = self.change.noised(_bytes(image), p.noise_param, rng)
        image, rows, window = self._window_of(image, rows, rng)
        if size is not None:
            rows = boxes.extrapolated(rows, size, *before, window)
        return self._values(image), rows

    def _expand(
        self, image: np.ndarray, rows: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """On a canvas of the mean's colour, by expand_param's probability (ExpandImage)."""
        p = self.param.expand_param
        if rng.uniform() > p.prob or abs(p.max_expand_ratio - 1) < 1e-2:
            return image, rows
        high, wide = image.shape[:2]
        ratio = rng.uniform(1, p.max_expand_ratio)
        height, width = int(high * ratio), int(wide * ratio)
        check_pixels(width, height, "expand_param", CaffeError)
        top, left = (int(rng.uniform(0, n)) for n in (height - high, width - wide))
        mean = self._mean_for(image.transpose(2, 0, 1))
        fill = np.zeros(image.shape[2]) if mean is None else mean.ravel()
        window = (-left / wide, -top / high, (width - left) / wide, (height - top) / high)
        rows = boxes.projected(rows, window, self.emit)
        return self.change.expanded(image, height, width, top, left, fill), rows

    def _cut(
        self, image: np.ndarray, rows: np.ndarray, window: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """The window of the picture, at least a pixel, and its boxes (CropImage)."""
        window = window.clip(0, 1)
        height, width = image.shape[:2]
        left, top = (int(v) for v in window[:2] * (width, height))
        wide, high = (max(int(v), 1) for v in (window[2:] - window[:2]) * (width, height))
        rows = boxes.projected(rows, window, self.emit)
        return image[top : top + high, left : left + wide], rows

    def _window_of(
        self, image: np.ndarray, rows: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, boxes.Window]:
        """The crop, perhaps mirrored, with its boxes; and which window of the picture it is."""
        mirror = self.param.mirror and bool(rng.integers(2))
        (height, width), (high, wide) = image.shape[:2], self._crop
        top = left = 0
        if high:
            spare = height - high, width - wide
            if min(spare) < 0:
                raise CaffeError(f"the crop {high} x {wide} exceeds {height} x {width}")
            top, left = (rng.integers(n + 1) if self.train else n // 2 for n in spare)
        else:
            high, wide = height, width
        window = (left / width, top / height, (left + wide) / width, (top + high) / height)
        rows = boxes.projected(rows, window, self.emit)
        image = image[top : top + high, left : left + wide]
        return (image[:, ::-1], boxes.mirrored(rows), window) if mirror else (image, rows, window)

    def _values(self, image: np.ndarray) -> np.ndarray:
        """Less the mean and scaled, (channels, height, width), float32."""
        values = image.transpose(2, 0, 1)
        mean = self._mean_for(values)
        values = values - mean if mean is not None else values
        return np.ascontiguousarray(values, np.float32) * np.float32(self.param.scale)


def _bytes(image: np.ndarray) -> np.ndarray:
    """The picture, if it holds bytes, as all steps but crop, mirror, mean and scale need."""
    if image.dtype != np.uint8:
        raise CaffeError(f"transform_param: a picture of {image.dtype} values, expected bytes")
    return np.ascontiguousarray(image)
