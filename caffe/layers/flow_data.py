"""FlowNet2's files: CustomData reads databases of images and flows, FLOWriter writes flows."""

from __future__ import annotations

import functools
import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from boundary.names import component
from boundary.reading import read_text
from boundary.writing import atomic_write
from caffe.blob import Blob
from caffe.data.datum import open_database, parse_datum
from caffe.data.order import endless
from caffe.data.prefetch import Batch
from caffe.errors import CaffeError
from caffe.formats.db import Database
from caffe.formats.files import read_blob
from caffe.layers.base import Layer, Shape, register
from caffe.layers.data import PrefetchingLayer
from caffe.layers.look import OUTPUT
from caffe.process.log import WARNING, emit
from caffe.proto import caffe_pb2 as pb

MAGIC = b"PIEH"  # 202021.25 as a float32
UNKNOWN = 32767  # the flow that stands for a missing one


@dataclass(frozen=True)
class Decoder:
    """How a record's bytes become values: the encoding of the channels up to each slice point.

    mean: (channels, height, width) or (channels, 1, 1), which is subtracted; then comes the scale.
    """

    ends: tuple[int, ...]  # of the slices but the last
    encodings: tuple[int, ...]
    mean: np.ndarray | None
    scale: float

    def slices(self, channels: int) -> Iterator[tuple[int, int]]:
        """(channels, encoding) of each slice."""
        encodings = (*self.encodings, *[pb.DataParameter.UINT8] * (len(self.ends) + 1))
        for start, end, encoding in zip(
            (0, *self.ends), (*self.ends, channels), encodings, strict=False
        ):
            yield end - start, encoding

    def values(self, datum: pb.Datum, where: str) -> np.ndarray:
        """(channels, height, width), float32. Raises CaffeError for bytes that do not fit."""
        c, h, w = datum.channels, datum.height, datum.width
        if min(c, h, w) < 1 or (self.ends and c <= self.ends[-1]):
            raise CaffeError(
                f"{where}: it is {c} x {h} x {w} (channels x height x width), expected pixels, and "
                f"channels behind the slice points {list(self.ends)}"
            )
        found = self._floats(datum) if datum.float_data else self._bytes(datum)
        if len(found) != c * h * w:
            raise CaffeError(f"{where}: its {len(datum.data)} bytes do not fit {c} x {h} x {w}")
        values = found.reshape(c, h, w)
        if self.mean is not None:
            if self.mean.shape not in ((c, 1, 1), (c, h, w)):
                raise CaffeError(f"{where}: the mean has the shape {self.mean.shape}")
            values = values - self.mean
        return values * np.float32(self.scale) if self.scale != 1 else values

    @staticmethod
    def _floats(datum: pb.Datum) -> np.ndarray:
        return np.array(datum.float_data, np.float32)

    def _bytes(self, datum: pb.Datum) -> np.ndarray:
        """The values of all slices, one after another; too few or many if the bytes do not fit."""
        rest, parts = memoryview(datum.data), []
        pixels = datum.height * datum.width
        for channels, encoding in self.slices(datum.channels):
            size = {
                pb.DataParameter.UINT8: channels * pixels,
                pb.DataParameter.UINT16FLOW: 2 * channels * pixels,
                pb.DataParameter.BOOL1: (pixels - 1) // 8 + 1,
            }[encoding]
            parts.append(_decoded(bytes(rest[:size]), encoding, pixels))
            rest = rest[size:]
        # What is left over is counted, so that it shows.
        return np.concatenate([*parts, np.zeros(len(rest), np.float32)])


