"""Learning-rate policies (lr_policy of a solver)."""

from __future__ import annotations

import math
from collections.abc import Callable

from caffe.errors import CaffeError
from caffe.log import emit
from caffe.proto import caffe_pb2 as pb

_POLICIES: dict[str, Callable[[LearningRate, pb.SolverParameter, int], float]] = {}


class LearningRate:
    """The rate at an iteration. `current_step`: steps taken so far, part of the solver's state."""

    def __init__(self, param: pb.SolverParameter) -> None:
        self.param = param
        self.current_step = 0
        if param.lr_policy not in _POLICIES:
            raise CaffeError(
                f"solver: unknown lr_policy {param.lr_policy!r}; expected one of "
                f"{', '.join(_POLICIES)}"
            )
        if param.lr_policy not in ("fixed", "poly") and param.gamma < 0:
            raise CaffeError(f"solver: gamma is {param.gamma:g}, expected at least 0")
        if param.lr_policy in ("step", "sigmoid") and param.stepsize <= 0:
            raise CaffeError(
                f"solver: lr_policy {param.lr_policy} needs a positive stepsize, got "
                f"{param.stepsize}"
            )

    def at(self, iteration: int) -> float:
        return _POLICIES[self.param.lr_policy](self, self.param, iteration)


def _policy(function: Callable[[LearningRate, pb.SolverParameter, int], float]):
    _POLICIES[function.__name__.strip("_")] = function
    return function


@_policy
def _fixed(rate: LearningRate, p: pb.SolverParameter, i: int) -> float:
    return p.base_lr


@_policy
def _step(rate: LearningRate, p: pb.SolverParameter, i: int) -> float:
    rate.current_step = i // p.stepsize
    return p.base_lr * p.gamma**rate.current_step


@_policy
def _exp(rate: LearningRate, p: pb.SolverParameter, i: int) -> float:
    return p.base_lr * p.gamma**i


@_policy
def _inv(rate: LearningRate, p: pb.SolverParameter, i: int) -> float:
    return p.base_lr * (1 + p.gamma * i) ** -p.power


@_policy
def _multistep(rate: LearningRate, p: pb.SolverParameter, i: int) -> float:
    if rate.current_step < len(p.stepvalue) and i >= p.stepvalue[rate.current_step]:
        rate.current_step += 1
        emit("sgd_solver.cpp:58", f"MultiStep Status: Iteration {i}, step = {rate.current_step}")
    return p.base_lr * p.gamma**rate.current_step


@_policy
def _poly(rate: LearningRate, p: pb.SolverParameter, i: int) -> float:
    return p.base_lr * (1 - i / p.max_iter) ** p.power if p.max_iter else p.base_lr


@_policy
def _sigmoid(rate: LearningRate, p: pb.SolverParameter, i: int) -> float:
    exponent = -p.gamma * (i - p.stepsize)
    return p.base_lr / (1 + math.exp(exponent)) if exponent < 700 else 0.0
