"""Draws what training sees of an LMDB: its records before and after a net's augmentation.

The records pass through the engine's own data layer. So this is for this engine alone, while the
rest of data_tools also runs on a pycaffe of BVLC's.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from boundary.errors import shown
from boundary.late import cv2
from boundary.text import shown as printable
from data_tools import sheet
from data_tools.blank_net import read_prototxt
from data_tools.cli import DataError, describe
from data_tools.doctor import records
from data_tools.record import CHANNELS
from data_tools.store import Reader, name_of

WIDTH = 200  # pixels of a stored record's picture on the sheet
GAP = 10  # pixels between a record as it is stored and as training sees it
PICTURES = 3  # colour, depth, label


class Seen(NamedTuple):
    """A record as it is stored and as training sees it, each channels x height x width."""

    key: bytes
    stored: np.ndarray
    seen: np.ndarray


def data_layer(net: str | Path) -> Any:
    """The LayerParameter of the layer that reads LMDBs in phase TRAIN of a prototxt.

    Raises DataError where there is none.
    """
    try:
        from caffe import TRAIN
        from caffe.graph.rules import layers_in
    except ImportError:
        raise DataError("--augment is for this project's own caffe, not for BVLC's") from None
    param = read_prototxt(net)
    try:
        layers = layers_in(param, TRAIN)
    except RuntimeError as error:
        raise DataError(f"{shown(net)}: {describe(error)}") from error
    for layer in layers:
        if layer.type == "Data":
            return layer
    raise DataError(
        f"{shown(net)}: has no layer of type Data in phase TRAIN, whose records to draw"
    )


def changes(layer: Any) -> bool:
    """Whether a data layer's transform_param changes records of colour, depth and label."""
    from caffe import TRAIN
    from caffe.data.transform import RecordTransformer

    return RecordTransformer(_moving(layer.transform_param), TRAIN).random


def seen(layer: Any, lmdb: str | Path, frames: int, seed: int) -> Iterator[Seen]:
    """The first records of the first epoch, in its order: at most `frames`, and each once.

    layer: as from data_layer. lmdb: read instead of the layer's own source. seed: the solver's
    random_seed, from which order and random numbers follow. Means and scale are left out, which
    would make colours and labels unrecognisable.

    Sets this process's random seed. Raises DataError for settings that make no sense and for
    records that do not fit them.
    """
    from caffe import TRAIN
    from caffe.data.datum import parse_datum
    from caffe.data.order import endless_records
    from caffe.data.transform import RecordTransformer
    from caffe.layers.data import Data, Sample, in_batches
    from caffe.process import log, seeds

    param = type(layer)()
    param.CopyFrom(layer)
    param.phase = TRAIN
    param.data_param.source, param.data_param.batch_size = str(lmdb), 1
    param.data_param.backend = param.data_param.LMDB
    try:
        with log.quiet():
            seeds.set_random_seed(seed)
            data = Data(param)
            data.setup([])
            drawn = RecordTransformer(_moving(param.transform_param), TRAIN)
        random = data.random()
        stream = endless_records(data.database, data.turns(), data.shuffling(), lambda: None)
        for number, key, value in islice(stream, min(frames, len(data.database))):
            where = f"{shown(lmdb)}: record {name_of(key)}"
            datum = parse_datum(value, where)
            pixels = drawn.pixels(datum, where)
            if len(pixels) != len(CHANNELS):
                raise DataError(
                    f"{where}: {len(pixels)} channels, expected 5 ({', '.join(CHANNELS)})"
                )
            sample = Sample(number, where, pixels, datum.label)
            values, _ = next(in_batches(iter([sample]), drawn, random, 1)).tops
            yield Seen(key, pixels, values[0].numpy())
    except DataError:
        raise
    except RuntimeError as error:  # CaffeError; it names the file or the layer
        raise DataError(describe(error)) from error


def _moving(transform: Any) -> Any:
    """A transform_param without means and scale."""
    param = type(transform)()
    param.CopyFrom(transform)
    for name in ("mean_file", "mean_value", "scale"):
        param.ClearField(name)
    return param


def draw(reader: Reader, found: Iterator[Seen]) -> np.ndarray:
    """A sheet, BGR uint8: a row for each record, with colour, depth and label as they are stored,
    and the same as training sees them, at the same scale.
    """
    fixed, palette = records.fixed_range(reader.info), sheet.palette_of(reader)
    rows = []
    for key, stored, after in found:
        parts = []
        for planes in (stored, after):
            width = max(1, round(WIDTH * planes.shape[2] / stored.shape[2]))
            parts.append(np.hstack(sheet.pictures(planes, palette, width, fixed)[:PICTURES]))
        words = [sheet.depth_in_words(planes[3], fixed) for planes in (stored, after)]
        rows.append((f"{printable(name_of(key))}  {words[0]}; in training {words[1]}", parts))
    left = max(parts[0].shape[1] for _, parts in rows) + GAP
    right = max(parts[1].shape[1] for _, parts in rows)
    whole = []
    for title, (before, after) in rows:
        height = max(len(before), len(after))
        picture = np.full((height, left + right, 3), 255, np.uint8)
        picture[: len(before), : before.shape[1]] = before
        picture[: len(after), left : left + after.shape[1]] = after
        whole += [sheet.strip(title, left + right), picture]
    return np.vstack(whole)


def png(picture: np.ndarray) -> bytes:
    """A picture, BGR uint8, as the bytes of a PNG file."""
    return cv2.imencode(".png", picture)[1].tobytes()
