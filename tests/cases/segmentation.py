"""Accuracies and losses of pixels, and what else pixels' labels need."""

from __future__ import annotations

from random import Random

from cases import Case, row, shape


def pixels(rng: Random) -> tuple[int, list[int], list[int]]:
    """The number of classes, and the shapes of scores and labels."""
    n, classes, height, width = (rng.randint(low, 4) for low in (1, 2, 1, 1))
    return classes, [n, classes, height, width], [n, 1, height, width]


@row(
    "SegmentationAccuracy",
    'top: "class_accuracy" top: "iou" segmentation_accuracy_param { ignore_label: 0 }',
    (),
    False,
)
def segmentation_accuracy(rng: Random, name: str) -> Case:
    classes, scores, labels = pixels(rng)
    text = rng.choice(["", "ignore_label: 0", "ignore_label: 1 ignore_label: 255 reset: false"])
    tops = " ".join(f'top: "top{i}"' for i in range(rng.randint(1, 3)))
    text = f"{tops} segmentation_accuracy_param {{ {text} }}"
    return Case(text, [scores, labels], ("real", f"below {classes}"))


@row("SegAccuracy", "seg_accuracy_param { ignore_label: 255 }", gradient=(), learns=False)
def seg_accuracy(rng: Random, name: str) -> Case:
    classes, scores, labels = pixels(rng)
    text = rng.choice(["", "ignore_label: 0", "ignore_label: 1 ignore_label: 255"])
    return Case(f"seg_accuracy_param {{ {text} }}", [scores, labels], ("real", f"below {classes}"))


@row("EltwiseAccuracy", "eltwise_accuracy_param { ignore_label: 255 }", (), False)
def eltwise_accuracy(rng: Random, name: str) -> Case:
    classes, scores, labels = pixels(rng)
    text = f"top_k: {rng.randint(1, classes)} " + rng.choice(["", "ignore_label: 255"])
    kinds = ("real", f"below {classes}")
    return Case(f"eltwise_accuracy_param {{ {text} }}", [scores, labels], kinds)


@row("SigmoidCrossEntropyBalanceLoss")
def balance_loss(rng: Random, name: str) -> Case:
    scores = [rng.randint(1, 3), *shape(rng, 0, 3)]
    return Case("", [scores, scores], ("real", "below 2"))


@row("BiasChannel", "bias_channel_param { label_type: PIXEL }")
def bias_channel(rng: Random, name: str) -> Case:
    classes, scores, labels = pixels(rng)
    text = rng.choice(["", "bg_bias: 0.5 ", "background_label: 1 "]) + "fg_bias: 3 "
    text += rng.choice(["", "ignore_label: 0 "])
    if rng.random() < 0.5:
        labels = [scores[0], rng.randint(1, 3), 1, 1]
    else:
        text += "label_type: PIXEL"
    return Case(f"bias_channel_param {{ {text} }}", [scores, labels], ("real", f"below {classes}"))


@row("UniqueLabel", "unique_label_param { max_labels: 5 force_label: 0 }", (), False)
def unique_label(rng: Random, name: str) -> Case:
    text = "max_labels: 6 " + rng.choice(["", "ignore_label: 1 ", "force_label: 7 "])
    labels = [rng.randint(1, 3), 1, rng.randint(1, 3), rng.randint(1, 3)]
    return Case(f"unique_label_param {{ {text} }}", [labels], ("below 4",))


@row("DomainTransform", "domain_transform_param { spatial_sigma: 50 range_sigma: 5 }")
def domain_transform(rng: Random, name: str) -> Case:
    n, c, height, width = (rng.randint(low, 3) for low in (1, 1, 2, 2))
    text = f"num_iter: {rng.randint(1, 3)} spatial_sigma: {rng.uniform(2, 9)} range_sigma: 4"
    values, edges = [n, c, height, width], [n, 1, height, width]
    kinds = ("real", "positive", f"below {min(height, width) + 1}")
    return Case(f"domain_transform_param {{ {text} }}", [values, edges, [n, 2, 1, 1]], kinds)


@row("GRN", "grn_param { bias: 1e-8 }")
def grn(rng: Random, name: str) -> Case:
    bottom = [rng.randint(1, 3), *shape(rng, 1, 3)]
    return Case(f"grn_param {{ bias: {rng.choice([0.1, 1])} }}", [bottom])


@row("SegmentationEvaluate", "segmentation_evaluate_param { num_classes: 3 }", (), False)
def evaluate(rng: Random, name: str) -> Case:
    masks = [rng.randint(1, 2), rng.randint(1, 3), rng.randint(1, 4), rng.randint(1, 4)]
    truth = rng.choice([masks, [1, masks[1], 3, 5]])
    text = "segmentation_evaluate_param { num_classes: 3 threshold: 0.3 }"
    return Case(text, [masks, truth], ("distinct", "below 2"))
