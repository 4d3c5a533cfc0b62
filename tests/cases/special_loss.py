"""Cases of the losses that forks made for special ends."""

import math
from random import Random

from cases import Case, row, shape
from cases.loss import counting, scores_and_labels


@row("FocalLoss", "focal_loss_param { gamma: 2 alpha: 0.25 }", gradient=(), learns=False)
def focal(rng: Random, name: str) -> Case:
    axis, scores, labels = scores_and_labels(rng)
    text = f"gamma: {rng.choice([0, 1, 2, 0.5])} alpha: {rng.uniform(0.2, 1)} "
    if rng.random() < 0.5:
        text = f"type: {rng.choice(['ORIGIN', 'ONEADDP'])} gamma: {rng.randint(0, 3)}"
    text = f"focal_loss_param {{ {text} }} softmax_param {{ axis: {axis} }} "
    text += f"loss_param {{ {counting(rng)} }} " + rng.choice(["", 'top: "loss" top: "p"'])
    return Case(text, [scores, labels], ("real", f"below {scores[axis]}"))


@row("K1_EuclideanLoss", gradient=(0,))
@row("K2_EuclideanLoss", gradient=(0,))
def halfway(rng: Random, name: str) -> Case:
    bottom = shape(rng, 1, 4)
    return Case("", [bottom, bottom])


@row("DiceCoefLoss", "dice_coef_loss_param { smooth: 1 }", gradient=(), learns=False)
def dice(rng: Random, name: str) -> Case:
    bottom = shape(rng, 1, 4)
    other = rng.choice([bottom, [bottom[0], math.prod(bottom[1:])]])
    return Case(f"dice_coef_loss_param {{ smooth: {rng.uniform(0.1, 2)} }}", [bottom, other])


@row(
    "WeightEuclideanLoss",
    "weight_euclidean_loss_param { main_weight: 1 contour_weight: 0.5 }",
    gradient=(0, 1),
)
def weight_euclidean(rng: Random, name: str) -> Case:
    n = rng.randint(1, 2)
    text = f"main_weight: {rng.uniform(0, 1)} contour_weight: {rng.uniform(0, 1)} "
    text += f"coarse_weight: {rng.choice([0, 2])}"
    return Case(f"weight_euclidean_loss_param {{ {text} }}", [[n, 136], [n, 136, 1, 1]])


@row("MMDLoss", "mmd_param { kernel_num: 5 kernel_mul: 2 }", gradient=(), learns=False)
def mmd(rng: Random, name: str) -> Case:
    vector = shape(rng, 1, 2)
    text = f"mmd_param {{ kernel_num: {rng.randint(1, 4)} kernel_mul: {rng.uniform(1.5, 3)} }}"
    return Case(text, [[rng.randint(2, 3), *vector], [rng.randint(2, 3), *vector]])
