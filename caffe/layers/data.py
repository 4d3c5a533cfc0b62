"""Layers that bring data into a net: from the user, from fillers, from a database."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from typing import Any

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
from caffe.log import WARNING, emit
from caffe.proto import caffe_pb2 as pb


class SourceLayer(Layer):
    """A layer without bottoms: its tops come from outside the net and have no gradient."""

    bottoms = (0, 0)
    tops = (1, None)
    source = True
    _shaped = False

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Shape the tops once; later they are as the user, or the last batch, left them."""
        if not self._shaped:
            super().reshape(bottom, top)
            self._shaped = True

    def run_backward(self, top, propagate_down, bottom, keep_graph: bool = True) -> None:
        """Nothing lies before a source."""


@register("Input")
class Input(SourceLayer):
    """Tops that the user fills: one shape for all, one each, or none so far."""

    reads = ("input_param",)

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        given = [tuple(s.dim) for s in self.layer_param.input_param.shape]
        self.check(
            len(given) in (0, 1, self.num_tops),
            f"shape must be given never, once, or once for each of {self.num_tops} top(s); "
            f"it is given {len(given)} times",
        )
        return given if len(given) == self.num_tops else (given or [()]) * self.num_tops

    def run_forward(self, bottom, top, record: bool) -> None:
        """The tops hold what the user wrote."""


@register("DummyData")
class DummyData(SourceLayer):
    """Tops made by fillers; those that are not constant are filled anew in every pass."""

    reads = ("dummy_data_param",)

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
                with self.named():
                    fill(blob.tensor(), filler)
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

    def share(self, records: Iterator[Any], rand_skip: int = 0) -> Iterator[Any]:
        """What falls to this of several solvers, after a drawn number of records below rand_skip.

        In TEST only one solver runs.
        """
        alone = self.phase == pb.TEST
        rank, count = (0, 1) if alone else (device.solver_rank(), device.solver_count())
        # The same for all, so that they go on sharing the records out.
        skip = int(self.common_rng().integers(rand_skip)) if rand_skip else 0
        return take_share(records, rank, count, skip)

    def make_transformer(self) -> RecordTransformer:
        with self.named():
            return RecordTransformer(self.layer_param.transform_param, self.phase, self.rng())

    def common_rng(self) -> np.random.Generator:
        """Random numbers of this layer, the same in each of several solvers."""
        entropy = [device.common_seed() & 0xFFFFFFFF, zlib.crc32(self.name.encode())]
        return np.random.default_rng(entropy)

    def rng(self) -> np.random.Generator:
        """Random numbers of this layer and rank, from the process's seed."""
        entropy = [device.process_seed() & 0xFFFFFFFF, zlib.crc32(self.name.encode())]
        return np.random.default_rng([*entropy, device.solver_rank(), self.phase])


