"""Cases of the layers that widen margins."""

from random import Random

import caffe
from cases import Case, row, shape


@row("LabelSpecificAdd", "label_specific_add_param { bias: -0.35 }")
def label_specific_add(rng: Random, name: str) -> Case:
    samples, classes = rng.randint(1, 3), rng.randint(1, 4)
    text = f"bias: {rng.uniform(-0.5, 0.5)}"
    if rng.random() < 0.5:
        text = f"bias_base: 0 bias_gamma: {rng.uniform(-0.1, 0.1)} bias_min: -0.4 bias_max: 0.1"
        text += f" iteration: {rng.randint(0, 3)}"
    text = f"label_specific_add_param {{ {text} }} " + rng.choice(["", 'top: "a" top: "b"'])
    phase = rng.choice([caffe.TRAIN, caffe.TEST])
    return Case(text, [[samples, classes], [samples]], ("real", f"below {classes}"), phase)


@row("LabelSpecificRescale", "label_specific_rescale_param { positive_weight: 0.5 }")
def label_specific_rescale(rng: Random, name: str) -> Case:
    samples, classes = rng.randint(1, 3), rng.randint(1, 4)
    text = f"positive_weight: {rng.uniform(0.1, 2)} negative_weight: {rng.choice([1, 0.5])}"
    text = f"label_specific_rescale_param {{ {text} }}"
    phase = rng.choice([caffe.TRAIN, caffe.TEST])
    return Case(text, [[samples, classes], [samples]], ("real", f"below {classes}"), phase)


@row(
    "MarginInnerProduct",
    "margin_inner_product_param { num_output: 10 type: QUADRUPLE base: 1000 gamma: 0.12 "
    "lambda_min: 5 }",
    gradient=(),
    learns=False,
)
@row(
    "LargeMarginInnerProduct",
    "largemargin_inner_product_param { num_output: 10 type: DOUBLE base: 1000 gamma: 0.12 "
    "lambda_min: 5 }",
)
def margin_product(rng: Random, name: str) -> Case:
    samples, classes = rng.randint(1, 3), rng.randint(1, 3)
    x = [samples, rng.randint(2, 3), *shape(rng, 0, 1)]
    kind = rng.choice(["SINGLE", "DOUBLE", "TRIPLE", "QUADRUPLE"])
    text = f"type: {kind} base: {rng.uniform(0, 3)} gamma: 0.1 lambda_min: {rng.uniform(0, 1)} "
    text += f"num_output: {classes} iteration: {rng.randint(0, 5)} "
    text += 'weight_filler { type: "gaussian" std: 1 }'
    field = name.removesuffix("InnerProduct").lower() + "_inner_product_param"
    bottoms, kinds = [x, [samples]], ["real", f"below {classes}"]
    if name.startswith("Large") and rng.random() < 0.3:
        values = 1
        for n in x[1:]:
            values *= n
        bottoms, kinds = [*bottoms, [classes, values]], [*kinds, "real"]
    tops = rng.choice(["", 'top: "a" top: "b"'])
    return Case(f"{field} {{ {text} }} {tops}", bottoms, tuple(kinds))
