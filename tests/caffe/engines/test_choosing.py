"""Choosing an engine by the clock, and whether its answers are the plan's."""

from __future__ import annotations

import pytest
import torch

from caffe.engines import choosing
from caffe.engines.choosing import disagreement, fastest, time_passes


def timed(**durations: list[float]) -> tuple[dict[str, float], list[str]]:
    """What time_passes finds for programs whose passes take these seconds (the last one again and
    again), and the order of the passes.
    """
    clock, order = [0.0], []

    def program(name: str, left: list[float]):
        def run() -> None:
            order.append(name)
            clock[0] += left.pop(0) if len(left) > 1 else left[0]

        return run

    passes = {name: program(name, [*seconds]) for name, seconds in durations.items()}
    return time_passes(passes, lambda: clock[0]), order


def test_the_shortest_pass_counts_and_programs_take_turns() -> None:
    seconds, order = timed(a=[5.0, 2.0, 4.0], b=[3.0, 9.0, 1.0])
    assert seconds == {"a": pytest.approx(2), "b": pytest.approx(1)}
    assert order == ["a", "b"] * choosing.FEWEST


def test_short_passes_are_timed_more_often() -> None:
    assert timed(a=[1e-3])[1] == ["a"] * choosing.MOST
    assert timed(a=[0.26])[1] == ["a"] * 4  # the fifth would begin after a second


def test_threads_of_the_program_before_are_asleep(monkeypatch) -> None:
    """Else the one behind the plan would share the cores with PyTorch's threads that still wait."""
    rests: list[float] = []
    monkeypatch.setattr(choosing.time, "sleep", rests.append)
    timed(a=[5.0], b=[3.0])
    assert rests == []
    torch.set_num_threads(2)
    timed(a=[5.0], b=[3.0])
    assert rests == [choosing.REST] * 2 * choosing.FEWEST


def test_the_plan_stays_where_little_is_gained() -> None:
    assert fastest({"torch": 1.0, "other": 0.98}) == "torch"
    assert fastest({"torch": 1.0, "other": 0.9, "third": 0.8}) == "third"


def by_plan(bottom):
    """A sum, and the place of the largest value of each row."""
    (x,) = bottom
    return [x.sum(1), x.argmax(1).float()]


def test_small_differences_are_agreement() -> None:
    x = torch.arange(12.0).view(2, 6)
    ours = by_plan([x])
    assert disagreement(ours, [ours[0] * (1 + 5e-5), ours[1]], [x], by_plan) == ""
    why = disagreement(ours, [ours[0] * (1 + 3e-4), ours[1]], [x], by_plan)
    assert why == "1 of 2 values differ from the plan's, by up to 0.0003 of the largest"


def rows(equal: bool) -> torch.Tensor:
    """200 rows; of the first, two values are the largest if `equal`."""
    x = torch.rand(200, 8, generator=torch.Generator().manual_seed(0))
    x[0, 2] = 2.0
    x[0, 5] = 2.0 if equal else 1.5
    return x


def answers_with_other_place(x: torch.Tensor) -> list[torch.Tensor]:
    total, places = by_plan([x])
    places[0] = 5
    return [total, places]


def test_where_rounding_decides_few_values_may_differ() -> None:
    """The plan chooses the other one itself if its inputs are moved by rounding."""
    x = rows(equal=True)
    moved = by_plan(choosing._moved([x]))[1]
    other = answers_with_other_place(x) if moved[0] == 5 else by_plan([x])
    other[1][0] = 5
    assert disagreement(by_plan([x]), other, [x], by_plan) == ""
    assert moved[0] == 5, "the draws of this test do not decide the other way"


def test_where_rounding_does_not_decide_no_value_may_differ() -> None:
    x = rows(equal=False)
    assert disagreement(by_plan([x]), answers_with_other_place(x), [x], by_plan) != ""


def test_many_values_may_never_differ() -> None:
    x = rows(equal=True)
    total, places = by_plan([x])
    assert disagreement(by_plan([x]), [total, places + 1], [x], by_plan) != ""


def test_nan_agrees_with_nan_alone() -> None:
    x = torch.tensor([[1.0, float("nan")], [2.0, 3.0]])
    ours = by_plan([x])
    assert disagreement(ours, [t.clone() for t in ours], [x], by_plan) == ""
    assert disagreement(ours, [torch.tensor([1.0, 5.0]), ours[1]], [x], by_plan) != ""
