"""Records of an LMDB as the inputs of a deploy net, to find the ranges of its values."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from boundary import trust
from boundary.errors import shown
from caffe.data.datum import parse_datum
from caffe.data.transform import RecordTransformer
from caffe.errors import CaffeError
from caffe.export.module import load_net
from caffe.export.probes import Feeds
from caffe.export.whole.taken import PLANES
from caffe.formats import files
from caffe.formats.db import Database
from caffe.graph.rules import filter_net
from caffe.net import Net
from caffe.process.log import emit
from caffe.proto import caffe_pb2 as pb

PathLike = str | os.PathLike[str]
FRAME = (4, 5)  # channels of records of RGB-D frames: blue, green, red, depth and perhaps a label


class Calibration:
    """Records of an LMDB as batches for a net's inputs.

    net: the deploy net. inputs: the blobs to fill, each (N, C, H, W) with one N. lmdb: records of
        that height and width. Those of data_tools (B, G, R, depth, label) are taken apart: an input
        of 3 channels gets colour, one of 1 depth, one of 4 both. Of others the only input gets all.
    data: a training net. Records go through its data layer as in TEST (mean, scale, the crop in the
        middle; not mirrored) and on through its layers up to the blobs that `inputs` name.
    trusted: whether that net's layers may run Python code and write files.

    Raises CaffeError for an LMDB or a training net that cannot be used, or does not fit.
    """

    def __init__(
        self,
        net: Net,
        inputs: Sequence[str],
        lmdb: PathLike,
        data: PathLike | None = None,
        trusted: bool = False,
    ) -> None:
        self._where = shown(lmdb)
        self._database = Database.open(lmdb)
        self._keys = self._database.keys()
        self._shapes = {name: tuple(net.blobs[name].shape) for name in inputs}
        self.batch = _batch(self._shapes)
        self._before = _Before(data, self._shapes, trusted) if data is not None else None

    def __len__(self) -> int:
        return len(self._keys)

    def evenly(self, count: int) -> list[int]:
        """The numbers of `count` records that lie evenly over all; of all if there are fewer."""
        count = min(count, len(self))
        return [(2 * i + 1) * len(self) // (2 * count) for i in range(count)]

    def feeds(self, numbers: Sequence[int]) -> Iterator[Feeds]:
        """The inputs, float32, of these records, a batch at a time; the first ones once more fill
        the last batch.
        """
        for start in range(0, len(numbers), self.batch):
            chosen = [numbers[i % len(numbers)] for i in range(start, start + self.batch)]
            samples = [self._inputs(self._keys[number]) for number in chosen]
            yield {name: np.stack([sample[name] for sample in samples]) for name in self._shapes}

    def _inputs(self, key: bytes) -> Feeds:
        where = f"{self._where}: record {shown(key.decode('utf-8', 'surrogateescape'))}"
        datum = parse_datum(self._database.get(key), where)
        if self._before is not None:
            found = self._before(datum, where)
        else:
            transformer = RecordTransformer(pb.TransformationParameter(), pb.TEST)
            found = self._apart(transformer.pixels(datum, where), where)
        for name, values in found.items():
            if values.shape != self._shapes[name][1:]:
                more = "" if self._before else "; --data names the training net that crops them"
                raise CaffeError(
                    f"{where}: gives input {name!r} {_times(values.shape)} values, the net takes "
                    f"{_times(self._shapes[name][1:])}{more}"
                )
            if not np.isfinite(values).all():
                raise CaffeError(f"{where}: holds NaN or infinity")
        return found

    def _apart(self, record: np.ndarray, where: str) -> Feeds:
        """Each input's channels of a record (C, H, W)."""
        record = record.astype(np.float32)
        wanted = {name: shape[1] for name, shape in self._shapes.items()}
        if list(wanted.values()) == [len(record)]:
            return dict.fromkeys(wanted, record)
        planes = [PLANES.get(channels, (0, 0)) for channels in wanted.values()]
        taken = [plane for start, end in planes for plane in range(start, end)]
        apart = len(taken) == len(set(taken)) == sum(wanted.values())
        if len(record) not in FRAME or not apart:
            raise CaffeError(
                f"{where}: has {len(record)} channels; the net's inputs take "
                f"{', '.join(f'{name!r} {n}' for name, n in wanted.items())}: --data names the "
                "training net that takes records apart"
            )
        return {name: record[start:end] for name, (start, end) in zip(wanted, planes, strict=True)}


class _Before:
    """What a training net does with records before they are a deploy net's inputs."""

    def __init__(self, path: PathLike, shapes: dict[str, tuple[int, ...]], trusted: bool) -> None:
        self._path, self._shapes = shown(path), shapes
        param = files.read_net(path, emit)
        param.state.phase = pb.TEST
        param = filter_net(param, quiet=True)
        kept, source = _leading_to(shapes, param, self._path)
        del source.top[1:]  # labels
        self._param, self._top = pb.NetParameter(layer=kept), source.top[0]
        if not trusted:
            trust.check(self._param, path, CaffeError)
        source.transform_param.mirror = False  # the same frames in every run
        self._transformer = RecordTransformer(source.transform_param, pb.TEST)
        self._net: Net | None = None

    def __call__(self, datum: pb.Datum, where: str) -> Feeds:
        pixels = self._transformer.pixels(datum, where)
        try:
            record = torch.empty(1, *self._transformer.shape(pixels))
            self._transformer.apply(pixels, record[0])
        except CaffeError as error:
            raise CaffeError(f"{where}: {self._path}: {error}") from None
        net = self._net_for(tuple(record.shape))
        net.forward(**{self._top: record.numpy()})
        return {name: net.blobs[name].data[0].copy() for name in self._shapes}

    def _net_for(self, shape: tuple[int, ...]) -> Net:
        if self._net is None or self._net.blobs[self._top].shape != shape:
            state = pb.NetState(phase=pb.TEST)
            self._net = load_net(self._param, None, state, {self._top: shape})
        return self._net


def _leading_to(
    wanted: dict[str, tuple[int, ...]], param: pb.NetParameter, where: str
) -> tuple[list[pb.LayerParameter], pb.LayerParameter]:
    """The layers that these blobs depend on, and among them the one that reads records.

    Raises CaffeError if a blob is missing, or if not exactly one Data layer leads to them.
    """
    names, kept = set(wanted), []
    made = {top for layer in param.layer for top in layer.top}
    if missing := [name for name in wanted if name not in made]:
        raise CaffeError(f"{where}: has no blob {missing[0]!r}, which is an input of the net")
    for layer in reversed(param.layer):
        if names & set(layer.top):
            names |= set(layer.bottom)
            kept.insert(0, layer)
    sources = [layer for layer in kept if not layer.bottom]
    if [layer.type for layer in sources] != ["Data"]:
        raise CaffeError(
            f"{where}: {', '.join(sorted(wanted))} must come from one Data layer; they come from "
            f"{', '.join(layer.type for layer in sources) or 'none'}"
        )
    return kept, sources[0]


def _batch(shapes: dict[str, tuple[int, ...]]) -> int:
    """How many samples all the inputs take. Raises CaffeError for one without a batch."""
    for name, shape in shapes.items():
        if len(shape) != 4 or shape[0] != next(iter(shapes.values()))[0]:
            raise CaffeError(
                f"input {name!r} has the shape {_times(shape)}; expected N x C x H x W with one N "
                "for all inputs"
            )
    return next(iter(shapes.values()))[0]


def _times(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "none"