def _decoded(data: bytes, encoding: int, pixels: int) -> np.ndarray:
    """The values in the bytes of one slice, float32."""
    if encoding == pb.DataParameter.UINT16FLOW:
        flow = np.frombuffer(data[: len(data) // 2 * 2], "<i2")
        return np.where(flow == UNKNOWN, np.nan, flow / np.float32(32)).astype(np.float32)
    raw = np.frombuffer(data, np.uint8)
    if encoding == pb.DataParameter.BOOL1:
        raw = np.unpackbits(raw, bitorder="little")[:pixels]
    return raw.astype(np.float32)


@register("CustomData")
class CustomData(PrefetchingLayer):
    """Records of FlowNet2's LMDBs, cut into a top for each slice (custom_data_layer.cpp).

    A record's channels are cut at data_param.slice_point; `encoding` says how those of each slice
    are stored: UINT8; UINT16FLOW, 1/32 of a pixel in 16 bits, 32767 being NaN; BOOL1, one channel
    of bits. Tops: (N, C, H, W) for each slice; without slice points perhaps the label, (N, 1, 1,
    1). range_start, range_end (included) and preselection_file, in which records have the number
    preselection_label, choose records. rand_permute takes them in a random order.
    """

    tops = (1, None)
    fork = "FlowNet2"
    judge = "worked cases"
    reads = ("data_param",)
    takes = tuple(
        f"data_param.{name}"
        for name in (
            *("preselection_file", "preselection_label", "range_start", "range_end"),
            *("rand_permute", "slice_point", "encoding", "subtract", "rand_permute_seed"),
            *("rand_permute_order", "block_size", "permute_every_iter"),
        )
    )
    differs = (
        "rand_permute takes a new order each epoch, from the net's seed; FlowNet2 one order from "
        "rand_permute_seed."
    )

    def setup(self, shapes: Sequence[Shape]) -> None:
        p = self.layer_param.data_param
        self.origin, self.prefetch, self.batch_size = p.source, p.prefetch, p.batch_size
        self.check(p.batch_size > 0, "batch_size must be positive")
        self.check(p.backend == pb.DataParameter.LMDB, "reads an LMDB: backend: LMDB is missing")
        self.check(not p.crop_size and not p.mirror, "takes no crop_size or mirror")
        self.check(not p.rand_skip, "takes no rand_skip")
        points = list(p.slice_point)
        self.check(
            all(a < b for a, b in zip([0, *points], points, strict=False)),
            f"slice_point is {points}, expected rising numbers",
        )
        expected = (1, 2) if not points else (len(points) + 1,)
        self.check(
            self.num_tops in expected,
            f"has {self.num_tops} tops, expected {len(points) + 1}, one for each slice",
        )
        with self.named():
            self.database = open_database(p.source, p.backend)
            self.keys = self._chosen(self.database.keys())
            self.decoder = self._decoder()
            first = parse_datum(self.database.get(self.keys[0]), f"{p.source}: the first record")
            values = self.decoder.values(first, f"{p.source}: the first record")
        self.shuffled = len(self.keys) if p.rand_permute else None
        self._set_shapes(values.shape)

    def _decoder(self) -> Decoder:
        p = self.layer_param.data_param
        mean = None
        if p.HasField("mean_file"):
            mean = read_blob(p.mean_file)[0]
        elif p.subtract:
            mean = np.array(p.subtract, np.float32).reshape(-1, 1, 1)
        points, encodings = tuple(p.slice_point), tuple(p.encoding)
        for i, (start, encoding) in enumerate(zip((0, *points), encodings, strict=False)):
            end = points[i] if i < len(points) else None
            self.check(
                encoding != pb.DataParameter.BOOL1 or end is None or end - start == 1,
                f"slice {i} is BOOL1, expected one channel",
            )
        return Decoder(points, encodings, mean, p.scale)

    def _chosen(self, keys: list[bytes]) -> list[bytes]:
        """The keys of the preselected records, and of these those in the range."""
        p = self.layer_param.data_param
        if p.HasField("preselection_file"):
            words = read_text(p.preselection_file, CaffeError).split()
            if len(words) != len(keys):
                raise CaffeError(
                    f"{p.preselection_file}: {len(words)} numbers for {len(keys)} records"
                )
            wanted = str(p.preselection_label)
            keys = [key for key, word in zip(keys, words, strict=True) if word == wanted]
        end = p.range_end + 1 if 0 <= p.range_end < len(keys) else len(keys)
        chosen = keys[max(p.range_start, 0) : end]
        if not chosen:
            raise CaffeError(f"{p.source}: no records are left to choose from")
        return chosen

    def _set_shapes(self, shape: Shape) -> None:
        n = self.batch_size
        counts = [count for count, _ in self.decoder.slices(shape[0])]
        self.shapes: list[Shape] = [(n, count, *shape[1:]) for count in counts]
        if len(self.shapes) < self.num_tops:
            self.shapes.append((n, 1, 1, 1))
        for i, each in enumerate(self.shapes):
            emit("custom_data_layer.cpp:516", f"output {i} data size: {','.join(map(str, each))}")

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        return self.shapes

    def contents(self) -> dict[str, int]:
        return {"records": len(self.keys)}

    def batches(self) -> Iterator[Batch]:
        read = functools.partial(_read, self.database, self.decoder, self.origin)
        places = endless(len(self.keys), self.turns(), self.shuffling())
        keys = self.keys
        records = (read(keys[i]) for _, i in places)
        counts = [count for count, _ in self.decoder.slices(sum(s[1] for s in self.shapes))]
        if not self.decoder.ends:
            counts = []
        return _batches(records, self.batch_size, counts, self.shapes)


def _read(database: Database, decoder: Decoder, origin: str, key: bytes) -> tuple[Any, float]:
    where = f"{origin}: record {key!r}"
    datum = parse_datum(database.get(key), where)
    return torch.from_numpy(np.ascontiguousarray(decoder.values(datum, where))), datum.label


def _batches(
    records: Iterator[tuple[torch.Tensor, float]],
    size: int,
    counts: Sequence[int],
    shapes: Sequence[Shape],
) -> Iterator[Batch]:
    """Batches of `size` records, cut into slices of `counts` channels; or whole, and labels."""
    while True:
        taken = [next(records) for _ in range(size)]
        first = taken[0][0].shape
        for values, _ in taken:
            if values.shape != first or first[1:] != shapes[0][2:]:
                raise CaffeError(
                    f"a record is {tuple(values.shape)}, others are {tuple(first)} (channels, "
                    "height, width)"
                )
        values = torch.stack([values for values, _ in taken])
        labels = torch.tensor([label for _, label in taken]).float().view(-1, 1, 1, 1)
        tops = values.split(list(counts), 1) if counts else (values, labels)
        yield Batch([top.contiguous() for top in tops])


@register("FLOWriter")
class FLOWriter(Layer):
    """Writes each flow of its bottom into a file (FlowNet2's flowriter_layer.cpp).

    Bottom: (N, 2, H, W), u before v. The file is `file`, or in `folder` prefix0000012suffix.flo for
    the solver's iteration 12, 0 without a solver; for several flows prefix0000012(003)suffix.flo.
    """

    tops = (0, 0)
    labels = (0,)
    look = OUTPUT
    fork = "FlowNet2"
    judge = "worked cases"
    reads = ("writer_param",)
    takes = tuple(f"writer_param.{name}" for name in ("file", "folder", "prefix", "suffix"))
    differs = "A folder that is not there is not made: a warning says so, and nothing is written."

    def setup(self, shapes: Sequence[Shape]) -> None:
        p = self.layer_param.writer_param
        self.iteration = 0
        folder = os.path.dirname(p.file) if p.file else p.folder
        self.writes = os.path.isdir(folder or ".")
        if not self.writes:
            emit(
                "flowriter_layer.cpp:64",
                f"{self.where}: writes nothing: there is no folder {folder!r}",
                WARNING,
            )

    def at_iteration(self, number: int) -> None:
        self.iteration = number

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        (shape,) = shapes
        self.check(
            len(shape) == 4 and shape[1] == 2,
            f"bottom has the shape {shape}, expected flows (N, 2, H, W)",
        )
        return []

    def forward_blobs(self, bottom: Sequence[Blob], top: Sequence[Blob], record: bool) -> None:
        self.infer_shapes([b.shape for b in bottom])
        if not self.writes:
            return
        flows = bottom[0].data
        for n, flow in enumerate(flows):
            path = self._path(n, len(flows))
            height, width = flow.shape[1:]
            with self.named(), atomic_write(path, CaffeError) as file:
                data = np.ascontiguousarray(flow.transpose(1, 2, 0), "<f4").tobytes()
                file.write_bytes(MAGIC + struct.pack("<2i", width, height) + data)

    def backward_blobs(self, top, propagate_down, bottom, keep_graph: bool = True) -> None:
        """Nothing comes back from a file."""

    def _path(self, number: int, count: int) -> str:
        p = self.layer_param.writer_param
        if p.file:
            return p.file
        part = f"({number:03d})" if count > 1 else ""
        name = component(f"{p.prefix}{self.iteration:07d}{part}{p.suffix}.flo")
        return os.path.join(p.folder, name)
