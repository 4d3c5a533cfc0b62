"""Layers that bring data into a net: from the user, from fillers, from a database."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from caffe.blob import Blob
from caffe.data.datum import open_database, parse_datum
from caffe.data.order import RecordRandom, Shuffling, Turns, endless_records
from caffe.data.prefetch import Batch, Prefetcher
from caffe.data.transform import RecordTransformer
from caffe.errors import CaffeError
from caffe.formats.onnx import Graph, Names, Value
from caffe.layers.base import Layer, Shape, register
from caffe.layers.fillers import fill
from caffe.layers.look import SOURCE
from caffe.process import device, ranks, seeds
from caffe.process.log import WARNING, emit
from caffe.proto import caffe_pb2 as pb


class SourceLayer(Layer):
    """A layer without bottoms: its tops come from outside the net and have no gradient."""

    bottoms = (0, 0)
    tops = (1, None)
    source = True
    look = SOURCE
    _shaped = False

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Shape the tops once; later they keep the shape that the user or the last batch gave."""
        if not self._shaped:
            super().reshape(bottom, top)
            self._shaped = True

    def backward_blobs(self, top, propagate_down, bottom, keep_graph: bool = True) -> None:
        """Nothing lies before a source."""


@register("Input")
class Input(SourceLayer):
    """Tops that the user fills. `shape` is given once for all, once each, or not at all."""

    reads = ("input_param",)
    is_input = True

    def setup(self, shapes: Sequence[Shape]) -> None:
        given = [tuple(s.dim) for s in self.layer_param.input_param.shape]
        self.check(
            len(given) in (0, 1, self.num_tops),
            f"shape must be given never, once, or once for each of {self.num_tops} top(s); "
            f"it is given {len(given)} times",
        )
        self.shapes = given if len(given) == self.num_tops else (given or [()]) * self.num_tops

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        return self.shapes

    def forward_blobs(self, bottom, top, record: bool) -> None:
        """The tops hold what the user wrote."""


@register("DummyData")
class DummyData(SourceLayer):
    """Tops made by fillers. Constant ones are filled once, others in every pass."""

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
        self.shapes = self._read_shapes()
        self._filled: set[int] = set()

    def _read_shapes(self) -> list[Shape]:
        """The tops' shapes, from `shape` or from the four fields of older nets."""
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

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        return self.shapes

    def onnx(self, graph: Graph, *bottoms: Value) -> Names:
        constant = all(filler.type == "constant" for filler in self.fillers)
        self.check(constant, "only constant fillers have an ONNX form")
        return [
            graph.constant(np.full(shape, filler.value))
            for shape, filler in zip(self.shapes, self.fillers, strict=True)
        ]

    def fillers_of_tops(self) -> Sequence[pb.FillerParameter]:
        return self.fillers

    def forward_blobs(self, bottom, top: Sequence[Blob], record: bool) -> None:
        for i, (blob, filler) in enumerate(zip(top, self.fillers, strict=True)):
            if filler.type != "constant" or i not in self._filled:
                with self.named():
                    fill(blob.tensor(), filler)
                self._filled.add(i)


