"""The update rules, each held against its formula in plain arithmetic over three steps."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from google.protobuf import text_format

import caffe
from caffe.proto import caffe_pb2 as pb
from caffe.solver.updates import UPDATES, Update

GRADIENTS = (0.5, -0.25, 2.0)
RATE = 0.1


def _update(name: str, text: str = "") -> Update:
    return UPDATES[name](text_format.Parse(text, pb.SolverParameter()))


def _changes(update: Update) -> tuple[list[float], list[float]]:
    """The steps that are subtracted, and the history after the last."""
    history = [torch.zeros(1) for _ in range(update.histories)]
    changes = []
    for t, g in enumerate(GRADIENTS, 1):
        grads = [torch.tensor([g])]
        update.apply(grads, history, [RATE], t)
        changes.append(float(grads[0]))
    return changes, [float(h) for h in history]


def _sgd(momentum: float) -> tuple[list[float], list[float]]:
    changes, v = [], 0.0
    for g in GRADIENTS:
        v = momentum * v + RATE * g
        changes.append(v)
    return changes, [v]


def _nesterov(momentum: float) -> tuple[list[float], list[float]]:
    changes, v = [], 0.0
    for g in GRADIENTS:
        before, v = v, momentum * v + RATE * g
        changes.append((1 + momentum) * v - momentum * before)
    return changes, [v]


def _adagrad(delta: float) -> tuple[list[float], list[float]]:
    changes, h = [], 0.0
    for g in GRADIENTS:
        h += g * g
        changes.append(RATE * g / (math.sqrt(h) + delta))
    return changes, [h]


def _rmsprop(decay: float, delta: float) -> tuple[list[float], list[float]]:
    changes, h = [], 0.0
    for g in GRADIENTS:
        h = decay * h + (1 - decay) * g * g
        changes.append(RATE * g / (math.sqrt(h) + delta))
    return changes, [h]


def _adadelta(momentum: float, delta: float) -> tuple[list[float], list[float]]:
    changes, h, h2 = [], 0.0, 0.0
    for g in GRADIENTS:
        h = momentum * h + (1 - momentum) * g * g
        change = g * math.sqrt((h2 + delta) / (h + delta))
        h2 = momentum * h2 + (1 - momentum) * change * change
        changes.append(RATE * change)
    return changes, [h, h2]


def _adam(beta1: float, beta2: float, delta: float) -> tuple[list[float], list[float]]:
    changes, m, v = [], 0.0, 0.0
    for t, g in enumerate(GRADIENTS, 1):
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g * g
        correction = math.sqrt(1 - beta2**t) / (1 - beta1**t)
        changes.append(RATE * correction * m / (math.sqrt(v) + delta))  # delta is not corrected
    return changes, [m, v]


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("SGD", "momentum: 0.9", lambda: _sgd(0.9)),
        ("SGD", "", lambda: _sgd(0)),
        ("Nesterov", "momentum: 0.9", lambda: _nesterov(0.9)),
        ("AdaGrad", "delta: 0.01", lambda: _adagrad(0.01)),
        ("RMSProp", "rms_decay: 0.9 delta: 0.01", lambda: _rmsprop(0.9, 0.01)),
        ("AdaDelta", "momentum: 0.9 delta: 0.01", lambda: _adadelta(0.9, 0.01)),
        ("Adam", "momentum: 0.9 momentum2: 0.99 delta: 0.01", lambda: _adam(0.9, 0.99, 0.01)),
    ],
)
def test_rule(name: str, text: str, expected: Callable) -> None:
    changes, history = _changes(_update(name, text))
    expected_changes, expected_history = expected()
    assert changes == pytest.approx(expected_changes, rel=1e-5)
    assert history == pytest.approx(expected_history, rel=1e-5)


def test_a_change_of_rate_leaves_the_momentum_as_it_was() -> None:
    # v holds rate * g; torch's SGD would multiply all of v by the new rate
    update, history = _update("SGD", "momentum: 0.5"), [torch.zeros(1)]
    update.apply([torch.tensor([1.0])], history, [0.1], 1)
    grads = [torch.tensor([1.0])]
    update.apply(grads, history, [0.01], 2)
    assert float(grads[0]) == pytest.approx(0.5 * 0.1 + 0.01)


@pytest.mark.parametrize("name", sorted(UPDATES))
def test_each_parameter_has_its_own_rate_and_history(name: str) -> None:
    update = _update(name)
    n = 2
    history = [torch.zeros(1) for _ in range(update.histories * n)]
    grads = [torch.tensor([1.0]), torch.tensor([3.0])]
    update.apply(grads, history, [0.1, 0.0], 1)
    assert float(grads[0]) != 0
    assert float(grads[1]) == 0
    alone = _update(name)
    for k, gradient in enumerate((1.0, 3.0)):  # all first moments come first, then all second
        own = [torch.zeros(1) for _ in range(alone.histories)]
        alone.apply([torch.tensor([gradient])], own, [(0.1, 0.0)[k]], 1)
        assert [float(h) for h in own] == [float(h) for h in history[k::n]]


@pytest.mark.parametrize("name", ["AdaGrad", "RMSProp"])
def test_rules_without_momentum(name: str) -> None:
    with pytest.raises(caffe.CaffeError, match=f"solver: momentum 0.9 cannot be used with {name}"):
        _update(name, "momentum: 0.9")


@pytest.mark.parametrize(
    ("name", "text"),
    [("Adam", "momentum: 1"), ("Adam", "momentum2: 1.5"), ("Adam", "momentum2: -1"),
     ("AdaDelta", "momentum: 1")],
)  # fmt: skip
def test_means_keep_a_share(name: str, text: str) -> None:
    field, value = text.split(": ")
    with pytest.raises(caffe.CaffeError, match=f"solver: {field} is {value}, expected 0 <= it < 1"):
        _update(name, text)


@pytest.mark.parametrize("name", ["AdaGrad", "RMSProp", "AdaDelta", "Adam"])
def test_delta_is_not_negative(name: str) -> None:
    with pytest.raises(caffe.CaffeError, match="solver: delta is -1, expected at least 0"):
        _update(name, "delta: -1")


@pytest.mark.parametrize("decay", [-0.1, 1])
def test_rms_decay_is_a_share(decay: float) -> None:
    with pytest.raises(caffe.CaffeError, match=f"solver: rms_decay is {decay}, expected 0 <= it"):
        _update("RMSProp", f"rms_decay: {decay}")
