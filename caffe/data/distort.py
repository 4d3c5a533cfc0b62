"""Changes of pictures that SSD's transform_param asks for: colours, noise, size, a wider canvas.

Pictures are arrays (height, width, channels), uint8, colours as B, G, R.
"""

from __future__ import annotations

import cv2
import numpy as np

from caffe.data.boxes import new_size
from caffe.errors import CaffeError
from caffe.proto import caffe_pb2 as pb

R = pb.ResizeParameter
_BORDERS = {R.MIRRORED: "reflect", R.REPEAT_NEAREST: "edge"}  # numpy's words
_INTERPOLATIONS = {
    R.LINEAR: cv2.INTER_LINEAR,
    R.AREA: cv2.INTER_AREA,
    R.NEAREST: cv2.INTER_NEAREST,
    R.CUBIC: cv2.INTER_CUBIC,
    R.LANCZOS4: cv2.INTER_LANCZOS4,
}


def check_distortion(p: pb.DistortionParameter) -> None:
    """Raise CaffeError for ranges that are none."""
    for name in ("brightness_delta", "hue_delta", "contrast_lower", "saturation_lower"):
        if not 0 <= getattr(p, name) < np.inf:
            raise CaffeError(f"distort_param: {name} is {getattr(p, name):g}, expected at least 0")
    for name in ("contrast", "saturation"):
        low, high = getattr(p, f"{name}_lower"), getattr(p, f"{name}_upper")
        if getattr(p, f"{name}_prob") > 0 and not low <= high < np.inf:
            raise CaffeError(
                f"distort_param: {name}_lower {low:g} and {name}_upper {high:g} are no range"
            )


def check_noise(p: pb.NoiseParameter) -> None:
    """Raise CaffeError for what cannot be done."""
    if p.convert_to_lab:
        raise CaffeError("noise_param: convert_to_lab gives no bytes; SSD's layer fails at it")
    if not p.jpeg <= 100:
        raise CaffeError(f"noise_param: jpeg is {p.jpeg:g}, expected at most 100")
    if not 0 <= p.saltpepper_param.fraction <= 1:
        fraction = p.saltpepper_param.fraction
        raise CaffeError(f"saltpepper_param: fraction is {fraction:g}, expected 0 to 1")


def distorted(image: np.ndarray, p: pb.DistortionParameter, rng: np.random.Generator) -> np.ndarray:
    """The picture with changed brightness, contrast, saturation, hue and order of channels, each
    with its probability; contrast comes second or fourth (ApplyDistort in SSD's im_transforms.cpp).
    """
    early = rng.uniform() > 0.5
    image = _brightness(image, p, rng)
    image = _contrast(image, p, rng) if early else image
    image = _saturation(image, p, rng)
    image = _hue(image, p, rng)
    image = image if early else _contrast(image, p, rng)
    if rng.uniform() < p.random_order_prob:
        image = np.ascontiguousarray(image[:, :, rng.permutation(image.shape[2])])
    return image


def _linear(image: np.ndarray, factor: float, shift: float) -> np.ndarray:
    """factor * value + shift, rounded and cut to 0..255."""
    table = (np.arange(256) * factor + shift).round().clip(0, 255).astype(np.uint8)
    return cv2.LUT(np.ascontiguousarray(image), table).reshape(image.shape)


def _brightness(
    image: np.ndarray, p: pb.DistortionParameter, rng: np.random.Generator
) -> np.ndarray:
    if rng.uniform() >= p.brightness_prob:
        return image
    return _linear(image, 1, rng.uniform(-p.brightness_delta, p.brightness_delta))


def _contrast(image: np.ndarray, p: pb.DistortionParameter, rng: np.random.Generator) -> np.ndarray:
    if rng.uniform() >= p.contrast_prob:
        return image
    return _linear(image, rng.uniform(p.contrast_lower, p.contrast_upper), 0)


def _saturation(
    image: np.ndarray, p: pb.DistortionParameter, rng: np.random.Generator
) -> np.ndarray:
    if rng.uniform() >= p.saturation_prob:
        return image
    return _in_hsv(image, 1, rng.uniform(p.saturation_lower, p.saturation_upper), 0)


def _hue(image: np.ndarray, p: pb.DistortionParameter, rng: np.random.Generator) -> np.ndarray:
    if rng.uniform() >= p.hue_prob:
        return image
    return _in_hsv(image, 0, 1, rng.uniform(-p.hue_delta, p.hue_delta))


def _in_hsv(image: np.ndarray, channel: int, factor: float, shift: float) -> np.ndarray:
    """The picture with one channel of hue, saturation and value changed by _linear."""
    _check_colors(image, "distort_param: saturation and hue")
    values = cv2.cvtColor(image, cv2.COLOR_BGR2HSV)
    values[:, :, channel] = _linear(values[:, :, channel], factor, shift)
    return cv2.cvtColor(values, cv2.COLOR_HSV2BGR)


def _check_colors(image: np.ndarray, what: str) -> None:
    if image.shape[2] != 3:
        raise CaffeError(f"{what} need three channels, the picture has {image.shape[2]}")


