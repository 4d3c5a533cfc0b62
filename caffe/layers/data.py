"""Layers that bring data into a net: Input, DummyData, Data."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from caffe import device
from caffe.blob import Blob
from caffe.data import (
    Batch,
    Prefetcher,
    RecordTransformer,
    endless_records,
    open_database,
    parse_datum,
    take_share,
)
from caffe.errors import CaffeError
from caffe.fillers import fill
from caffe.layers.base import Layer, Shape, register
from caffe.log import emit
from caffe.proto import caffe_pb2 as pb


class SourceLayer(Layer):
    """A layer without bottoms: its tops come from outside the net and have no gradient."""

    bottoms = (0, 0)
    tops = (1, None)
    source = True

    def run_backward(self, top, propagate_down, bottom, keep_graph: bool = True) -> None:
        """Nothing lies before a source."""


@register("Input")
class Input(SourceLayer):
    """Tops that the user fills: one shape for all, or one each."""

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        given = [tuple(s.dim) for s in self.layer_param.input_param.shape]
        self.check(
            len(given) in (1, self.num_tops),
            f"shape must be given once or once for each of {self.num_tops} top(s), "
            f"it is given {len(given)} time(s)",
        )
        return given * self.num_tops if len(given) == 1 else given

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Later reshapes leave the tops as the user shaped them."""
        if not hasattr(self, "_shaped"):
            super().reshape(bottom, top)
            self._shaped = True

    def run_forward(self, bottom, top, record: bool) -> None:
        """The tops hold what the user wrote."""


@register("DummyData")
class DummyData(SourceLayer):
    """Tops made by fillers; those that are not constant are filled anew in every pass."""

    def setup(self, shapes: Sequence[Shape]) -> None:
        given = list(self.layer_param.dummy_data_param.data_filler)
        self.check(
            len(given) in (0, 1, self.num_tops),
            f"data_filler must be given never, once, or once for each of {self.num_tops} top(s); "
            f"it is given {len(given)} times",
        )
        if len(given) < self.num_tops:
            given = (given or [pb.FillerParameter()]) * self.num_tops
        self.fillers = given
        self._filled: set[int] = set()

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        p = self.layer_param.dummy_data_param
        legacy = {name: getattr(p, name) for name in ("num", "channels", "height", "width")}
        if not any(legacy.values()):
            fields = {"shape": [tuple(s.dim) for s in p.shape]}
        else:
            self.check(not p.shape, "give either shape, or num, channels, height and width")
            fields = legacy
        for name, values in fields.items():
            self.check(
                len(values) in (1, self.num_tops),
                f"{name} must be given once, or once for each of {self.num_tops} top(s); "
                f"it is given {len(values)} times",
            )
        full = [v * self.num_tops if len(v) == 1 else v for v in map(list, fields.values())]
        return full[0] if "shape" in fields else list(zip(*full, strict=True))

    def run_forward(self, bottom, top: Sequence[Blob], record: bool) -> None:
        for i, (blob, filler) in enumerate(zip(top, self.fillers, strict=True)):
            if filler.type != "constant" or i not in self._filled:
                try:
                    fill(blob.tensor(), filler)
                except CaffeError as error:
                    raise CaffeError(f"{self.where} ({self.type}): {error}") from None
                self._filled.add(i)


class PrefetchingLayer(SourceLayer):
    """A source whose batches are made ahead in a thread; subclasses define `batches`."""

    tops = (1, 2)
    prefetch = 4

    def __init__(self, param: pb.LayerParameter) -> None:
        super().__init__(param)
        self._prefetcher: Prefetcher | None = None

    def batches(self) -> Iterator[Batch]:
        """Endless batches, as CPU tensors. Runs in the reading thread: must not refer to self."""
        raise AssertionError("set by the subclass")

    def run_forward(self, bottom, top: Sequence[Blob], record: bool) -> None:
        if self._prefetcher is None:
            self._prefetcher = Prefetcher(self.batches().__next__, self.prefetch)
        batch = self._prefetcher.get()
        target = device.current_device()
        for blob, values in zip(top, batch.tops, strict=False):
            blob.assign(values.to(target, non_blocking=True))

    def rng(self) -> np.random.Generator:
        """Random numbers of this layer and rank, from the process's seed."""
        entropy = [device.process_seed() & 0xFFFFFFFF, zlib.crc32(self.name.encode())]
        return np.random.default_rng([*entropy, device.solver_rank(), self.phase])


@register("Data")
class Data(PrefetchingLayer):
    """Records of an LMDB: top 0 the values (N, C, H, W), top 1 the integer label (N).

    `shuffle` (FuseNet) permutes the records anew each epoch. Several solvers share the records
    out by turns, and never see one twice in an epoch.
    """

    def __init__(self, param: pb.LayerParameter) -> None:
        super().__init__(param)
        p = param.data_param
        try:
            self.database = open_database(p.source, p.backend)
        except CaffeError as error:
            raise CaffeError(f"{self.where} (Data): {error}") from None
        emit("db_lmdb.cpp:35", f"Opened lmdb {p.source}")
        self.prefetch = p.prefetch

    def setup(self, shapes: Sequence[Shape]) -> None:
        p = self.layer_param.data_param
        self.check(p.batch_size > 0, "batch_size must be positive")
        key, value = next(self.database.items())
        where = f"{self.where} (Data): {p.source}: record {key!r}"
        try:
            transformer = RecordTransformer(
                self.layer_param.transform_param, self.phase, self.rng()
            )
            shape = transformer.shape(transformer.pixels(parse_datum(value, where), where))
        except CaffeError as error:
            self.check(self.name in str(error), str(error))
            raise
        self.shape = (p.batch_size, *shape)
        self.transformer = transformer
        emit("data_layer.cpp:45", f"output data size: {','.join(map(str, self.shape))}")

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        return [self.shape, self.shape[:1]][: self.num_tops]

    def batches(self) -> Iterator[Batch]:
        p = self.layer_param.data_param
        seed = device.process_seed()
        records = endless_records(self.database, p.shuffle, seed, _restarting)
        # In TEST only one of several solvers runs.
        alone = self.phase == pb.TEST
        rank, count = (0, 1) if alone else (device.solver_rank(), device.solver_count())
        skip = int(self.rng().integers(p.rand_skip)) if p.rand_skip else 0
        shared = take_share(records, rank, count, skip)
        return _datum_batches(shared, self.transformer, p.batch_size, f"{self.where}: {p.source}")


def _restarting() -> None:
    if device.root_solver():
        emit("data_layer.cpp:73", "Restarting data prefetching from start.")


def _datum_batches(
    records: Iterator[tuple[bytes, bytes]], transformer: RecordTransformer, size: int, where: str
) -> Iterator[Batch]:
    while True:
        data: torch.Tensor | None = None
        labels = torch.empty(size)
        for i in range(size):
            key, value = next(records)
            place = f"{where}: record {key!r}"
            datum = parse_datum(value, place)
            pixels = transformer.pixels(datum, place)
            try:
                shape = transformer.shape(pixels)
                if data is None:  # the first record of a batch sets its shape
                    data = torch.empty(size, *shape)
                if shape != tuple(data.shape[1:]):
                    raise CaffeError(
                        f"the record is {' x '.join(map(str, shape))}, others in its batch are "
                        f"{' x '.join(map(str, data.shape[1:]))} (channels x height x width)"
                    )
                transformer.apply(pixels, data[i])
            except CaffeError as error:
                raise CaffeError(f"{place}: {error}") from None
            labels[i] = datum.label
        assert data is not None
        yield Batch((data, labels))
