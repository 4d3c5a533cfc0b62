"""Learning-rate policies (lr_policy of a solver)."""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import copy
from itertools import accumulate

from caffe.errors import CaffeError
from caffe.process.log import number, quiet
from caffe.process.ranks import announce
from caffe.proto import caffe_pb2 as pb

# Fields of forks that have an effect here.
TAKES = (
    *("rampup_interval", "rampup_lr", "min_lr", "warmup_iter", "warmup_start_lr"),
    *("plateau_winsize", "stageiter", "stagelr", "vstep_size", "vstep_lr"),
)
_STAGES = (("multifixed", "stagelr", "stageiter"), ("vstep", "vstep_lr", "vstep_size"))
_POLICIES: dict[str, Callable[[LearningRate, pb.SolverParameter, int], float]] = {}


class LearningRate:
    """The learning rate by iteration, as Caffe's SGDSolver::GetLearningRate.

    param: lr_policy and its settings; CaffeError if they cannot be used. The solver's state are
    current_step, the steps that the policies step, multistep and plateau have taken so far, and
    plateau's minimum_loss and iter_last_event, when that or the step was new. loss: the displayed
    loss, which the solver sets for plateau before it asks for the rate.

    As in NVCaffe 0.17, the rate rises from rampup_lr to base_lr over the first rampup_interval
    iterations, as the square of the share of them that is done; or, as in Intel Caffe, in a line
    from warmup_start_lr over the first warmup_iter. The policy rules from then on, and counts from
    iteration 0 all the same. No rate is less than min_lr, where that is given, and poly falls to
    min_lr.
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
        if p.lr_policy not in ("fixed", "poly", "multifixed", "vstep") and p.gamma < 0:
            raise CaffeError(f"solver: gamma is {p.gamma:g}, expected at least 0")
        if p.lr_policy in ("step", "sigmoid") and p.stepsize <= 0:
            raise CaffeError(
                f"solver: lr_policy {p.lr_policy} needs a positive stepsize, got {p.stepsize}"
            )
        for policy, rates, ends in _STAGES:
            counts = len(getattr(p, rates)), len(getattr(p, ends))
            if p.lr_policy == policy and not 0 < counts[0] == counts[1]:
                raise CaffeError(
                    f"solver: lr_policy {policy} has {counts[0]} {rates} and {counts[1]} {ends}, "
                    "expected as many of both"
                )
        self._check_limits()

    def _check_limits(self) -> None:
        p = self.param
        if p.min_lr < 0:
            raise CaffeError(f"solver: min_lr is {p.min_lr:g}, expected at least 0")
        if p.lr_policy == "poly" and p.min_lr > p.base_lr:
            raise CaffeError(
                f"solver: min_lr is {p.min_lr:g}, expected at most base_lr, {p.base_lr:g}: "
                "lr_policy poly falls from the one to the other"
            )
        for name in ("rampup_interval", "warmup_iter"):
            if getattr(p, name) < 0:
                raise CaffeError(f"solver: {name} is {getattr(p, name)}, expected at least 0")
        if p.rampup_interval and p.warmup_iter:
            raise CaffeError(
                "solver: rampup_interval and warmup_iter are two ways to warm up; expected one of "
                "them"
            )

    def peek(self, iteration: int) -> float:
        """What at() would return now; takes no step, and logs nothing."""
        with quiet():
            return copy(self).at(iteration)

    def at(self, iteration: int) -> float:
        """The rate of the update at `iteration`, from 0, to be asked for once each: it may take a
        step of the policy. Raises CaffeError without a policy.
        """
        self._check()
        p = self.param
        if iteration < p.rampup_interval:
            done = iteration / p.rampup_interval
            rate = p.rampup_lr + (p.base_lr - p.rampup_lr) * done * done
        elif iteration < p.warmup_iter:
            rate = self._line(iteration)
        else:
            rate = _POLICIES[p.lr_policy](self, p, iteration)
        return p.min_lr if p.HasField("min_lr") and rate < p.min_lr else rate

    def momentum_factor(self, iteration: int) -> float:
        """By what SGD's momentum is multiplied at `iteration`. In Intel Caffe's warm-up it is the
        ratio of the rate to the one before, because the history holds that; else 1.
        """
        if iteration >= self.param.warmup_iter:
            return 1.0
        before = self._line(max(iteration - 1, 0))
        return self._line(iteration) / before if before else 1.0  # Caffe's weights become NaN

    def _line(self, iteration: int) -> float:
        """Intel Caffe's warm-up."""
        p, last = self.param, self.param.warmup_iter
        return (iteration * p.base_lr + (last - iteration) * p.warmup_start_lr) / last


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
    if not p.max_iter:
        return p.base_lr
    return (p.base_lr - p.min_lr) * _power(1 - i / p.max_iter, p.power) + p.min_lr


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
def _vstep(rate: LearningRate, p: pb.SolverParameter, i: int) -> float:
    """The same with lengths of stages: the first ends with iteration vstep_size, the second that
    of the next vstep_size later (caffepro).
    """
    stages = zip(accumulate(p.vstep_size), p.vstep_lr, strict=True)
    return next((value for end, value in stages if i <= end), p.vstep_lr[-1])


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
