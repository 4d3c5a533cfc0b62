"""The prototxts that netgen prints, from its parsed arguments: nets and solvers."""

from __future__ import annotations

import argparse
import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from caffe.errors import CaffeError
from caffe.formats import files
from caffe.proto.caffe_pb2 import DataParameter, NetParameter
from netgen import label_weights
from netgen.datasets import DATASETS
from netgen.filelist import Files, count_frames
from netgen.fusenet import Architecture, Training, deploy_net, train_net
from netgen.solver import Scheme, make_solver
from netgen.sources import CHANNELS, count_records, depth_range, facts, record_shape

DEFAULT_SIZE = (320, 240)
# Frames of NYUv2's train split alone, and of train + val, on which the papers train.
NYUV2_TRAIN, NYUV2_TRAINVAL = 381, 795


def net_text(args: argparse.Namespace) -> tuple[str, list[str]]:
    """The prototxt that a NET command prints, and warnings of data that does not fit the net."""
    dataset = DATASETS.get(args.dataset)
    options = ("width_multiplier", "moving_average_fraction", "dropout", "scene_classes")
    arch = Architecture(
        net=args.command,
        classes=dataset.classes if dataset else args.classes,
        size=args.size or (dataset.size if dataset else DEFAULT_SIZE),
        floor_pooling=args.pooling == "floor",
        **_given(args, *options),
    )
    name = f"fusenet-{args.command}-{args.dataset}"
    if args.deploy:
        net = deploy_net(arch, name, args.batch_size or 1)
        return _made_by(args) + _depth_range(args) + _class_names(args, arch) + files.text(net), []
    training = _training(args, arch.classes)
    warnings = list(_misfits(training, args.dataset, arch))
    head = _made_by(args) + _frozen(args)
    if args.old and dataset is None:  # the next net may be made from this one
        head += _depth_range(args) + _class_names(args, arch)
    return head + files.text(train_net(arch, training, name)), warnings


def solver_text(args: argparse.Namespace, net: NetParameter) -> tuple[str, list[str]]:
    """The prototxt that `solver` prints for a net that is, or will be, in the file args.net, and
    warnings of what the solver does not do.
    """
    given = vars(args)
    scheme = Scheme(**{name: given[name] for name in Scheme.__dataclass_fields__ if name in given})
    solver, notes = make_solver(
        net,
        args.net,
        scheme,
        given.get("train_images"),
        given.get("test_images"),
        given.get("snapshot_prefix"),
    )
    return _made_by(args) + files.text(solver), notes


def _made_by(args: argparse.Namespace) -> str:
    command = shlex.join(args.argv).replace("\n", " ")
    return f"# Made by: python -m netgen {command}\n"


def _frozen(args: argparse.Namespace) -> str:
    """A comment that says what layers that do not learn need."""
    if not args.freeze:
        return ""
    what = ", ".join(args.freeze).replace("\n", " ")
    return f"# {what}: frozen; start with caffe train -weights TRAINED.caffemodel\n"


def _given(args: argparse.Namespace, *names: str) -> dict[str, Any]:
    """Of these options, those that were given."""
    return {name: value for name in names if (value := getattr(args, name)) is not None}


def _depth_range(args: argparse.Namespace) -> str:
    """A comment that says how depth was scaled for training; eval_tools.predict reads it."""
    files = _files(args)
    rule = files.scaling() if files else args.depth_range or depth_range(_sources(args)[0])
    if rule is None and args.old:
        rule = args.old.depth_range
    return f"# depth_range: {rule}\n" if rule else ""


def _class_names(args: argparse.Namespace, arch: Architecture) -> str:
    """A comment with the names of the labels, label 0 first, in JSON; eval_tools reads it."""
    known = facts(args.source) if args.source else {}
    dataset = DATASETS.get(args.dataset)
    names = known.get("classes", dataset.names if dataset else ())
    if not names and args.old:
        names = args.old.names
    return f"# classes: {json.dumps(names)}\n" if len(names) == arch.classes + 1 else ""


def _files(args: argparse.Namespace) -> Files | None:
    if args.data_list is None:
        return None
    root, seed = args.data_root or "", args.data_seed or 0
    return Files(root, seed, args.depth_unit, args.depth_range)


def _sources(args: argparse.Namespace) -> tuple[str, str | None]:
    if args.data_list is not None:
        return args.data_list, args.test_data_list
    dataset = DATASETS.get(args.dataset)
    splits = dataset.splits if dataset else ("train", "test")
    train, test = (f"lmdb/{args.dataset}_{split}" for split in splits)
    return args.source or train, args.test_source or test


def _training(args: argparse.Namespace, classes: int) -> Training:
    source, test_source = _sources(args)
    return Training(
        source=source,
        test_source=test_source,
        batch_size=args.batch_size or 4,
        test_batch_size=args.test_batch_size,
        shuffle=not args.no_shuffle,
        transform=args.augment,
        freeze=args.freeze or (),
        label_weights=label_weights.choose(args.label_weights, DATASETS.get(args.dataset), classes),
        files=_files(args),
        iou=args.iou,
        **_given(args, "scene_loss_weight"),
    )


def _misfits(training: Training, dataset: str, arch: Architecture) -> Iterator[str]:
    """Warnings of LMDBs and lists that exist already and do not fit the net."""
    for source in filter(None, (training.source, training.test_source)):
        count = None
        if Path(source).exists() and training.files:
            count = count_frames(source)
        elif Path(source).exists():
            data = DataParameter(source=source, backend=DataParameter.LMDB)
            try:
                count, (channels, height, width) = count_records(data), record_shape(data)
                if channels != CHANNELS:
                    what = f"{source} holds records of {channels} channels"
                    yield f"{what}, the net takes {CHANNELS}: blue, green, red, depth and label"
                if (width, height) != arch.size:
                    what = f"{source} holds frames of {width}x{height}"
                    yield f"{what}, the net is made for {arch.size[0]}x{arch.size[1]}"
                listed = len(facts(source).get("classes", [])) - 1
                if listed > 0 and listed != arch.classes:
                    what = f"{source} lists {listed} classes in its dataset.json"
                    yield f"{what}, the net has {arch.classes}"
            except CaffeError as error:
                yield str(error)
        # A list called train.txt may name any frames, so its name says nothing.
        telling = training.files is None or count == NYUV2_TRAIN
        if dataset.startswith("nyuv2") and source == training.source and telling:
            yield from _train_split(source, count)


def _train_split(source: str, count: int | None) -> Iterator[str]:
    """A warning if this looks like NYUv2's train split without its val split."""
    name = Path(source).name
    if count == NYUV2_TRAIN:
        what = f"has {NYUV2_TRAIN} frames, NYUv2's train split alone"
    elif count != NYUV2_TRAINVAL and "train" in name and "trainval" not in name:
        what = f"looks like NYUv2's train split alone ({NYUV2_TRAIN} frames)"
    else:
        return
    yield f"{source} {what}; the papers train on train + val ({NYUV2_TRAINVAL} frames)"
