"""Losses and accuracies."""

import math
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from caffe.formats.files import write_blob
from cases import Case, row, shape

NORMALIZATIONS = ("FULL", "VALID", "BATCH_SIZE", "NONE")


def counting(rng: random.Random, too: Sequence[str] = ()) -> str:
    """The fields for ignored labels and the divisor; too: further ways to set the divisor."""
    ways = ["", *too, *(f"normalization: {mode}" for mode in NORMALIZATIONS)]
    return rng.choice(["", "ignore_label: 0 ", "ignore_label: 1 ", "ignore_label: 255 "]) + (
        rng.choice(ways)
    )


def scores_and_labels(rng: random.Random) -> tuple[int, list[int], list[int]]:
    """The class axis, the shape of scores with 2 .. 4 classes on it, and one of the labels."""
    classes, samples, positions = rng.randint(2, 4), rng.randint(1, 3), shape(rng, 0, 2)
    if rng.random() < 0.1:  # as many samples as classes: then the classes may come first
        return 0, [classes, classes, *positions], [classes, *positions]
    axis = rng.randint(1, 1 + len(positions))
    scores = [samples, *positions]
    scores.insert(axis, classes)
    labels = rng.choice([[samples, *positions], [samples, math.prod(positions)]])
    return rng.choice([axis, axis - len(scores)]), scores, labels


@row("SoftmaxWithLoss", example="loss_param { ignore_label: 255 }")
def softmax_loss(rng: random.Random, name: str) -> Case:
    axis, scores, labels = scores_and_labels(rng)
    text = counting(rng, ["normalize: true", "normalize: false"])
    if rng.random() < 0.5:
        weights = (f"label_weights: {rng.uniform(0.1, 3)}" for _ in range(scores[axis]))
        text += " use_weights: true " + " ".join(weights)
    engine = rng.choice(["DEFAULT", "CAFFE", "CUDNN"])
    text = f"loss_param {{ {text} }} softmax_param {{ axis: {axis} engine: {engine} }} "
    text += rng.choice(["", 'top: "loss" top: "probabilities"'])
    return Case(text, [scores, labels], ("real", f"below {scores[axis]}"))


@row("InfogainLoss", example='infogain_loss_param { source: "infogain.binaryproto" }')
def infogain_loss(rng: random.Random, name: str) -> Case:
    axis, scores, labels = scores_and_labels(rng)
    classes = scores[axis]
    gains = rng.choice([[classes, classes], [1, 1, classes, classes]])
    values = np.random.default_rng(rng.randrange(99)).uniform(size=gains).astype(np.float32)
    text, bottoms, files = f"axis: {axis} ", [scores, labels], None
    if rng.random() < 0.5:
        bottoms.append(gains)
    else:
        text += 'source: "infogain.binaryproto"'
        files = lambda: write_blob(Path("infogain.binaryproto"), values)  # noqa: E731
    text = f"infogain_loss_param {{ {text} }} loss_param {{ {counting(rng)} }} "
    text += rng.choice(["", 'top: "loss" top: "probabilities"'])
    return Case(text, bottoms, ("real", f"below {classes}", "real"), files=files)


@row(
    "Accuracy",
    example="accuracy_param { top_k: 5 ignore_label: 255 }",
    gradient=(),
    learns=False,
)
def accuracy(rng: random.Random, name: str) -> Case:
    axis, scores, labels = scores_and_labels(rng)
    text = f"axis: {axis} top_k: {rng.randint(1, scores[axis])} "
    text += rng.choice(["", "ignore_label: 0", "ignore_label: 255"])
    text = f"accuracy_param {{ {text} }} " + rng.choice(["", 'top: "all" top: "each"'])
    return Case(text, [scores, labels], ("real", f"below {scores[axis]}"))


@row("SigmoidCrossEntropyLoss", example="loss_param { normalization: VALID }")
def cross_entropy(rng: random.Random, name: str) -> Case:
    scores = [rng.randint(1, 3), *shape(rng, 0, 2)]
    targets = rng.choice([scores, [scores[0], math.prod(scores[1:])]])
    text = counting(rng, ["normalize: true", "normalize: false"])
    return Case(
        f"loss_param {{ {text} }}", [scores, targets], ("real", rng.choice(["below 2", "distinct"]))
    )


@row("EuclideanLoss")
def euclidean(rng: random.Random, name: str) -> Case:
    bottom = [rng.randint(1, 3), *shape(rng, 0, 2)]
    return Case(
        "", [bottom, rng.choice([bottom, [*bottom, 1], [bottom[0], math.prod(bottom[1:])]])]
    )


@row("HingeLoss", example="hinge_loss_param { norm: L2 }")
@row("MultinomialLogisticLoss")
def per_sample(rng: random.Random, name: str) -> Case:
    norm = f"hinge_loss_param {{ norm: {rng.choice(['L1', 'L2'])} }}" if name == "HingeLoss" else ""
    kind = "positive" if name == "MultinomialLogisticLoss" else "real"
    scores = [rng.randint(1, 3), *shape(rng, 0, 3)]
    labels = [scores[0], *rng.choice([[], [1], [1, 1]])]
    return Case(norm, [scores, labels], (kind, f"below {math.prod(scores[1:])}"))


@row("ContrastiveLoss", example="contrastive_loss_param { margin: 1 }")
def contrastive(rng: random.Random, name: str) -> Case:
    legacy = rng.random() < 0.5
    text = f"margin: {rng.uniform(1, 4)} legacy_version: {'true' if legacy else 'false'}"
    samples = rng.randint(1, 4)
    # Caffe's gradient has the distance plus 1e-4 where the derivative has the distance, which
    # matters least where vectors are long and far apart.
    vectors = [[samples, 3], [samples, 4, 1], [samples, 3, 1, 1]]
    bottom = rng.choice([*vectors, [samples]] if legacy else vectors)
    similar = [samples, *rng.choice([[], [1], [1, 1, 1]])]
    return Case(
        f"contrastive_loss_param {{ {text} }}",
        [bottom, rng.choice([bottom, [*bottom, 1]] if len(bottom) > 1 else [bottom]), similar],
        ("real", "real", "below 2"),
        tolerance=1e-6 if legacy else 1e-3,
    )
