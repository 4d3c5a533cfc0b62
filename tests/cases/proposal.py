"""Proposals."""

from __future__ import annotations

from random import Random

from cases import Case, row


@row(
    "Proposal",
    example="proposal_param { ratio: 0.5 ratio: 1 ratio: 2 scale: 8 scale: 16 scale: 32 }",
    gradient=(),
    learns=False,
)
def proposal(rng: Random, name: str) -> Case:
    ratios, scales = rng.randint(1, 2), rng.randint(1, 2)
    high, wide = rng.randint(1, 4), rng.randint(1, 4)
    text = " ".join(f"ratio: {rng.uniform(0.4, 2.5)}" for _ in range(ratios))
    text += " " + " ".join(f"scale: {rng.uniform(1, 3)}" for _ in range(scales))
    text += f" feat_stride: 8 base_size: 8 min_size: {rng.randint(0, 4)}"
    text += f" pre_nms_topn: {rng.randint(3, 30)} post_nms_topn: {rng.randint(1, 10)}"
    text += f" nms_thresh: {rng.uniform(0.2, 0.8)}"
    count = ratios * scales
    info = rng.choice([["30", "40", "1.5"], ["40", "30", "0.5", "1"]])
    return Case(
        f"proposal_param {{ {text} }} " + rng.choice(["", 'top: "regions" top: "scores"']),
        [[1, 2 * count, high, wide], [1, 4 * count, high, wide], [1, len(info)]],
        ("distinct", "distinct", " ".join(["numbers", *info])),
    )
