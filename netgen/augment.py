"""Random augmentation of training records: `--augment` and its transform_param."""

from __future__ import annotations

import argparse
import re
from typing import Any

from caffe.data.augment import MAX_ANGLE, MAX_SCALE
from caffe.errors import CaffeError

# A record's channels: blue, green, red, depth, label.
COLOR, DEPTH, LABEL = [0, 1, 2], [3], [4]
AMOUNTS = {"brightness": 1.0, "contrast": 1.0, "saturation": 1.0, "hue": 0.5}  # highest values
RANGES = {"scale": "scale", "depth": "depth_scale"}  # fields min_... and max_...
FORM = (
    "scale=MIN:MAX,rotate=DEGREES,crop=WxH,depth=MIN:MAX,brightness=F,contrast=F,saturation=F,"
    "hue=F,mirror"
)


def parse(text: str) -> dict[str, Any]:
    """The transform_param that `text` asks for, in the form FORM, or some of its parts.

    Raises argparse.ArgumentTypeError for anything else.
    """
    augmentation: dict[str, Any] = {}
    transform: dict[str, Any] = {}
    parts = [part.strip() for part in text.split(",")]
    names = [part.partition("=")[0] for part in parts]
    for part, name in zip(parts, names, strict=True):
        value = part.partition("=")[2]
        if names.count(name) > 1:
            raise argparse.ArgumentTypeError(f"{name!r} is given twice")
        if part == "mirror":
            transform["mirror"] = True
        elif name in RANGES:
            low, _, high = value.partition(":")
            ends = _number(part, low, MAX_SCALE), _number(part, high, MAX_SCALE)
            if not 0 < ends[0] <= ends[1]:
                raise argparse.ArgumentTypeError(f"{part!r}: expected 0 < MIN <= MAX")
            augmentation |= dict(zip(_ends(name), ends, strict=True))
        elif name == "crop":
            augmentation |= _crop(part, value)
        elif name == "rotate":
            augmentation["max_angle"] = _number(part, value, MAX_ANGLE)
        elif name in AMOUNTS:
            augmentation[name] = _number(part, value, AMOUNTS[name])
        else:
            raise argparse.ArgumentTypeError(f"{part!r}; expected some of {FORM}")
    if augmentation:
        channels = {"color_channel": COLOR, "label_channel": LABEL}
        if "depth" in names:
            channels["depth_channel"] = DEPTH
        transform["augmentation_param"] = {**augmentation, **channels}
    return transform


def crop_of(transform: dict[str, Any] | None, size: tuple[int, int]) -> tuple[int, int] | None:
    """Width and height of the crops that a transform_param takes from frames of a size; None if it
    takes whole frames.

    Raises CaffeError if no frame can fill a crop, however it is zoomed.
    """
    augmentation = (transform or {}).get("augmentation_param", {})
    crop = augmentation.get("crop_w", 0), augmentation.get("crop_h", 0)
    if not all(crop) or crop == size:
        return None
    most = augmentation.get("max_scale", 1.0)
    if any(part > side * most for part, side in zip(crop, size, strict=True)):
        zoomed = f", zoomed by at most {most:g}" if most != 1 else ""
        raise CaffeError(
            f"crops of {crop[0]}x{crop[1]} are larger than the net's frames of "
            f"{size[0]}x{size[1]}{zoomed}"
        )
    return crop


def _ends(name: str) -> tuple[str, str]:
    return f"min_{RANGES[name]}", f"max_{RANGES[name]}"


def _crop(part: str, text: str) -> dict[str, int]:
    found = re.fullmatch(r"([1-9][0-9]{0,4})x([1-9][0-9]{0,4})", text)
    if not found:
        raise argparse.ArgumentTypeError(
            f"{part!r}: expected a width and height in pixels, such as crop=288x224"
        )
    return {"crop_h": int(found[2]), "crop_w": int(found[1])}


def _number(part: str, text: str, most: float) -> float:
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{part!r}; expected some of {FORM}") from None
    if not 0 <= value <= most:
        raise argparse.ArgumentTypeError(f"{part!r}: expected a number from 0 to {most:g}")
    return value
