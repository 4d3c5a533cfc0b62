"""The data layer of nets that read picture files by a list instead of an LMDB.

It is data_tools' Python layer RGBDImages, whose settings are a JSON object in `param_str`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from boundary.reading import read_lines
from caffe.errors import CaffeError
from caffe.proto.caffe_pb2 import LayerParameter

MODULE, LAYER = "data_tools.layers", "RGBDImages"
# netgen's options that are settings of the layer, by their names there.
OPTIONS = {
    "root": "data_root",
    "seed": "data_seed",
    "depth_unit": "depth_unit",
    "depth_range": "depth_range",
}
LONGEST = 16384  # pixels of a side


@dataclass(frozen=True)
class Files:
    """How to read the files that a list names.

    root: the folder that their paths are relative to. seed: of the shuffled order. depth_unit and
    depth_range: as the options of data_tools.folder; None means the layer's defaults, millimetres
    and 'authors'.
    """

    root: str = ""
    seed: int = 0
    depth_unit: str | None = None
    depth_range: str | None = None

    def scaling(self) -> str:
        """How depth becomes 0..255, in the words of eval_tools.predict."""
        return self.depth_range or ("none" if self.depth_unit == "scaled" else "authors")


def python_param(
    files: Files, source: str, batch_size: int, size: tuple[int, int], classes: int, shuffle: bool
) -> dict[str, str]:
    """The layer's python_param. source: the list. size: width and height that all
    frames get. classes: the highest label allowed.
    """
    settings: dict[str, Any] = {"source": source, "batch_size": batch_size, "size": list(size)}
    settings |= {"classes": classes}
    if shuffle:
        settings["shuffle"] = True
    settings |= {key: value for key, value in asdict(files).items() if value}
    return {"module": MODULE, "layer": LAYER, "param_str": json.dumps(settings)}


def settings(layer: LayerParameter) -> dict[str, Any] | None:
    """The settings of an RGBDImages layer; None for any other layer.

    Raises CaffeError where they are not JSON, or name no source, or an impossible batch size
    or size.
    """
    param = layer.python_param
    if layer.type != "Python" or (param.module, param.layer) != (MODULE, LAYER):
        return None
    try:
        found = json.loads(param.param_str)
    except (ValueError, RecursionError) as error:
        raise CaffeError(f"layer {layer.name}: param_str is not JSON: {error}") from None
    if not isinstance(found, dict) or not isinstance(found.get("source"), str):
        raise CaffeError(f'layer {layer.name}: param_str is no JSON object with "source"')
    size = found.get("batch_size", 1)
    if type(size) is not int or not 0 < size < 2**31:
        raise CaffeError(
            f"layer {layer.name}: batch_size is {json.dumps(size)}; expected a whole number from 1 "
            "up"
        )
    sides = found.get("size")
    if sides and not (
        isinstance(sides, list)
        and len(sides) == 2
        and all(type(side) is int and 0 < side <= LONGEST for side in sides)
    ):
        raise CaffeError(
            f"layer {layer.name}: size is {json.dumps(sides)}; expected [WIDTH, HEIGHT] in pixels"
        )
    return found


def shapes(layers: Iterable[LayerParameter]) -> dict[str, tuple[int, ...]]:
    """The shapes of the tops of RGBDImages layers, by name. Layers without a size have none.

    Raises CaffeError where settings are not JSON.
    """
    found: dict[str, tuple[int, ...]] = {}
    for layer in layers:
        given = settings(layer)
        if given is not None and given.get("size"):
            batch, (width, height) = given.get("batch_size", 1), given["size"]
            planes = [(batch, channels, height, width) for channels in (3, 1, 1)]
            found |= dict(zip(layer.top, [*planes, (batch,)], strict=False))
    return found


def count_frames(path: str) -> int:
    """The number of frames, which is that of lines. Raises CaffeError if the list is unreadable."""
    return sum(bool(line.strip()) for line in read_lines(path, CaffeError, paths=True))