class PrefetchingLayer(SourceLayer):
    """A source that reads batches ahead in a thread; subclasses define `batches` and `contents`.

    Records are numbered over all solvers that share them, so the seed and the next record's number
    are enough to resume. Subclasses set `origin`, the path that they read, `batch_size`, and, if
    they have them, `prefetch`, `rand_skip` and `shuffled`.
    """

    tops = (1, 2)
    prefetch = 4
    batch_size = 1
    rand_skip = 0

    def __init__(self, param: pb.LayerParameter) -> None:
        super().__init__(param)
        self._prefetcher: Prefetcher | None = None
        self._next: int | None = None  # the next record's number
        self._seed: int | None = None
        self._began_with = ""  # the path that a resumed run read when it began
        self._named_order = False  # whether the run began when the order depended on that path

    def batches(self) -> Iterator[Batch]:
        """Endless batches of CPU tensors. The reading thread runs this, so the generator must not
        hold `self`: the thread would keep the layer alive.
        """
        raise AssertionError("set by the subclass")

    def contents(self) -> dict[str, int]:
        """How much the source holds; go_on() refuses a source that holds another amount."""
        raise AssertionError("set by the subclass")

    def forward_blobs(self, bottom, top: Sequence[Blob], record: bool) -> None:
        target = device.current_device()
        if self._prefetcher is None:
            make = self.batches().__next__
            pinned = target.type == "cuda"  # pinned memory is copied while the GPU computes
            self._prefetcher = Prefetcher((lambda: make().pin()) if pinned else make, self.prefetch)
        batch = self._prefetcher.get()
        self._next = self.next_record() + self.batch_size * self._readers()[1]
        for blob, values in zip(top, batch.tops, strict=False):
            blob.assign(values.to(target, non_blocking=True))

    def scratch(self, shapes: Sequence[Shape]) -> int:
        """The values of the batches that are read ahead."""
        return self.prefetch * sum(math.prod(shape) for shape in self.infer_shapes(shapes))

    @property
    def waited(self) -> float:
        """Seconds that passes waited for batches so far."""
        return self._prefetcher.waited if self._prefetcher else 0.0

    # -- helpers for subclasses ---------------------------------------------------------------

    @property
    def seed(self) -> int:
        """The seed of order and random numbers, drawn when it is first asked for."""
        if self._seed is None:
            self._seed = seeds.common_seed()
        return self._seed

    def shuffling(self) -> Shuffling | None:
        """The order of the records; None: as they lie in the source."""
        if self.shuffled is None:
            return None
        return Shuffling(self.seed, self._began_with if self._named_order else "")

    def turns(self) -> Turns:
        """The records that this solver reads from now on. In TEST only one solver runs."""
        rank, count = self._readers()
        return Turns(self.next_record() + rank, count)

    def random(self) -> RecordRandom:
        """The random numbers of this layer's records."""
        return RecordRandom(self.seed, self.name, self.phase)

    def make_transformer(self) -> RecordTransformer:
        with self.named():
            return RecordTransformer(self.layer_param.transform_param, self.phase)

    # -- resuming -----------------------------------------------------------------------------

    def next_record(self) -> int:
        """The next record's number; the first one is drawn at random below rand_skip.

        Layers with one rand_skip draw the same number, so that they stay in step.
        """
        if self._next is None:
            rng, skip = np.random.default_rng(self.seed & 0xFFFFFFFF), self.rand_skip
            self._next = int(rng.integers(skip)) if skip else 0
        return self._next

    def position(self) -> dict[str, Any]:
        place = {"next": self.next_record(), "seed": self.seed}
        place |= {"source": self._began_with or self.origin, "contents": self.contents()}
        return place if self._named_order else {**place, "order": "seed"}

    def go_on(self, position: dict[str, Any]) -> None:
        then, now = position["contents"], self.contents()
        if then != now:
            raise CaffeError(
                f"{position['source']} held {_listed(then)}, {self.origin} holds {_listed(now)}"
            )
        if self._prefetcher is not None:
            self._prefetcher.close()
        self._prefetcher = None
        self._next, self._seed = int(position["next"]), int(position["seed"])
        self._began_with = str(position["source"])
        self._named_order = "order" not in position  # as in snapshots of earlier versions

    def _readers(self) -> tuple[int, int]:
        """This reader's rank, and the number of readers that share the records."""
        return (0, 1) if self.phase == pb.TEST else (ranks.solver_rank(), ranks.solver_count())


def _listed(contents: dict[str, int]) -> str:
    return ", ".join(f"{count} {what}" for what, count in contents.items())


@register("Data")
class Data(PrefetchingLayer):
    """Records of a database: top 0 the values (N, C, H, W), top 1 the integer label (N).

    `shuffle` (FuseNet) permutes the records anew each epoch. Several solvers take the records in
    turns, so none is seen twice in an epoch (data_layer.cpp).
    """

    reads = ("data_param", "transform_param")
    differs = (
        "LevelDB (the default of `backend`) needs the extra fusenet[leveldb]. "
        "`shuffle` is FuseNet's; here it works on LevelDBs, too."
    )

    @classmethod
    def edge(cls, param: pb.LayerParameter) -> str:
        return f"Batch {param.data_param.batch_size}"

    def __init__(self, param: pb.LayerParameter) -> None:
        super().__init__(param)
        p = param.data_param
        with self.named():
            self.database = open_database(p.source, p.backend)
        kind = pb.DataParameter.DB.Name(p.backend).lower()
        emit(f"db_{kind}.cpp:{35 if kind == 'lmdb' else 18}", f"Opened {kind} {p.source}")
        self.origin, self.prefetch = p.source, p.prefetch
        self.batch_size, self.rand_skip = p.batch_size, p.rand_skip
        self.shuffled = len(self.database) if p.shuffle else None

    def setup(self, shapes: Sequence[Shape]) -> None:
        p = self.layer_param.data_param
        self.check(p.batch_size > 0, "batch_size must be positive")
        self.transformer = self.make_transformer()
        with self.named():
            records = ((0, *record) for record in self.database.items())
            first = next(_datums(records, self.transformer, p.source))
            self.shape = (p.batch_size, *transformed_shape(first, self.transformer))
        emit("data_layer.cpp:45", f"output data size: {','.join(map(str, self.shape))}")

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        return [self.shape, self.shape[:1]][: self.num_tops]

    def contents(self) -> dict[str, int]:
        return {"records": len(self.database)}

    def batches(self) -> Iterator[Batch]:
        p = self.layer_param.data_param
        records = endless_records(self.database, self.turns(), self.shuffling(), _restarting)
        where = f"{self.where} (Data): {p.source}"
        samples = _datums(records, self.transformer, where)
        return in_batches(samples, self.transformer, self.random(), p.batch_size)


