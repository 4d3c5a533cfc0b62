"""Cases of the layers in caffe/layers/hdf5_data.py."""

from __future__ import annotations

import functools
import random
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np

from cases import Case, row, shape


@row("HDF5Data", 'hdf5_data_param { source: "files.txt" batch_size: 32 }', (), False)
def stored(rng: random.Random, name: str) -> Case:
    rows = {f"top{i}": shape(rng, 0, 3) for i in range(rng.randint(1, 3))}
    counts = [rng.randint(1, 4) for _ in range(rng.randint(1, 3))]
    tops = " ".join(f'top: "{top}"' for top in rows)
    read = f"batch_size: {rng.randint(1, 6)} shuffle: {rng.choice(['true', 'false'])}"
    text = f'{tops} hdf5_data_param {{ source: "files.txt" {read} }}'
    return Case(text, files=functools.partial(write_files, rows, counts))


def write_files(rows: dict[str, list[int]], counts: Sequence[int]) -> None:
    """Write an HDF5 file with as many rows for each of `counts`, and their list files.txt."""
    rng = np.random.default_rng(0)
    for i, count in enumerate(counts):
        with h5py.File(f"{i}.h5", "w") as file:
            for name, sizes in rows.items():
                file[name] = rng.normal(size=(count, *sizes))
    Path("files.txt").write_text("".join(f"{i}.h5\n" for i in range(len(counts))))


@row("HDF5Output", 'hdf5_output_param { file_name: "out.h5" }', (), False)
def written(rng: random.Random, name: str) -> Case:
    samples = rng.randint(1, 3)
    bottoms = [[samples, *shape(rng, 0, 3)] for _ in range(2)]
    # A message without tops, because the layer has none.
    return Case('hdf5_output_param { file_name: "out.h5" }', bottoms)
