"""pycaffe's io: arrays to and from Caffe's messages, pictures, and a net's pre-processing.

Pictures are read and resized as pycaffe did with the scikit-image of its time (before 0.15): RGB
floats in [0, 1]; plain interpolation between pixel centres, without the smoothing that newer
scikit-image adds when it shrinks a picture.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import numpy as np

from caffe.data.datum import datum_values, decode_picture
from caffe.errors import CaffeError
from caffe.formats.arrays import (
    array_to_blobproto,
    array_to_datum,
    arraylist_to_blobprotovector_str,
    blobproto_to_array,
    blobprotovector_str_to_arraylist,
)
from caffe.proto import caffe_pb2

__all__ = [
    "Transformer",
    "array_to_blobproto",
    "array_to_datum",
    "arraylist_to_blobprotovector_str",
    "blobproto_to_array",
    "blobprotovector_str_to_arraylist",
    "datum_to_array",
    "decode_datum",
    "load_image",
    "oversample",
    "resize_image",
]

# What scikit-image's rgb2gray gives red, green and blue.
_LUMINANCE = np.array([0.2125, 0.7154, 0.0721])


# ---------------------------------------------------------------------------------------------
# Messages
# ---------------------------------------------------------------------------------------------


def datum_to_array(datum: caffe_pb2.Datum) -> np.ndarray:
    """The channels x height x width array in a Datum, uint8 or float64; its label is datum.label.

    An encoded Datum (a PNG, JPEG, ... inside) is decoded, colours as blue, green, red; pycaffe's
    own function cannot. Raises CaffeError if that picture is broken, ValueError if the size does
    not fit the count.
    """
    if datum.encoded:
        return decode_datum(datum)
    values = datum_values(datum)
    return values.copy() if values.dtype == np.uint8 else values.astype(float)


def decode_datum(datum: caffe_pb2.Datum, color: bool | None = None) -> np.ndarray:
    """The picture in an encoded Datum as channels x height x width, uint8, colours as B, G, R.

    color: True for three channels, False for one, None for as many as the picture has.

    Raises CaffeError if it cannot be decoded or has more than 8 bits a channel.
    """
    image = decode_picture(datum.data, color)
    if image is None:
        size = len(datum.data)
        raise CaffeError(f"encoded Datum of {size} bytes: no picture that can be decoded")
    if image.dtype != np.uint8:
        raise CaffeError(f"encoded Datum: the picture has {image.dtype} values; expected uint8")
    return image


# ---------------------------------------------------------------------------------------------
# Pre-processing
# ---------------------------------------------------------------------------------------------


class Transformer:
    """Brings pictures into the form that a net's input expects, and back.

    inputs: input name -> shape of its blob, e.g. {"data": net.blobs["data"].data.shape}.

    Each setter takes the input's name first; all raise CaffeError for a name that is not among
    the inputs.
    """

    def __init__(self, inputs: Mapping[str, Sequence[int]]) -> None:
        self.inputs = inputs
        self.transpose: dict[str, Sequence[int]] = {}
        self.channel_swap: dict[str, Sequence[int]] = {}
        self.raw_scale: dict[str, float] = {}
        self.mean: dict[str, np.ndarray] = {}
        self.input_scale: dict[str, float] = {}

    def _shape(self, in_: str) -> tuple[int, ...]:
        if in_ not in self.inputs:
            names = ", ".join(self.inputs)
            raise CaffeError(f"{in_!r} is not one of the net inputs: {names}")
        return tuple(self.inputs[in_])

    def preprocess(self, in_: str, data: np.ndarray) -> np.ndarray:
        """A height x width x channels picture as float32 input, channels x height x width.

        In this order: resize, transpose, swap channels, raw scale, subtract the mean, input
        scale; each only if it is set. `data` stays as it is.
        """
        size = self._shape(in_)[2:]
        out = np.array(data, np.float32)
        if out.shape[:2] != size:
            out = resize_image(out, size)
        if in_ in self.transpose:
            out = out.transpose(self.transpose[in_])
        if in_ in self.channel_swap:
            out = out[list(self.channel_swap[in_]), :, :]
        if in_ in self.raw_scale:
            out *= self.raw_scale[in_]
        if in_ in self.mean:
            out -= self.mean[in_]
        if in_ in self.input_scale:
            out *= self.input_scale[in_]
        return out

    def deprocess(self, in_: str, data: np.ndarray) -> np.ndarray:
        """The inverse of preprocess, less the resizing: an input blob as a picture."""
        self._shape(in_)
        kind = data.dtype if np.issubdtype(data.dtype, np.floating) else np.float32
        out = data.astype(kind).squeeze()
        if in_ in self.input_scale:
            out /= self.input_scale[in_]
        if in_ in self.mean:
            out += self.mean[in_]
        if in_ in self.raw_scale:
            out /= self.raw_scale[in_]
        if in_ in self.channel_swap:
            out = out[np.argsort(self.channel_swap[in_]), :, :]
        if in_ in self.transpose:
            out = out.transpose(np.argsort(self.transpose[in_]))
        return out

    def set_transpose(self, in_: str, order: Sequence[int]) -> None:
        """Order of the axes, e.g. (2, 0, 1) from height x width x channels to Caffe's.

        Raises CaffeError unless it has one number for each axis of the input but the first.
        """
        axes = len(self._shape(in_)) - 1
        if len(order) != axes:
            raise CaffeError(f"transpose of {in_!r}: {len(order)} axes; expected {axes}")
        self.transpose[in_] = order

    def set_channel_swap(self, in_: str, order: Sequence[int]) -> None:
        """Order of the channels after the transposition, e.g. (2, 1, 0) from RGB to BGR.

        Raises CaffeError unless it has one number for each channel of the input.
        """
        channels = self._shape(in_)[1]
        if len(order) != channels:
            raise CaffeError(f"channel swap of {in_!r}: {len(order)} channels; expected {channels}")
        self.channel_swap[in_] = order

    def set_raw_scale(self, in_: str, scale: float) -> None:
        """Factor before the mean is subtracted, e.g. 255 for nets that expect 0..255."""
        self._shape(in_)
        self.raw_scale[in_] = scale

    def set_mean(self, in_: str, mean: np.ndarray) -> None:
        """Mean to subtract: one number a channel, or a channels x height x width array, which is
        resized to the input if need be.

        Raises ValueError if it fits neither.
        """
        shape = self._shape(in_)[1:]
        if mean.ndim == 1:
            if len(mean) != shape[0]:
                raise ValueError(
                    f"Mean channels incompatible with input: {len(mean)}, expected {shape[0]}."
                )
            mean = mean[:, np.newaxis, np.newaxis]
        else:
            mean = mean[np.newaxis] if mean.ndim == 2 else mean
            if mean.ndim != 3:
                raise ValueError(f"Mean shape invalid: {mean.shape}, expected 1 to 3 axes.")
            if mean.shape != shape:
                mean = resize_image(mean.transpose(1, 2, 0), shape[1:]).transpose(2, 0, 1)
        self.mean[in_] = mean

    def set_input_scale(self, in_: str, scale: float) -> None:
        """Factor after the mean was subtracted."""
        self._shape(in_)
        self.input_scale[in_] = scale


# ---------------------------------------------------------------------------------------------
# Pictures
# ---------------------------------------------------------------------------------------------


def load_image(filename: str | os.PathLike[str], color: bool = True) -> np.ndarray:
    """A picture file as float32 in [0, 1]: height x width x 3 in RGB (an alpha channel is left
    out, grey becomes three equal channels), or with color=False height x width x 1, its luminance.

    Raises CaffeError if the file is missing or no picture.
    """
    import cv2

    if not os.path.isfile(filename):
        raise CaffeError(f"{filename}: no such file")
    image = cv2.imread(os.fspath(filename), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise CaffeError(f"{filename}: no picture that can be decoded")
    if np.issubdtype(image.dtype, np.integer):
        image = image / np.iinfo(image.dtype).max
    if image.ndim == 2:
        image = image[:, :, np.newaxis]
        return np.tile(image, (1, 1, 3) if color else 1).astype(np.float32)
    rgb = image[:, :, 2::-1]  # OpenCV keeps B, G, R and perhaps alpha
    if not color:
        rgb = (rgb @ _LUMINANCE)[:, :, np.newaxis]
    return np.ascontiguousarray(rgb, np.float32)


def resize_image(im: np.ndarray, new_dims: Sequence[int], interp_order: int = 1) -> np.ndarray:
    """A height x width x channels picture resized to new_dims (height, width), float32.

    interp_order: 0 nearest, 1 linear, 3 cubic (OpenCV's kernel).
    As pycaffe: with 1 or 3 channels pixel centres are matched, and what lies outside counts as the
    picture's minimum, so that the outermost pixels of an enlarged picture darken; with any other
    number of channels the corners' centres are matched.

    Raises ValueError for another interp_order.
    """
    if interp_order not in (0, 1, 3):
        raise ValueError(f"interp_order {interp_order}; expected 0, 1 or 3")
    height, width = (int(n) for n in new_dims)
    im = np.asarray(im)
    low, high = im.min(), im.max()
    if low == high:
        return np.full((height, width, im.shape[-1]), low, np.float32)
    if interp_order == 3:
        import cv2

        resized = cv2.resize(im.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
        return resized.reshape(height, width, -1).clip(low, high)
    centred = im.shape[-1] in (1, 3)
    # Taken from the minimum, outside is 0.
    out = _resample(im.astype(float) - low, height, centred, interp_order)
    out = _resample(out.swapaxes(0, 1), width, centred, interp_order).swapaxes(0, 1)
    return (out + low).astype(np.float32)


def _resample(im: np.ndarray, size: int, centred: bool, order: int) -> np.ndarray:
    """The first axis brought to `size` by linear (or nearest) interpolation, zero outside."""
    old = im.shape[0]
    if centred:
        at = (np.arange(size) + 0.5) * (old / size) - 0.5
    else:
        at = np.arange(size) * ((old - 1) / max(size - 1, 1))
    if order == 0:
        return im[np.clip(np.floor(at + 0.5).astype(int), 0, old - 1)]
    padded = np.pad(im, ((1, 1), (0, 0), (0, 0)))
    below = np.clip(np.floor(at).astype(int), -1, old - 1)
    share = (at - below)[:, np.newaxis, np.newaxis]
    return padded[below + 1] * (1 - share) + padded[below + 2] * share


def oversample(images: Sequence[np.ndarray], crop_dims: Sequence[int]) -> np.ndarray:
    """Ten crops of each height x width x channels picture: the four corners, the centre, and the
    mirror images of these five.

    crop_dims: (height, width). Returns 10 n x height x width x channels, float32.
    """
    height, width = (int(n) for n in crop_dims)
    rows, columns, channels = images[0].shape
    corners = [(y, x) for y in (0, rows - height) for x in (0, columns - width)]
    centre = (int(rows / 2 - height / 2), int(columns / 2 - width / 2))
    crops = np.empty((len(images), 2, 5, height, width, channels), np.float32)
    for n, image in enumerate(images):
        for i, (y, x) in enumerate([*corners, centre]):
            crops[n, 0, i] = image[y : y + height, x : x + width]
        crops[n, 1] = crops[n, 0, :, :, ::-1]
    return crops.reshape(-1, height, width, channels)
