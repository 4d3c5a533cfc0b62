"""Solvers with FuseNet's reported training scheme; epochs become iterations.

The authors never released their solver. Reported are SGD with momentum 0.9, weight decay 0.0005,
base learning rate 0.001 and batches of 4 (Hazirbas et al., ACCV 2016); their later PyTorch port
trains for 400 epochs and multiplies the rate by 0.9 every 25.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from google.protobuf.message import Message

from caffe import TEST, TRAIN
from caffe.errors import CaffeError
from caffe.graph.rules import layers_in
from caffe.net_spec import param_name_dict
from caffe.proto.caffe_pb2 import LayerParameter, NetParameter, SolverParameter
from netgen import filelist
from netgen.sources import count_records

_PARAM_NAMES = param_name_dict()
# Settings of a Scheme that are for one lr_policy alone.
_OF_POLICY = {"gamma": "step", "step_epochs": "step", "stepsize": "step", "power": "poly"}


@dataclass(frozen=True)
class Scheme:
    """How to train. Durations are in epochs, which are passes over the training images. max_iter to
    warmup give the same durations in iterations and take precedence.

    devices: number of processes, each of which reads a batch in every iteration. test_epochs,
    snapshot_epochs: 0 for never. warmup_epochs: how long the rate rises from warmup_lr to base_lr;
    0 for not at all. min_lr: no rate is less; 0: no such limit. Warm-up and min_lr become fields of
    NVCaffe's (rampup_interval, rampup_lr, min_lr).
    """

    type: str = "SGD"
    base_lr: float = 0.001
    momentum: float = 0.9
    weight_decay: float = 0.0005
    lr_policy: str = "step"
    gamma: float = 0.9
    power: float = 0.9
    epochs: float = 400
    step_epochs: float = 25
    test_epochs: float = 5
    snapshot_epochs: float = 25
    warmup_epochs: float = 0
    warmup_lr: float = 0
    min_lr: float = 0
    max_iter: int | None = None
    stepsize: int | None = None
    test_interval: int | None = None
    snapshot: int | None = None
    warmup: int | None = None
    display: int = 20
    iter_size: int = 1
    devices: int = 1
    random_seed: int | None = None


class _Epochs:
    """Turns epochs into iterations; counts the training images when they are first needed."""

    def __init__(self, data: LayerParameter, images: int | None, scheme: Scheme) -> None:
        self.data = data
        self.images = images
        self.batch = batch_size(data) * scheme.iter_size * scheme.devices

    def iterations(self, epochs: float) -> int:
        """The number of iterations in `epochs`, rounded up, at least 1."""
        if self.images is None:
            self.images = _count(self.data, "--train-images")
        if self.images < 1:
            raise CaffeError(f"{self.images} training images: at least 1 is needed")
        # The rounding keeps 0.1 epochs of 10 images from becoming 2.
        return max(1, math.ceil(round(epochs * self.images / self.batch, 6)))


def make_solver(
    net: NetParameter,
    path: str,
    scheme: Scheme,
    train_images: int | None = None,
    test_images: int | None = None,
    prefix: str | None = None,
) -> tuple[SolverParameter, list[str]]:
    """A solver for the net in file `path`, and warnings of what it does not do.

    train_images, test_images: numbers of images; None: the records of the net's LMDBs, or the
    frames of its lists.
    prefix: the solver's snapshot_prefix; None: the net's name in the working directory.

    Raises CaffeError where the net has no data for training, the images cannot be counted, or the
    warm-up would be longer than the training.
    """
    epochs = _Epochs(_data_layer(net, path, TRAIN), train_images, scheme)
    solver = SolverParameter(net=path, type=scheme.type, test_initialization=False)
    _learning(solver, scheme, epochs)
    solver.max_iter = scheme.max_iter or epochs.iterations(scheme.epochs)
    _warmup(solver, scheme, epochs)
    solver.display = scheme.display
    # The loss varies from batch to batch, so each log line shows the mean since the last one.
    solver.average_loss = max(1, scheme.display)
    if scheme.iter_size > 1:
        solver.iter_size = scheme.iter_size
    if scheme.random_seed is not None:
        solver.random_seed = scheme.random_seed
    notes = [*_idle(scheme), *_testing(solver, net, path, scheme, epochs, test_images)]
    if scheme.snapshot or scheme.snapshot_epochs:
        solver.snapshot = scheme.snapshot or epochs.iterations(scheme.snapshot_epochs)
    solver.snapshot_prefix = prefix or net.name.replace("/", "-") or Path(path).stem
    return solver, notes


def batch_size(layer: LayerParameter) -> int:
    """The number of records that a data layer reads in an iteration."""
    settings = filelist.settings(layer)
    if settings is not None:
        return settings.get("batch_size", 1)
    own = _batch_message(layer)
    return own.batch_size or 1 if own is not None else 1


def _batch_message(layer: LayerParameter) -> Message | None:
    """The message of the layer's own type if it has a batch size: the layer then reads batches."""
    name = _PARAM_NAMES.get(layer.type)
    message = getattr(layer, f"{name}_param") if name else None
    has_size = message is not None and "batch_size" in message.DESCRIPTOR.fields_by_name
    return message if has_size else None


