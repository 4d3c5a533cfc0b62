"""What a net's data says where the options say nothing: data set, classes, size and LMDBs.

data_tools writes a dataset.json beside an LMDB's records, an earlier net may be named with --from,
and a file of label weights has a number for each label. Options win over all of them, and data that
is named with --source over an earlier net.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from caffe.errors import CaffeError
from netgen import earlier, label_weights
from netgen.datasets import DATASETS
from netgen.sources import depth_range, facts, frame_size


def complete(args: argparse.Namespace) -> list[str]:
    """Set what the options of a NET command leave open; returns a line for each source that was
    used, which says what was taken from it.

    Raises CaffeError where a file cannot be read, or if it takes --classes and nothing says it.
    """
    notes = []
    known = facts(args.source) if args.source else {}
    taken = _classes(args, known) + _size(args, known)
    if args.earlier:
        notes += _from_earlier(args)
    if not args.source:
        notes += _locate(args)
        known = facts(args.source) if args.source else {}
        taken = []
    if not args.told:
        notes += _from_weights(args)
    taken += _size(args, known)
    if args.earlier and args.size is None:
        notes.append(f"{args.earlier} does not say the size of its frames: --size WxH does")
    if taken:
        notes.append(f"{args.source}: its dataset.json gives {', '.join(taken)}")
    return notes


def _classes(args: argparse.Namespace, known: dict[str, Any]) -> list[str]:
    """Set data set and classes, unless options tell them, to those of a dataset.json."""
    names = known.get("classes", [])
    dataset = DATASETS.get(known.get("dataset", ""))
    if args.told or len(names) < 2:
        return []
    args.told = True
    if dataset and args.dataset != "custom" and len(names) == dataset.classes + 1:
        args.dataset = dataset.name
        return [f"the data set {dataset.name}"]
    args.dataset, args.classes = "custom", len(names) - 1
    return [f"{args.classes} classes"]


def _from_weights(args: argparse.Namespace) -> list[str]:
    """Set the number of classes to that of a file of label weights, unless it is the default's."""
    dataset = DATASETS.get(args.dataset)
    if not label_weights.is_file(args.label_weights):
        if dataset is None:
            lacks = f"{args.source} has no dataset.json with classes"
            raise CaffeError(f"--dataset custom needs --classes N: {lacks}")
        return []
    classes = len(label_weights.numbers(args.label_weights)) - 1
    if classes < 1:
        raise CaffeError(
            f"label weights {args.label_weights}: {classes + 1} numbers; expected one a label with "
            "the ignored label 0 first"
        )
    if dataset and dataset.classes == classes:
        return []
    args.dataset, args.classes = "custom", classes
    return [f"{args.label_weights}: its numbers are for {classes} classes and label 0"]


def _size(args: argparse.Namespace, known: dict[str, Any]) -> list[str]:
    """Set the size, unless options tell it, to that of a dataset.json."""
    size = frame_size(known)
    if args.size is not None or size is None:
        return []
    args.size = size
    return [f"size {size[0]}x{size[1]}"]


def _from_earlier(args: argparse.Namespace) -> list[str]:
    """Set what is still open to what an earlier net says."""
    old = args.old = earlier.read(args.earlier)
    trained_on = depth_range(args.source) if args.source else None
    taken = earlier.fill(args, old)
    notes = [f"{old.path} gives {', '.join(taken)}"] if taken else []
    if trained_on and old.depth_range and trained_on != old.depth_range:
        notes.append(
            f"warning: depth of {args.source} is {trained_on}, but the net of {old.path} was "
            f"trained with {old.depth_range}"
        )
    return notes


def _locate(args: argparse.Namespace) -> list[str]:
    """Set sources that are not given to where data_tools writes a data set's LMDBs, lmdb/SPLIT, if
    netgen's own default is not there.
    """
    dataset = DATASETS.get(args.dataset)
    if dataset is None or args.data_list is not None:
        return []
    notes = []
    for name, split in zip(("source", "test_source"), dataset.splits, strict=True):
        default, other = f"lmdb/{dataset.name}_{split}", f"lmdb/{split}"
        if getattr(args, name):
            continue
        if Path(default).exists():
            setattr(args, name, default)
        elif facts(other).get("dataset") == dataset.name:
            setattr(args, name, other)
            notes.append(f"{other}: its dataset.json says that it holds {dataset.name}; taken")
    return notes
