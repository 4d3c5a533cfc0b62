"""pycaffe's io.py: conversion of arrays and messages, pictures, and preprocessing of a net's input.

Pictures are read and resized as by pycaffe with scikit-image before 0.15: as RGB floats in [0, 1],
by plain interpolation between pixel centres, without the smoothing with which newer scikit-image
shrinks pictures.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import numpy as np

from boundary.late import cv2
from boundary.pictures import read_picture
from caffe.data.datum import datum_to_array, decode_datum
from caffe.errors import CaffeError
from caffe.formats.arrays import (
    array_to_blobproto,
    array_to_datum,
    arraylist_to_blobprotovector_str,
    blobproto_to_array,
    blobprotovector_str_to_arraylist,
)

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

# The weights of red, green and blue in scikit-image's rgb2gray.
_LUMINANCE = np.array([0.2125, 0.7154, 0.0721])


# ---------------------------------------------------------------------------------------------
# Preprocessing
# ---------------------------------------------------------------------------------------------


class Transformer:
    """Converts pictures to the form that a net's input expects, and back.

    inputs: input name -> shape of its blob, e.g. {"data": net.blobs["data"].data.shape}.

    The first argument of every method is an input's name; all raise CaffeError for a name that is
    not in `inputs`.
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
        """Convert a height x width x channels picture to float32 input, channels x height x width.

        It is resized, transposed, its channels swapped, multiplied by the raw scale, less the mean,
        multiplied by the input scale, in this order; each step only if set. `data` is unchanged.
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
        """Convert an input blob back to a picture: the inverse of preprocess, without resizing."""
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
        """Set the order of the axes, e.g. (2, 0, 1) from height x width x channels to Caffe's.

        Raises CaffeError unless `order` has one number for each axis of the input but the first.
        """
        axes = len(self._shape(in_)) - 1
        if len(order) != axes:
            raise CaffeError(f"transpose of {in_!r}: {len(order)} axes; expected {axes}")
        self.transpose[in_] = order

    def set_channel_swap(self, in_: str, order: Sequence[int]) -> None:
        """Set the order of the channels after transposition, e.g. (2, 1, 0) from RGB to BGR.

        Raises CaffeError unless `order` has one number for each channel of the input.
        """
        channels = self._shape(in_)[1]
        if len(order) != channels:
            raise CaffeError(f"channel swap of {in_!r}: {len(order)} channels; expected {channels}")
        self.channel_swap[in_] = order

    def set_raw_scale(self, in_: str, scale: float) -> None:
        """Set the factor before the mean is subtracted, e.g. 255 for nets that expect 0..255."""
        self._shape(in_)
        self.raw_scale[in_] = scale

    def set_mean(self, in_: str, mean: np.ndarray) -> None:
        """Set the mean to subtract: one number per channel, a height x width array, or a channels x
        height x width array. The latter two are resized to the input's height and width.

        Raises ValueError if `mean` has no axis or more than three, or if it has one axis whose
        length is not the input's number of channels.
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
        """Set the factor after the mean is subtracted."""
        self._shape(in_)
        self.input_scale[in_] = scale


# ---------------------------------------------------------------------------------------------
# Pictures
# ---------------------------------------------------------------------------------------------


def load_image(filename: str | os.PathLike[str], color: bool = True) -> np.ndarray:
    """Read a picture file as float32 in [0, 1]: height x width x 3 in RGB (alpha is dropped, grey
    becomes three equal channels), or with color=False its luminance, height x width x 1.

    Raises CaffeError if the file is missing or cannot be decoded.
    """
    image = read_picture(filename, cv2.IMREAD_UNCHANGED, CaffeError)
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
    """Resize a height x width x channels picture to new_dims (height, width), float32.

    interp_order: 0 nearest, 1 linear, 3 cubic (OpenCV's kernel). As in pycaffe, pictures of 1 or 3
    channels are aligned by pixel centres, and everything outside counts as the picture's minimum,
    so that the outermost pixels of an enlarged picture darken. With any other number of channels
    the centres of the corner pixels are aligned.

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
        resized = cv2.resize(im.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
        return resized.reshape(height, width, -1).clip(low, high)
    centred = im.shape[-1] in (1, 3)
    # With the minimum subtracted, the outside is 0.
    out = _resample(im.astype(float) - low, height, centred, interp_order)
    out = _resample(out.swapaxes(0, 1), width, centred, interp_order).swapaxes(0, 1)
    return (out + low).astype(np.float32)


def _resample(im: np.ndarray, size: int, centred: bool, order: int) -> np.ndarray:
    """Resize the first axis to `size` by linear (order 1) or nearest (0) interpolation.

    centred: align pixel centres, else the centres of the first and last pixels. Zero outside.
    """
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

    crop_dims: (height, width). Returns a float32 array, 10 * n x height x width x channels, for n
    pictures of equal size.
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
