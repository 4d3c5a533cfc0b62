"""Random augmentation of training records: `--augment` and its transform_param."""

from __future__ import annotations

import argparse
from typing import Any

from caffe.data.augment import MAX_SCALE

# A record's channels: blue, green, red, depth, label.
COLOR, LABEL = [0, 1, 2], [4]
AMOUNTS = {"brightness": 1.0, "contrast": 1.0, "saturation": 1.0, "hue": 0.5}  # highest values
FORM = "scale=MIN:MAX,brightness=F,contrast=F,saturation=F,hue=F,mirror"


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
        elif name == "scale":
            low, _, high = value.partition(":")
            augmentation["min_scale"] = _number(part, low, MAX_SCALE)
            augmentation["max_scale"] = _number(part, high, MAX_SCALE)
            if not 0 < augmentation["min_scale"] <= augmentation["max_scale"]:
                raise argparse.ArgumentTypeError(f"{part!r}: expected 0 < MIN <= MAX")
        elif name in AMOUNTS:
            augmentation[name] = _number(part, value, AMOUNTS[name])
        else:
            raise argparse.ArgumentTypeError(f"{part!r}; expected some of {FORM}")
    if augmentation:
        channels = {"color_channel": COLOR, "label_channel": LABEL}
        transform["augmentation_param"] = {**augmentation, **channels}
    return transform


def _number(part: str, text: str, most: float) -> float:
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{part!r}; expected some of {FORM}") from None
    if not 0 <= value <= most:
        raise argparse.ArgumentTypeError(f"{part!r}: expected a number from 0 to {most:g}")
    return value