def _learning(solver: SolverParameter, scheme: Scheme, epochs: _Epochs) -> None:
    solver.base_lr = scheme.base_lr
    solver.weight_decay = scheme.weight_decay
    # AdaGrad and RMSProp refuse a momentum.
    if scheme.type not in ("AdaGrad", "RMSProp"):
        solver.momentum = scheme.momentum
    solver.lr_policy = scheme.lr_policy
    if scheme.lr_policy == "step":
        solver.gamma = scheme.gamma
        solver.stepsize = scheme.stepsize or epochs.iterations(scheme.step_epochs)
    elif scheme.lr_policy == "poly":
        solver.power = scheme.power


def _idle(scheme: Scheme) -> Iterator[str]:
    """What is set and has no effect."""
    for name, policy in _OF_POLICY.items():
        if scheme.lr_policy != policy and getattr(scheme, name) != getattr(Scheme, name):
            option, used = name.replace("_", "-"), scheme.lr_policy
            yield f"--{option} has no effect: it is for --lr-policy {policy}, not {used}"


def _warmup(solver: SolverParameter, scheme: Scheme, epochs: _Epochs) -> None:
    if scheme.warmup or scheme.warmup_epochs:
        solver.rampup_interval = scheme.warmup or epochs.iterations(scheme.warmup_epochs)
        if scheme.warmup_lr:
            solver.rampup_lr = scheme.warmup_lr
        if scheme.warmup_lr > scheme.base_lr:
            raise CaffeError(
                f"the rate to warm up from, {scheme.warmup_lr:g}, is above the rate to warm up "
                f"to, {scheme.base_lr:g}"
            )
        if solver.rampup_interval > solver.max_iter:
            raise CaffeError(
                f"the warm-up takes {solver.rampup_interval} iterations, the whole training "
                f"{solver.max_iter}: give a shorter warm-up"
            )
    elif scheme.warmup_lr:
        raise CaffeError(
            f"a rate of {scheme.warmup_lr:g} to warm up from, and no warm-up: give "
            "--warmup-epochs F"
        )
    if scheme.min_lr:
        solver.min_lr = scheme.min_lr
        if scheme.min_lr > scheme.base_lr:
            raise CaffeError(
                f"the least rate, {scheme.min_lr:g}, is above the rate at the start, "
                f"{scheme.base_lr:g}"
            )


def _testing(
    solver: SolverParameter,
    net: NetParameter,
    path: str,
    scheme: Scheme,
    epochs: _Epochs,
    images: int | None,
) -> list[str]:
    """Set test_interval, and test_iter so that a test reads every image; or return why not."""
    if images == 0 or not (scheme.test_interval or scheme.test_epochs):
        return []
    try:
        data = _data_layer(net, path, TEST)
        images = _count(data, "--test-images") if images is None else images
    except CaffeError as error:
        return [f"no tests during training: {error}"]
    solver.test_iter.append(math.ceil(images / batch_size(data)))
    solver.test_interval = scheme.test_interval or epochs.iterations(scheme.test_epochs)
    return []


def _data_layer(net: NetParameter, path: str, phase: int) -> LayerParameter:
    for layer in layers_in(net, phase):
        if _batch_message(layer) is not None or filelist.settings(layer) is not None:
            return layer
    name = "TRAIN" if phase == TRAIN else "TEST"
    raise CaffeError(f"net {path} has no data layer in phase {name}; expected a train+test net")


def _count(data: LayerParameter, option: str) -> int:
    """The number of records in a data layer's LMDB, or of frames in its list. If they cannot be
    counted, the error names the option to give.
    """
    try:
        settings = filelist.settings(data)
        if settings is not None:
            return filelist.count_frames(settings["source"])
        if data.type != "Data":
            raise CaffeError(f"layer {data.name} ({data.type}) does not read an LMDB")
        return count_records(data.data_param)
    except CaffeError as error:
        raise CaffeError(f"{error}: give the number of images with {option} N") from None
