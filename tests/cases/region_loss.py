"""Losses of detectors by regions."""

from __future__ import annotations

from random import Random

import cases.loss
from cases import Case, row, shape

DIVISORS = ("VALID", "FULL", "BATCH_SIZE", "NONE", "PRE_FIXED pre_fixed_normalizer: 16")


@row("SmoothL1Loss", example="smooth_l1_loss_param { sigma: 3 }", gradient=(0, 1))
@row(
    "SmoothL1LossOHEM",
    example="loss_param { normalization: PRE_FIXED pre_fixed_normalizer: 128 }",
    gradient=(0, 1),
)
def smooth_l1(rng: Random, name: str) -> Case:
    bottoms = rng.choice([2, 3] if name.endswith("OHEM") else [2, 3, 4])
    text = rng.choice(["", "loss_param { normalization: " + rng.choice(DIVISORS) + " }"])
    text += rng.choice(["", ' top: "top" top: "each"'])
    if not name.endswith("OHEM"):
        text += rng.choice(["", f" smooth_l1_loss_param {{ sigma: {rng.uniform(0.5, 3)} }}"])
    # With three bottoms the gradient is not multiplied by the weights, which are 0 or 1.
    kinds = ("real", "real", "below 2", "positive")[:bottoms]
    return Case(text, [shape(rng, 1, 4)] * bottoms, kinds)


@row("SoftmaxWithLossOHEM", example="loss_param { ignore_label: -1 }")
@row("BalancedSoftmaxWithLoss", example="loss_param { ignore_label: -1 }")
def softmax(rng: Random, name: str) -> Case:
    case = cases.loss.softmax_loss(rng, name)
    if name == "SoftmaxWithLossOHEM" and rng.random() < 0.5 and "top:" not in case.param:
        case.param += ' top: "loss" top: "probabilities" top: "each"'
    return case


@row(
    "BoxAnnotatorOHEM",
    example='box_annotator_ohem_param { roi_per_img: 128 ignore_label: -1 } top: "weights"',
    gradient=(),
    learns=False,
)
def annotator(rng: Random, name: str) -> Case:
    count, channels, plane = rng.randint(1, 6), rng.randint(1, 3), shape(rng, 2, 2, 2)
    shapes = [[count, 5, *plane], *[[count, 1, *plane]] * 2, [count, channels, *plane]]
    kinds = ["below 2", "distinct", "below 4", "real"]
    if rng.random() < 0.5:
        shapes = [[count, 5], [count], [count], [count, channels]]
        kinds[0] = "regions 2 9"
    text = f"box_annotator_ohem_param {{ roi_per_img: {rng.randint(1, 3)} }}"
    return Case(f'{text} top: "labels" top: "weights"', shapes, tuple(kinds))
