"""AnnotatedData: pictures with boxes from a database (SSD)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch

from caffe.data.annotated import SAME, AnnotatedTransformer, box_rows, parse_annotated
from caffe.data.order import RecordRandom, endless_records
from caffe.data.prefetch import Batch
from caffe.errors import CaffeError
from caffe.layers.base import Shape, register
from caffe.layers.data import Data
from caffe.process import ranks
from caffe.process.log import emit
from caffe.proto import caffe_pb2 as pb

MOST = 300  # boxes of a picture in MobileNet-YOLO's lists


class Sample(NamedTuple):
    """A record before its transformation."""

    number: int  # in the stream of records
    where: str  # names it in messages
    pixels: np.ndarray  # channels x height x width
    rows: np.ndarray  # boxes, (n, 7)
    label: int


@register("AnnotatedData")
class AnnotatedData(Data):
    """Pictures and their boxes: top 0 the values (N, C, H, W), top 1 the boxes (1, 1, n, 8).

    The records are AnnotatedDatums. A row is the picture's place in the batch, label, instance,
    xmin, ymin, xmax, ymax as fractions of the picture, difficult; a batch without boxes has a row
    of -1. With yolo_data_type: 1 (MobileNet-YOLO) top 1 is (N, 1, 300, 5), a list of class, x, y,
    width and height for each picture, and without samplers yolo_data_jitter crops at random.
    Records without a type of annotation give the label (N), as Data's. The picture and its
    boxes change as caffe/data/annotated.py says: distort_param, expand_param, a crop by a
    batch_sampler, resize_param, noise_param, crop, mirror (annotated_data_layer.cpp; Liu et al.,
    2016).
    """

    fork = "SSD, NVCaffe, MobileNet-YOLO"
    judge = "worked cases"
    reads = ("data_param", "transform_param", "annotated_data_param")
    takes = (
        *(
            f"transform_param.{f}"
            for f in ("resize_param", "noise_param", "emit_constraint", "crop_h", "crop_w")
        ),
        *("transform_param.distort_param", "transform_param.expand_param"),
        *(f"annotated_data_param.{f}" for f in ("batch_sampler", "label_map_file", "anno_type")),
        *(f"annotated_data_param.yolo_data_{f}" for f in ("type", "jitter")),
        "annotated_data_param.train_diffcult",
    )
    differs = (
        "The random numbers are others. Pictures are not made JPEGs between the steps. Records of "
        "bytes that are no encoded pictures are resized and distorted, too. label_map_file has no "
        "effect, as in SSD."
    )

    def setup(self, shapes: Sequence[Shape]) -> None:
        p = self.layer_param
        self.check(p.data_param.batch_size > 0, "batch_size must be positive")
        small = pb.ResizeParameter.FIT_SMALL_SIZE
        self.check(
            p.data_param.batch_size == 1
            or all(size.resize_mode != small for size in p.transform_param.resize_param),
            "FIT_SMALL_SIZE needs a batch_size of 1, as pictures keep the ratio of their sides",
        )
        with self.named():
            given = p.annotated_data_param
            self.listed = given.yolo_data_type == 1
            jitters = self.listed or given.HasField("yolo_data_jitter")
            jitter = given.yolo_data_jitter if jitters else 0
            samplers = list(given.batch_sampler)
            self.pictures = AnnotatedTransformer(p.transform_param, self.phase, samplers, jitter)
            key, value = next(self.database.items())
            where = f"{p.data_param.source}: record {key!r}"
            first = parse_annotated(value, where)
            self.kind = given.anno_type if given.HasField("anno_type") else None
            if self.kind is None and first.HasField("type"):
                self.kind = first.type
            self.boxed = self.kind is not None
            if self.boxed and self.kind != pb.AnnotatedDatum.BBOX:
                name = pb.AnnotatedDatum.AnnotationType.Name(self.kind)
                raise CaffeError(f"{where}: annotations of type {name}, expected BBOX")
            pixels = self.pictures.pixels(first.datum, where)
            self.shape = (p.data_param.batch_size, *self.pictures.shape(pixels))
            self.first = max(len(box_rows(first)), 1)
        emit("annotated_data_layer.cpp:60", f"output data size: {','.join(map(str, self.shape))}")

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        label = (1, 1, self.first, 8) if self.boxed else self.shape[:1]
        if self.boxed and self.listed:
            label = (self.shape[0], 1, MOST, 5)
        return [self.shape, label][: self.num_tops]

    def batches(self) -> Iterator[Batch]:
        p = self.layer_param.data_param
        records = endless_records(self.database, self.turns(), self.shuffling(), _restarting)
        where = f"{self.where} (AnnotatedData): {p.source}"
        given = self.layer_param.annotated_data_param.HasField("anno_type")
        samples = _samples(records, self.pictures, where, None if given else self.kind)
        made = None
        if self.boxed:
            made = _lists if self.listed else _boxes
            if self.listed and not self.layer_param.annotated_data_param.train_diffcult:
                made = _easy_lists
        return _in_batches(samples, self.pictures, self.random(), p.batch_size, made)


def _restarting() -> None:
    ranks.announce("annotated_data_layer.cpp:1", "Restarting data prefetching from start.")


def _samples(
    records: Iterable[tuple[int, bytes, bytes]],
    transformer: AnnotatedTransformer,
    where: str,
    kind: int | None,
) -> Iterator[Sample]:
    """The records; kind: what type their annotations must have, None: any."""
    for number, key, value in records:
        place = f"{where}: record {key!r}"
        annotated = parse_annotated(value, place)
        if kind is not None and annotated.HasField("type") and annotated.type != kind:
            raise CaffeError(f"{place}: its annotations are of another type than the others'")
        datum = annotated.datum
        pixels = transformer.pixels(datum, place)
        yield Sample(number, place, pixels, box_rows(annotated), datum.label)


_CHOICES = 2**62  # numbers from here on are no record's: their random numbers choose a size


def _in_batches(
    samples: Iterator[Sample],
    transformer: AnnotatedTransformer,
    random: RecordRandom,
    size: int,
    made: Callable[[list[np.ndarray]], torch.Tensor] | None,
) -> Iterator[Batch]:
    """Transformed samples, `size` at a time; the first of a batch sets its shape. made: the second
    top from the boxes of each picture; None: it is the labels.
    """
    while True:
        data: torch.Tensor | None = None
        labels, found = torch.empty(size), []
        for i in range(size):
            sample = next(samples)
            if i == 0:
                target = transformer.choose(random.at(_CHOICES + sample.number // size // SAME))
            try:
                values, rows = transformer.transform(
                    sample.pixels, sample.rows, random.at(sample.number), target
                )
            except CaffeError as error:
                raise CaffeError(f"{sample.where}: {error}") from None
            if data is None:
                data = torch.empty(size, *values.shape)
            if values.shape != tuple(data.shape[1:]):
                raise CaffeError(
                    f"{sample.where}: it is {' x '.join(map(str, values.shape))}, others in its "
                    f"batch are {' x '.join(map(str, data.shape[1:]))} (channels x height x "
                    "width); resize_param makes them alike"
                )
            data[i] = torch.from_numpy(values)
            labels[i] = sample.label
            found.append(rows)
        assert data is not None
        yield Batch((data, labels if made is None else made(found)))


def _boxes(found: list[np.ndarray]) -> torch.Tensor:
    """The boxes of a batch, (1, 1, n, 8)."""
    rows = np.concatenate([np.insert(rows, 0, i, axis=1) for i, rows in enumerate(found)])
    if not len(rows):
        rows = np.full((1, 8), -1.0)
    return torch.from_numpy(rows.astype(np.float32))[None, None]


def _lists(found: list[np.ndarray]) -> torch.Tensor:
    """Class, centre and size of each picture's boxes, (N, 1, MOST, 5), zeros behind them; the
    class is the label less one (MobileNet-YOLO).
    """
    lists = torch.zeros(len(found), 1, MOST, 5)
    for i, rows in enumerate(found):
        corners = rows[:MOST, 2:6]
        center, size = (corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]
        values = np.concatenate([rows[:MOST, :1] - 1, center, size], 1)
        lists[i, 0, : len(values)] = torch.from_numpy(values)
    return lists


def _easy_lists(found: list[np.ndarray]) -> torch.Tensor:
    """_lists without the boxes that are difficult."""
    return _lists([rows[rows[:, 6] == 0] for rows in found])
