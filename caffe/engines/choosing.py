"""Choosing: the fastest of several programs by the clock, and whether their answers agree."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import torch

from caffe.errors import CaffeError
from caffe.export.comparing import UNEQUAL, Difference, measured
from caffe.layers.base import Tensors

FEWEST, MOST = 3, 30  # passes of each program that are timed
SECONDS = 1.0  # after which no program is timed more than FEWEST times
REST = 0.02  # seconds: PyTorch's threads try for some milliseconds more before they sleep
GAIN = 0.97  # of the plan's time that another program must stay below to be chosen
ROUNDING = 2.0**-22  # of the largest value: how far inputs are moved to see what rounding decides
TORCH = "torch"

Pass = Callable[[], object]
Clock = Callable[[], float]
Answers = Sequence[torch.Tensor]
ByPlan = Callable[[Tensors], Answers]


def time_passes(passes: Mapping[str, Pass], now: Clock = time.perf_counter) -> dict[str, float]:
    """The shortest time of each program's passes, in seconds. They take turns, and each finds the
    cores free, as it does when it is alone.
    """
    best = dict.fromkeys(passes, float("inf"))
    start = now()
    for k in range(MOST):
        if k >= FEWEST and now() - start > SECONDS:
            break
        for name, run in passes.items():
            if torch.get_num_threads() > 1:
                time.sleep(REST)
            began = now()
            run()
            best[name] = min(best[name], now() - began)
    return best


def fastest(seconds: Mapping[str, float]) -> str:
    """The program to take: the plan (TORCH), unless another one gains enough."""
    best = min(seconds, key=seconds.__getitem__)
    return best if seconds[best] < GAIN * seconds[TORCH] else TORCH


def disagreement(ours: Answers, theirs: Answers, bottom: Tensors, by_plan: ByPlan) -> str:
    """Why a program's answers are not the plan's; empty if they agree.

    They agree if no value differs by more than TOLERANCE of its output's largest. Where rounding
    decides, as between near equals in a window of max pooling, a share of UNEQUAL may differ:
    that is so if the plan's own answers change as much when its inputs are moved by a rounding
    error. bottom: the inputs. by_plan: computes the plan's answers.
    """
    found = [_difference(a, b) for a, b in zip(ours, theirs, strict=True)]
    worst = max(found, key=lambda difference: difference.beyond / max(difference.values, 1))
    if not worst.beyond:
        return ""
    if worst.beyond <= UNEQUAL * worst.values and _rounding_decides(ours, bottom, by_plan):
        return ""
    return (
        f"{worst.beyond} of {worst.values} values differ from the plan's, by up to "
        f"{float(worst):.2g} of the largest"
    )


def _rounding_decides(ours: Answers, bottom: Tensors, by_plan: ByPlan) -> bool:
    """Whether the plan's answers change as its inputs are moved by a rounding error."""
    try:
        others = by_plan(_moved(bottom))
    except CaffeError:  # a layer takes whole numbers
        return False
    return any(_difference(a, b).beyond for a, b in zip(ours, others, strict=True))


def _difference(ours: torch.Tensor, theirs: torch.Tensor) -> Difference:
    return measured("", ours.numpy(), theirs.numpy(), "")


def _moved(bottom: Tensors) -> list[torch.Tensor]:
    """The inputs with other rounding errors, the same ones every time."""
    draws = torch.Generator().manual_seed(1)
    moved = []
    for x in bottom:
        size = x.abs().max().item() if x.numel() else 0.0
        noise = torch.rand(x.shape, generator=draws) * 2 - 1
        moved.append(x + noise * (ROUNDING * (size or 1.0)))
    return moved
