"""Layers that read and write HDF5 files."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from boundary.reading import read_text
from caffe.blob import Blob
from caffe.data.order import Shuffling, Turns, epoch_order
from caffe.data.prefetch import Batch
from caffe.errors import CaffeError
from caffe.formats.files import is_hdf5
from caffe.layers.base import Layer, Shape, register
from caffe.layers.data import PrefetchingLayer
from caffe.process.log import emit

if TYPE_CHECKING:
    from boundary.hdf5 import Hdf5

KEPT = 2**26  # bytes of small files that stay in memory
_SLACK = 2**16  # bytes, for what HDF5 keeps beside the values


@register("HDF5Data")
class HDF5Data(PrefetchingLayer):
    """Rows of the HDF5 files that the text file `source` lists; each top is a dataset by its name.

    A top has the shape (batch_size, *shape of a row). `shuffle` permutes the files and the rows of
    each. Several solvers take the rows in turns (hdf5_data_layer.cpp).
    """

    tops = (1, None)
    reads = ("hdf5_data_param",)

    def setup(self, shapes: Sequence[Shape]) -> None:
        p = self.layer_param.hdf5_data_param
        self.check(not self.layer_param.HasField("transform_param"), "does not transform data")
        self.check(p.batch_size > 0, "batch_size must be positive")
        emit("hdf5_data_layer.cpp:81", f"Loading list of HDF5 filenames from: {p.source}")
        self.names = list(self.layer_param.top)
        self.origin, self.batch_size = p.source, p.batch_size
        with self.named():
            self.files = _read_list(p.source)
            self.rows = _row_shapes(self.files[0], self.names)
        self.shuffled = 0 if p.shuffle else None  # the other files' rows are not counted so far
        emit("hdf5_data_layer.cpp:95", f"Number of HDF5 files: {len(self.files)}")

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        size = self.layer_param.hdf5_data_param.batch_size
        return [(size, *row) for row in self.rows]

    def contents(self) -> dict[str, int]:
        return {"files": len(self.files)}

    def batches(self) -> Iterator[Batch]:
        p = self.layer_param.hdf5_data_param
        where = f"{self.where} (HDF5Data)"
        files = [_File(path, self.names, self.rows, where) for path in self.files]
        return _row_batches(_endless_rows(files, self.turns(), self.shuffling()), p.batch_size)


def _read_list(source: str) -> list[str]:
    if is_hdf5(source):
        raise CaffeError(
            f"{source}: is an HDF5 file itself; expected a text file that lists the paths of HDF5 "
            "files, one a line"
        )
    files = read_text(source, CaffeError, paths=True).split()
    if not files:
        raise CaffeError(f"{source}: lists no files")
    return files


def _row_batches(rows: Iterator[Sequence[np.ndarray]], size: int) -> Iterator[Batch]:
    while True:
        columns = zip(*(next(rows) for _ in range(size)), strict=True)
        yield Batch([torch.from_numpy(np.stack(column)) for column in columns])


@dataclass(frozen=True)
class _File:
    """One of the files. Its datasets `names` must have rows of these shapes."""

    path: str
    names: list[str]
    shapes: list[Shape]
    where: str

    @functools.cached_property
    def count(self) -> int:
        """The number of its rows."""
        self._check()
        with _open(self.path) as file:
            return len(file.dataset(self.names[0]))

    def read(self) -> list[np.ndarray]:
        """All its rows, one array for each dataset. Raises CaffeError where they do not fit."""
        self._check()
        with _open(self.path) as file:
            return [file.read(file.dataset(name), np.float32) for name in self.names]

    def _check(self) -> None:
        try:
            found = _row_shapes(self.path, self.names)
        except CaffeError as error:
            raise CaffeError(f"{self.where}: {error}") from None
        if found != self.shapes:
            raise CaffeError(
                f"{self.where}: {self.path}: rows of shapes {found}; in the first file they are "
                f"{self.shapes}"
            )


def _endless_rows(
    files: list[_File], turns: Turns, shuffling: Shuffling | None
) -> Iterator[Sequence[np.ndarray]]:
    """A reader's rows, one array for each top, file by file, forever. With `shuffling`, the files
    and the rows of each are permuted anew in each epoch. Small files are read once.
    """
    kept: dict[int, list[np.ndarray]] = {}
    room = KEPT
    ahead, epoch = turns.first, 0  # ahead: how many rows other readers take before our next one
    whole = sum(file.count for file in files) if ahead else None
    if whole:
        epoch, ahead = divmod(ahead, whole)
    loaded: tuple[int, list[np.ndarray]] | None = None
    while True:
        for i in map(int, epoch_order(len(files), shuffling, epoch)):
            file = files[i]
            if ahead and ahead >= file.count:
                ahead -= file.count
                continue
            if i in kept:
                loaded = i, kept[i]
            elif loaded is None or loaded[0] != i:
                loaded = i, file.read()
                size = sum(array.nbytes for array in loaded[1])
                if size <= room:
                    kept[i], room = loaded[1], room - size
            arrays = loaded[1]
            count = len(arrays[0])
            rows = epoch_order(count, shuffling, epoch, i)[ahead :: turns.step]
            for row in rows:
                yield [array[row] for array in arrays]
            ahead += turns.step * len(rows) - count
        epoch += 1


def _row_shapes(path: str, names: Sequence[str]) -> list[Shape]:
    """The shapes of one row of these datasets. Raises CaffeError unless all have as many rows."""
    with _open(path) as file:
        rows = set()
        for name in names:
            found = file.get(name)
            if not hasattr(found, "dtype"):
                raise CaffeError(f"{path}: no dataset {name!r}; it has {sorted(file.names())}")
            if found.dtype.kind not in "fiu" or not found.shape:
                raise CaffeError(
                    f"{path}: dataset {name!r} has the shape {found.shape} and holds "
                    f"{found.dtype}; expected numbers along at least one axis"
                )
            rows.add(found.shape[0])
        if len(rows) > 1 or rows == {0}:
            raise CaffeError(
                f"{path}: datasets {list(names)} have {sorted(rows)} rows; expected equally many, "
                "and some"
            )
        return [file.dataset(name).shape[1:] for name in names]


def _open(path: str) -> Hdf5:
    from boundary.hdf5 import Hdf5

    return Hdf5(path, "an HDF5 file with a dataset for each top", CaffeError)


@register("HDF5Output")
class HDF5Output(Layer):
    """Writes bottom 0 as dataset `data` and bottom 1 as `label` of an HDF5 file, 4 axes each.

    Bottoms have 1 to 4 axes and as many samples (hdf5_output_layer.cpp).
    """

    bottoms = (2, 2)
    tops = (0, 0)
    reads = ("hdf5_output_param",)
    differs = "Each further pass appends its rows, where Caffe fails."

    def setup(self, shapes: Sequence[Shape]) -> None:
        self.path = self.layer_param.hdf5_output_param.file_name
        folder = os.path.dirname(self.path) or "."
        self.check(bool(self.path), "hdf5_output_param must give a file_name")
        self.check(
            os.path.isdir(folder) and not os.path.isdir(self.path),
            f"cannot write {self.path!r}: it must be a file in an existing folder",
        )
        self._begun = False

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        for shape in shapes:
            self.check(
                1 <= len(shape) <= 4 and shape[0] == shapes[0][0],
                f"bottoms have the shapes {list(shapes)}, expected 1 to 4 axes and as many samples",
            )
        return []

    def forward_blobs(self, bottom: Sequence[Blob], top: Sequence[Blob], record: bool) -> None:
        self.infer_shapes([b.shape for b in bottom])
        arrays = {
            name: blob.data.reshape(blob.num, blob.channels, blob.height, blob.width)
            for name, blob in zip(("data", "label"), bottom, strict=True)
        }
        emit("hdf5_output_layer.cpp:33", f"Saving HDF5 file {self.path}")
        with self.named():
            (self._append if self._begun else self._create)(arrays)
        self._begun = True
        emit("hdf5_output_layer.cpp:38", f"Successfully saved {bottom[0].num} rows")

    def backward_blobs(self, top, propagate_down, bottom, keep_graph: bool = True) -> None:
        """Nothing comes back from a file."""

    def _create(self, arrays: dict[str, np.ndarray]) -> None:
        from boundary.hdf5 import writing_hdf5

        with writing_hdf5(self.path, CaffeError) as file:
            for name, array in arrays.items():
                file.create_dataset(name, data=array, maxshape=(None, *array.shape[1:]))

    def _append(self, arrays: dict[str, np.ndarray]) -> None:
        from boundary.hdf5 import appending_hdf5

        size = sum(array.nbytes for array in arrays.values()) + _SLACK
        with appending_hdf5(self.path, size, CaffeError) as file:
            for name, array in arrays.items():
                dataset = file[name]
                if dataset.shape[1:] != array.shape[1:]:
                    raise CaffeError(
                        f"{self.path}: dataset {name!r} has rows of the shape {dataset.shape[1:]}, "
                        f"this batch {array.shape[1:]}"
                    )
                rows = len(dataset)
                dataset.resize(rows + len(array), axis=0)
                dataset[rows:] = array
