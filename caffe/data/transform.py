"""RecordTransformer: crops, mirrors, subtracts the mean from and scales records."""

from __future__ import annotations

import numpy as np
import torch

from caffe.data.augment import Augmentation
from caffe.data.datum import datum_values
from caffe.errors import CaffeError
from caffe.process.log import ERROR, emit
from caffe.proto import caffe_pb2 as pb


class RecordTransformer:
    """Augments, then crops, mirrors, subtracts the mean and scales: Caffe's DataTransformer.

    Caffe has no augmentation; see augment.py. All other steps treat all channels alike, also
    channels of labels. mirror also acts in TEST, as in Caffe.

    Raises CaffeError for settings that exclude each other.
    """

    def __init__(self, param: pb.TransformationParameter, phase: int) -> None:
        self.param, self.train = param, phase == pb.TRAIN
        self.random = param.mirror or (self.train and param.crop_size > 0)
        self.augmentation: Augmentation | None = None
        if param.HasField("augmentation_param"):
            mean_file = param.HasField("mean_file")
            augment = Augmentation(param.augmentation_param, param.crop_size, mean_file)
            if self.train and augment.acts:
                self.augmentation, self.random = augment, True
        self.mean: np.ndarray | None = None
        if param.HasField("mean_file"):
            from caffe.formats.files import read_mean

            if param.mean_value:
                raise CaffeError("transform_param: give either mean_file or mean_value, not both")
            emit("data_transformer.cpp:25", f"Loading mean file from: {param.mean_file}")
            self.mean = read_mean(param.mean_file)
        self._warned = False

    def pixels(self, datum: pb.Datum, where: str) -> np.ndarray:
        """The record's values, channels x height x width, uint8 or float32, decoded if encoded.

        Raises CaffeError, starting with `where`, if the record cannot be used.
        """
        color = self._forced_color(datum.encoded)
        try:
            values = datum_values(datum, color)
        except (CaffeError, ValueError) as error:
            raise CaffeError(f"{where}: {error}") from None
        if not values.size:
            raise CaffeError(f"{where}: the record holds 0 values")
        return values

    def _forced_color(self, encoded: bool) -> bool | None:
        """True for three channels (force_color), False for one (force_gray), None for as stored."""
        p = self.param
        if not (p.force_color or p.force_gray):
            return None
        if not encoded and not self._warned:
            self._warned = True
            emit(
                "data_transformer.cpp:152",
                "force_color and force_gray only for encoded datum",
                ERROR,
            )
        if encoded and p.force_color and p.force_gray:
            raise CaffeError("transform_param: force_color and force_gray exclude each other")
        return p.force_color

    def shape(self, pixels: np.ndarray) -> tuple[int, int, int]:
        """The shape of the record after all steps, (channels, height, width).

        Raises CaffeError if crop_size exceeds the record.
        """
        shape = self.augmentation.shape(pixels.shape) if self.augmentation else pixels.shape
        channels, height, width = shape
        crop = self.param.crop_size
        if crop > min(height, width):
            raise CaffeError(f"crop_size {crop} exceeds the record's {height} x {width}")
        return (channels, crop, crop) if crop else (channels, height, width)

    def apply(
        self, pixels: np.ndarray, out: torch.Tensor, rng: np.random.Generator | None = None
    ) -> None:
        """Write the transformed record into `out`, a float32 tensor of shape(pixels).

        rng: the record's random numbers; needed only if `random` is true. Raises CaffeError if the
        mean does not fit the record.
        """
        p = self.param
        mirror = p.mirror and bool(rng.integers(2))
        if self.augmentation is not None:
            changed = np.empty(self.augmentation.shape(pixels.shape), np.float32)
            self.augmentation.apply(pixels, changed, rng)
            pixels = changed
        rows, columns = self._window(pixels, rng)
        values = pixels[:, rows, columns]
        mean = self._mean_for(pixels)
        if mean is not None:
            whole = mean.shape == pixels.shape  # else one value per channel
            values = values - (mean[:, rows, columns] if whole else mean)
        target = out.numpy()
        np.copyto(target, values[:, :, ::-1] if mirror else values)
        if p.scale != 1:
            target *= np.float32(p.scale)

    def _window(self, pixels: np.ndarray, rng: np.random.Generator | None) -> tuple[slice, slice]:
        _, height, width = pixels.shape
        crop = self.param.crop_size
        if not crop:
            return slice(None), slice(None)
        if self.train:
            top = int(rng.integers(height - crop + 1))
            left = int(rng.integers(width - crop + 1))
        else:
            top, left = (height - crop) // 2, (width - crop) // 2
        return slice(top, top + crop), slice(left, left + crop)

    def _mean_for(self, pixels: np.ndarray) -> np.ndarray | None:
        values = self.param.mean_value
        if self.mean is not None:
            if self.mean.shape != pixels.shape:
                raise CaffeError(
                    f"mean_file {self.param.mean_file!r} has the shape {self.mean.shape}, "
                    f"the record {pixels.shape}"
                )
            return self.mean
        if not values:
            return None
        if len(values) not in (1, pixels.shape[0]):
            raise CaffeError(
                f"mean_value is given {len(values)} time(s), expected 1 or the record's "
                f"{pixels.shape[0]} channels"
            )
        return np.array(values, np.float32).reshape(-1, 1, 1)
