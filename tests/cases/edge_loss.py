"""Cases of losses over maps of edges and masks."""

import math
from random import Random

from cases import Case, row, shape


@row("MultiChannelReweightedSigmoidCrossEntropyLoss")
def reweighted(rng: Random, name: str) -> Case:
    n, _, h, w = shape(rng, 4, 4)
    words = rng.randint(1, 2)
    kinds = ("real", rng.choice(["below 3", "real"]))
    return Case("", [[n, rng.randint(1, 32 * words - 1), h, w], [n, words, h, w]], kinds)


@row("NormalizedSigmoidCrossEntropyLoss")
def normalized(rng: Random, name: str) -> Case:
    scores = shape(rng, 4, 4)
    targets = rng.choice([scores, [scores[0], math.prod(scores[1:])]])
    return Case("", [scores, targets], ("real", "below 2"))


@row("ManhattanLoss")
def manhattan(rng: Random, name: str) -> Case:
    bottom = shape(rng, 1, 4)
    return Case("", [bottom, rng.choice([bottom, [bottom[0], math.prod(bottom[1:])]])])
