"""LMDBDataset: a database of Datums as a torch Dataset, for your own training loops."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from caffe.data.datum import datum_to_array, parse_datum
from caffe.errors import CaffeError
from caffe.formats.db import Database


class LMDBDataset(torch.utils.data.Dataset):
    """The records of an LMDB of Datums, in the order of their keys.

    dataset[i] is (values, label). values: a tensor, channels x height x width, uint8 or float32 as
    stored; encoded pictures are decoded to B, G, R. label: an int. FuseNet's records hold five
    channels: B, G, R, depth and the label of each pixel; `label` is then the label of the scene.

    path: the LMDB. transform: called as transform(values, label); its result is the item instead.
    backend: "lmdb" or "leveldb" (only one process at a time can open a LevelDB).

    Workers of a DataLoader may be forked or spawned; forked ones can share the database because it
    is opened read-only and without locks.

    Raises CaffeError for a missing or empty database or a record that is no Datum, IndexError for
    an index beyond the end.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        transform: Callable[[torch.Tensor, int], Any] | None = None,
        backend: str = "lmdb",
    ) -> None:
        self.path, self.transform, self.backend = os.fspath(path), transform, backend
        self._database = Database.open(path, backend)
        self.keys = self._database.keys()

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int) -> Any:
        values, label = self._values(self.keys[index])
        return (values, label) if self.transform is None else self.transform(values, label)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_database": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._database = Database.open(self.path, self.backend)

    def __repr__(self) -> str:
        return f"LMDBDataset({self.path!r}, {len(self)} records)"

    def _values(self, key: bytes) -> tuple[torch.Tensor, int]:
        where = f"{self.path}: record {key!r}"
        datum = parse_datum(self._database.get(key), where)
        try:
            array = datum_to_array(datum)
        except (CaffeError, ValueError) as error:
            raise CaffeError(f"{where}: {error}") from None
        if array.dtype != np.uint8:
            array = array.astype(np.float32)
        return torch.from_numpy(array), datum.label