def resize(image: np.ndarray, p: pb.ResizeParameter, rng: np.random.Generator) -> np.ndarray:
    """The picture in the size that new_size tells: warped, with its sides' ratio kept (the smaller
    side fits), or kept and padded (ApplyResize in SSD's im_transforms.cpp).
    """
    modes = list(p.interp_mode) or [R.LINEAR]
    how = _INTERPOLATIONS[modes[rng.integers(len(modes)) if len(modes) > 1 else 0]]
    height, width = new_size(p, *image.shape[:2])
    if p.resize_mode != R.FIT_LARGE_SIZE_AND_PAD:
        return _to(image, height, width, how)
    aspect = np.float32(image.shape[1] / image.shape[0])
    if aspect > np.float32(width / height):
        high, wide = int(np.float32(width) / aspect), width
    else:
        high, wide = height, int(aspect * height)
    inner = _to(image, max(high, 1), max(wide, 1), how)
    above, left = (height - inner.shape[0]) // 2, (width - inner.shape[1]) // 2
    below, right = height - inner.shape[0] - above, width - inner.shape[1] - left
    if p.pad_mode in _BORDERS:
        borders = ((above, below), (left, right), (0, 0))
        return np.pad(inner, borders, mode=_BORDERS[p.pad_mode])
    value = _per_channel(p.pad_value, image.shape[2], "resize_param: pad_value")
    return expanded(inner, height, width, above, left, np.array(value))


def _to(image: np.ndarray, height: int, width: int, how: int) -> np.ndarray:
    made = cv2.resize(image, (width, height), interpolation=how)
    return made.reshape(height, width, -1)


def _per_channel(values: list[float], channels: int, what: str) -> list[float]:
    """A value for each channel from none (0), one or all of them."""
    if len(values) not in (0, 1, channels):
        raise CaffeError(f"{what} is given {len(values)} time(s), expected 1 or {channels}")
    return [*values] * channels if len(values) == 1 else [*values] or [0.0] * channels


def expanded(
    image: np.ndarray, height: int, width: int, top: int, left: int, fill: np.ndarray
) -> np.ndarray:
    """The picture on a canvas of this size and colour (channels), at this place."""
    canvas = np.empty((height, width, image.shape[2]), np.uint8)
    canvas[:] = fill.round().clip(0, 255)
    canvas[top : top + image.shape[0], left : left + image.shape[1]] = image
    return canvas


def noised(image: np.ndarray, p: pb.NoiseParameter, rng: np.random.Generator) -> np.ndarray:
    """The picture after the steps that are set, in the order of ApplyNoise (im_transforms.cpp)."""
    if p.decolorize:
        _check_colors(image, "noise_param: decolorize")
        image = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    if p.gauss_blur:
        image = _like(image, cv2.GaussianBlur(image, (7, 7), 1.5))
    if p.hist_eq:
        image = _in_brightness(image, cv2.equalizeHist)
    if p.clahe:
        image = _in_brightness(image, cv2.createCLAHE(4).apply)
    if p.jpeg > 0:
        image = _through_jpeg(image, int(p.jpeg))
    if p.erode:
        element = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (3, 3))
        image = _like(image, cv2.erode(image, element))
    if p.posterize:
        image = (np.arange(256) // 64 * 64 + 32).astype(np.uint8)[image]
    if p.inverse:
        image = 255 - image
    if p.saltpepper:
        image = _salted(image, p.saltpepper_param, rng)
    if p.convert_to_hsv:
        _check_colors(image, "noise_param: convert_to_hsv")
        image = cv2.cvtColor(image, cv2.COLOR_BGR2HSV)
    return image


def _like(image: np.ndarray, changed: np.ndarray) -> np.ndarray:
    """OpenCV's result with an axis of channels, which it drops if there is one."""
    return changed.reshape(image.shape)


def _in_brightness(image: np.ndarray, change) -> np.ndarray:
    """The picture with its brightness changed by a function of one channel."""
    if image.shape[2] == 1:
        return _like(image, change(image[:, :, 0]))
    _check_colors(image, "noise_param: hist_eq and clahe")
    values = cv2.cvtColor(image, cv2.COLOR_BGR2YCrCb)
    values[:, :, 0] = change(np.ascontiguousarray(values[:, :, 0]))
    return cv2.cvtColor(values, cv2.COLOR_YCrCb2BGR)


def _through_jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    """The picture as a JPEG of this quality shows it, in three channels."""
    from boundary.pictures import decode

    good, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not good:
        raise CaffeError(f"noise_param: no JPEG of quality {quality} can be made")
    return decode(data.tobytes(), cv2.IMREAD_COLOR, "noise_param: JPEG", CaffeError)


def _salted(image: np.ndarray, p: pb.SaltPepperParameter, rng: np.random.Generator) -> np.ndarray:
    """The picture with a fraction of its pixels, drawn with repetition, in one colour."""
    height, width, channels = image.shape
    count = int(p.fraction * height * width)
    places = rng.integers(height, size=count), rng.integers(width, size=count)
    colour = _per_channel(p.value, channels, "saltpepper_param: value")
    image = image.copy()
    image[places] = np.array(colour).clip(0, 255).astype(np.uint8)
    return image
