"""Learning-rate policies (lr_policy of a solver)."""

from __future__ import annotations

import math
from collections.abc import Callable

from caffe.errors import CaffeError
from caffe.process.log import number
from caffe.process.ranks import announce
from caffe.proto import caffe_pb2 as pb

_POLICIES: dict[str, Callable[[LearningRate, pb.SolverParameter, int], float]] = {}


class LearningRate:
    """The learning rate by iteration, as Caffe's SGDSolver::GetLearningRate.

    param: lr_policy and its settings; CaffeError if they cannot be used. The solver's state are
    current_step, the steps that the policies step, multistep and plateau have taken so far, and
    plateau's minimum_loss and iter_last_event, when that or the step was new. loss: the displayed
    loss, which the solver sets for plateau before it asks for the rate.
    """

    def __init__(self, param: pb.SolverParameter) -> None:
        self.param = param
        self.current_step = self.iter_last_event = 0
        self.loss = self.minimum_loss = math.inf
        if param.HasField("lr_policy"):  # without one a solver can still test and save
            self._check()

    def _check(self) -> None:
        p = self.param
        if p.lr_policy not in _POLICIES:
            raise CaffeError(
                f"solver: unknown lr_policy {p.lr_policy!r}; expected one of {', '.join(_POLICIES)}"
            )
        if p.lr_policy not in ("fixed", "poly", "multifixed") and p.gamma < 0:
            raise CaffeError(f"solver: gamma is {p.gamma:g}, expected at least 0")
        if p.lr_policy in ("step", "sigmoid") and p.stepsize <= 0:
            raise CaffeError(
                f"solver: lr_policy {p.lr_policy} needs a positive stepsize, got {p.stepsize}"
            )

        if p.lr_policy == "multifixed" and not 0 < len(p.stagelr) == len(p.stageiter):
            raise CaffeError(
                f"solver: lr_policy multifixed has {len(p.stagelr)} stagelr and "
                f"{len(p.stageiter)} stageiter, expected as many of both"
            )

    def at(self, iteration: int) -> float:
        """The rate of the update at `iteration`, from 0. Raises CaffeError without a policy."""
        self._check()
        return _POLICIES[self.param.lr_policy](self, self.param, iteration)


def _policy(function: Callable[[LearningRate, pb.SolverParameter, int], float]):
    _POLICIES[function.__name__.strip("_")] = function
    return function


def _power(base: float, exponent: float) -> float:
    """C's pow: infinity or NaN where Python's raises, as in poly beyond max_iter."""
    try:
        return math.pow(base, exponent)
    except OverflowError:
        return math.inf
    except ValueError:
        return math.inf if base == 0 else math.nan


@_policy
def _fixed(rate: LearningRate, p: pb.SolverParameter, i: int) -> float:
    return p.base_lr


@_policy
def _step(rate: LearningRate, p: pb.SolverParameter, i: int) -> float:
    rate.current_step = i // p.stepsize
    return p.base_lr * _power(p.gamma, rate.current_step)


@_policy
def _exp(rate: LearningRate, p: pb.SolverParameter, i: int) -> float:
    return p.base_lr * _power(p.gamma, i)


@_policy
def _inv(rate: LearningRate, p: pb.SolverParameter, i: int) -> float:
    return p.base_lr * _power(1 + p.gamma * i, -p.power)


@_policy
def _multistep(rate: LearningRate, p: pb.SolverParameter, i: int) -> float:
    if rate.current_step < len(p.stepvalue) and i >= p.stepvalue[rate.current_step]:
        rate.current_step += 1
        message = f"MultiStep Status: Iteration {i}, step = {rate.current_step}"
        announce("sgd_solver.cpp:50", message)
    return p.base_lr * _power(p.gamma, rate.current_step)


@_policy
def _poly(rate: LearningRate, p: pb.SolverParameter, i: int) -> float:
    return p.base_lr * _power(1 - i / p.max_iter, p.power) if p.max_iter else p.base_lr


@_policy
def _sigmoid(rate: LearningRate, p: pb.SolverParameter, i: int) -> float:
    exponent = -p.gamma * (i - p.stepsize)
    return p.base_lr / (1 + math.exp(exponent)) if exponent < 700 else 0.0


@_policy
def _multifixed(rate: LearningRate, p: pb.SolverParameter, i: int) -> float:
    """stagelr of the first stage that goes on to stageiter; the last one's behind all (caffe-yolo,
    MobileNet-YOLO).
    """
    stages = zip(p.stageiter, p.stagelr, strict=True)
    return next((value for end, value in stages if i <= end), p.stagelr[-1])


@_policy
def _plateau(rate: LearningRate, p: pb.SolverParameter, i: int) -> float:
    """A step down by gamma when the loss has had no new minimum for plateau_winsize iterations,
    a number for each step (SSD).
    """
    if rate.loss < rate.minimum_loss:
        rate.minimum_loss, rate.iter_last_event = rate.loss, i
    sizes = p.plateau_winsize[rate.current_step :]
    if sizes and i >= rate.iter_last_event + sizes[0]:
        rate.current_step += 1
        rate.iter_last_event = i
        message = f"Plateau Status: Iteration {i}, step = {rate.current_step}"
        announce("sgd_solver.cpp:76", message)
    if p.display and i % p.display == 0 and rate.iter_last_event > i - p.display:
        message = f"Plateau Status: Iteration {i}, current minimum_loss = "
        announce("sgd_solver.cpp:83", message + number(rate.minimum_loss))
    return p.base_lr * _power(p.gamma, rate.current_step)