def _restarting() -> None:
    ranks.announce("data_layer.cpp:73", "Restarting data prefetching from start.")


class Sample(NamedTuple):
    """A record before its transformation."""

    number: int  # in the stream of records
    where: str  # names it in messages
    pixels: np.ndarray  # channels x height x width
    label: float


def _datums(
    records: Iterable[tuple[int, bytes, bytes]], transformer: RecordTransformer, where: str
) -> Iterator[Sample]:
    for number, key, value in records:
        place = f"{where}: record {key!r}"
        datum = parse_datum(value, place)
        yield Sample(number, place, transformer.pixels(datum, place), datum.label)


def transformed_shape(sample: Sample, transformer: RecordTransformer) -> Shape:
    """Channels, height and width after cropping."""
    try:
        return transformer.shape(sample.pixels)
    except CaffeError as error:
        raise CaffeError(f"{sample.where}: {error}") from None


def in_batches(
    samples: Iterator[Sample], transformer: RecordTransformer, random: RecordRandom, size: int
) -> Iterator[Batch]:
    """Transformed samples, `size` at a time; the first of a batch sets its shape."""
    while True:
        data: torch.Tensor | None = None
        labels = torch.empty(size)
        for i in range(size):
            sample = next(samples)
            shape = transformed_shape(sample, transformer)
            if data is None:
                data = torch.empty(size, *shape)
            if shape != tuple(data.shape[1:]):
                raise CaffeError(
                    f"{sample.where}: it is {' x '.join(map(str, shape))}, others in its batch "
                    f"are {' x '.join(map(str, data.shape[1:]))} (channels x height x width)"
                )
            rng = random.at(sample.number) if transformer.random else None
            try:
                transformer.apply(sample.pixels, data[i], rng)
            except CaffeError as error:
                raise CaffeError(f"{sample.where}: {error}") from None
            labels[i] = sample.label
        assert data is not None
        yield Batch((data, labels))


@register("MemoryData")
class MemoryData(SourceLayer):
    """Batches of the arrays given to Net.set_input_arrays: values (N, C, H, W), labels (N)."""

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
        self._later: dict[str, Any] | None = None  # a position in arrays that are not here yet

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        return [self.shape, self.shape[:1]]

    def set_arrays(self, data: np.ndarray, labels: np.ndarray) -> None:
        """Take batches from these two arrays from now on, from their start. They are not copied.

        After a snapshot was restored, the first arrays with as many samples as then go on where the
        snapshot was taken.

        data: float32, samples x channels x height x width as the layer says; the number of samples
        is a multiple of batch_size. labels: float32, one for each sample. Raises CaffeError if they
        do not fit.
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
        # Caffe's layer gives its labels four axes in passes and one axis in its setup.
        self._arrays = torch.from_numpy(data), torch.from_numpy(labels.reshape(-1, 1, 1, 1))
        later, self._later = self._later, None
        self._position = later["next"] if later and later["samples"] == len(data) else 0

    def position(self) -> dict[str, Any] | None:
        if self._arrays is None:
            return None
        return {"next": self._position, "samples": len(self._arrays[0])}

    def go_on(self, position: dict[str, Any]) -> None:
        now = None if self._arrays is None else len(self._arrays[0])
        if now not in (None, position["samples"]):
            raise CaffeError(f"there were {position['samples']} samples, there are {now}")
        if now is None:
            self._later = position
        else:
            self._position = position["next"]

    def forward_blobs(self, bottom, top: Sequence[Blob], record: bool) -> None:
        self.check(self._arrays is not None, "has no data so far: call Net.set_input_arrays first")
        assert self._arrays is not None
        size, target = self.shape[0], device.current_device()
        for blob, values in zip(top, self._arrays, strict=True):
            piece = values[self._position : self._position + size]
            blob.assign(piece.to(target), borrowed=True)
        self._position = (self._position + size) % len(self._arrays[0])
