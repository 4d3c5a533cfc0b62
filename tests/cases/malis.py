"""MALIS and what it needs."""

from __future__ import annotations

from random import Random

from cases import Case, row


@row("Affinity", "affinity_param { offset: 1 offset: 0 }", (), False)
def affinity(rng: Random, name: str) -> Case:
    bottom = [rng.randint(1, 2), 2, rng.randint(1, 4), rng.randint(1, 4)]
    if rng.random() < 0.5:
        return Case("affinity_param { offset: 1 }", [bottom])
    return Case('affinity_param { offset: 1 } top: "top" top: "other"', [bottom, bottom])


@row("ConnectedComponent", "", (), False)
def components(rng: Random, name: str) -> Case:
    return Case("", [[rng.randint(1, 2), 1, rng.randint(1, 4), rng.randint(1, 4)]], ("below 3",))


@row("MalisLoss", "", (), False)
def malis(rng: Random, name: str) -> Case:
    axes = rng.randint(1, 3)
    image = [rng.randint(1, 3) for _ in range(axes)]
    ties = [rng.randint(1, 2), axes, *image]
    segments = [ties[0], rng.randint(1, 2), *image]
    kinds = ("distinct", "below 2", "below 3")
    more = rng.choice(["", 'top: "loss" top: "ties"'])
    if rng.random() < 0.3:
        return Case(more, [ties, ties, segments, [axes, 3]], (*kinds, "below 2"))
    return Case(more, [ties, ties, segments], kinds)