def read_text(path: str) -> str:
    """A text file's contents, bytes of any encoding. Raises CaffeError if it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except OSError as error:
        raise CaffeError(f"{path}: cannot be read: {error.strerror}") from None


@register("Data")
class Data(PrefetchingLayer):
    """Records of a database: top 0 the values (N, C, H, W), top 1 the integer label (N).

    `shuffle` (FuseNet) permutes the records anew each epoch. Several solvers share the records
    out by turns, and never see one twice in an epoch.
    """

    reads = ("data_param", "transform_param")
    differs = (
        "LevelDB (the default of `backend`) needs the extra fusenet[leveldb]. "
        "`shuffle` is FuseNet's; here it works on LevelDBs, too."
    )

    def __init__(self, param: pb.LayerParameter) -> None:
        super().__init__(param)
        p = param.data_param
        with self.named():
            self.database = open_database(p.source, p.backend)
        kind = pb.DataParameter.DB.Name(p.backend).lower()
        emit(f"db_{kind}.cpp:{35 if kind == 'lmdb' else 18}", f"Opened {kind} {p.source}")
        self.prefetch = p.prefetch

    def setup(self, shapes: Sequence[Shape]) -> None:
        p = self.layer_param.data_param
        self.check(p.batch_size > 0, "batch_size must be positive")
        self.transformer = self.make_transformer()
        with self.named():
            first = next(_datums(self.database.items(), self.transformer, p.source))
            self.shape = (p.batch_size, *transformed_shape(first, self.transformer))
        emit("data_layer.cpp:45", f"output data size: {','.join(map(str, self.shape))}")

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        return [self.shape, self.shape[:1]][: self.num_tops]

    def batches(self) -> Iterator[Batch]:
        p = self.layer_param.data_param
        seed = device.common_seed()
        records = endless_records(self.database, p.shuffle, seed, _restarting)
        where = f"{self.where} (Data): {p.source}"
        samples = _datums(self.share(records, p.rand_skip), self.transformer, where)
        return in_batches(samples, self.transformer, p.batch_size)


def _restarting() -> None:
    device.announce("data_layer.cpp:73", "Restarting data prefetching from start.")


def _datums(
    records: Iterator[tuple[bytes, bytes]], transformer: RecordTransformer, where: str
) -> Iterator[Sample]:
    for key, value in records:
        place = f"{where}: record {key!r}"
        datum = parse_datum(value, place)
        yield place, transformer.pixels(datum, place), datum.label


Sample = tuple[str, np.ndarray, float]  # where it is from, channels x height x width, label


def transformed_shape(sample: Sample, transformer: RecordTransformer) -> Shape:
    """Channels, height and width after cropping."""
    where, pixels, _ = sample
    try:
        return transformer.shape(pixels)
    except CaffeError as error:
        raise CaffeError(f"{where}: {error}") from None


def in_batches(
    samples: Iterator[Sample], transformer: RecordTransformer, size: int
) -> Iterator[Batch]:
    """Transformed samples, `size` at a time; the first of a batch sets its shape."""
    while True:
        data: torch.Tensor | None = None
        labels = torch.empty(size)
        for i in range(size):
            where, pixels, label = sample = next(samples)
            shape = transformed_shape(sample, transformer)
            if data is None:
                data = torch.empty(size, *shape)
            if shape != tuple(data.shape[1:]):
                raise CaffeError(
                    f"{where}: it is {' x '.join(map(str, shape))}, others in its batch are "
                    f"{' x '.join(map(str, data.shape[1:]))} (channels x height x width)"
                )
            try:
                transformer.apply(pixels, data[i])
            except CaffeError as error:
                raise CaffeError(f"{where}: {error}") from None
            labels[i] = label
        assert data is not None
        yield Batch((data, labels))


@register("MemoryData")
class MemoryData(SourceLayer):
    """Batches from arrays in memory, which Net.set_input_arrays hands over; (N, C, H, W), (N)."""

    tops = (2, 2)
    reads = ("memory_data_param",)

    def setup(self, shapes: Sequence[Shape]) -> None:
        p = self.layer_param.memory_data_param
        self.shape = (p.batch_size, p.channels, p.height, p.width)
        self.check(
            min(self.shape) > 0,
            f"batch_size, channels, height and width must be positive: {self.shape}",
        )
        self._arrays: tuple[torch.Tensor, torch.Tensor] | None = None
        self._position = 0

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        return [self.shape, self.shape[:1]]

    def set_arrays(self, data: np.ndarray, labels: np.ndarray) -> None:
        """Take batches from these two from now on, from the start; they are not copied.

        data: float32, samples x channels x height x width as the layer says, with the samples a
        multiple of batch_size. labels: float32, one a sample. Raises CaffeError if they do not fit.
        """
        size = self.shape[0]
        for what, array in (("data", data), ("labels", labels)):
            self.check(
                isinstance(array, np.ndarray)
                and array.dtype == np.float32
                and array.flags.c_contiguous,
                f"{what} must be a C-contiguous float32 array",
            )
        self.check(
            data.ndim == 4 and data.shape[1:] == self.shape[1:],
            f"data has the shape {data.shape}, expected (samples, "
            f"{', '.join(map(str, self.shape[1:]))})",
        )
        self.check(
            labels.size == len(labels) == len(data),
            f"labels have the shape {labels.shape}, expected one for each of {len(data)} samples",
        )
        self.check(
            len(data) > 0 and len(data) % size == 0,
            f"{len(data)} samples are no multiple of batch_size, {size}",
        )
        if self.layer_param.HasField("transform_param"):
            emit(
                "memory_data_layer.cpp:92",
                "MemoryData does not transform array data on Reset()",
                WARNING,
            )
        self._arrays = torch.from_numpy(data), torch.from_numpy(labels.reshape(-1, 1, 1, 1))
        self._position = 0

    def run_forward(self, bottom, top: Sequence[Blob], record: bool) -> None:
        self.check(self._arrays is not None, "has no data so far: call Net.set_input_arrays first")
        assert self._arrays is not None
        size, target = self.shape[0], device.current_device()
        for blob, values in zip(top, self._arrays, strict=True):
            piece = values[self._position : self._position + size]
            blob.assign(piece.to(target), borrowed=True)
        self._position = (self._position + size) % len(self._arrays[0])
