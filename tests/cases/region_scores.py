"""Scores of regions and of their surroundings."""

from __future__ import annotations

from random import Random

from cases import Case, row, shape


@row("MIL", example="mil_param { context_per_roi: 10 }")
def instances(rng: Random, name: str) -> Case:
    count = rng.randint(1, 3)
    bottom = [count * rng.randint(1, 3), rng.randint(1, 3), *rng.choice([[], [1], [1, 1]])]
    return Case(f"mil_param {{ context_per_roi: {count} }}", [bottom], ("distinct",))


@row("Sum")
def total(rng: Random, name: str) -> Case:
    first = shape(rng, 2, 3)
    return Case("", [first, *rng.choice([[], [first], [first, [*first, 1]]])])


@row("SigmoidCrossEntropyWeightedLoss")
def cross_entropy(rng: Random, name: str) -> Case:
    scores = shape(rng, 1, 3)
    return Case("", [scores, scores], ("real", "below 2"))
