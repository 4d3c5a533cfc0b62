"""Turns the records of a database into batches; `LMDBDataset` for PyTorch's loaders."""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    if name == "LMDBDataset":  # not above: it loads torch.utils.data
        from caffe.data.dataset import LMDBDataset

        return LMDBDataset
    raise AttributeError(f"module 'caffe.data' has no attribute {name!r}")
