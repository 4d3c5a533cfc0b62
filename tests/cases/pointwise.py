"""Cases of forks' layers that work on each value by itself."""

from random import Random

import caffe
from cases import Case, row, shape

TRUTH = ("true", "false")


@row("SeLu")
def selu(rng: Random, name: str) -> Case:
    return Case("", [shape(rng, 0, 5)], ("off zero",))


@row("SeLuDropout", "selu_dropout_param { dropout_ratio: 0.1 }")
def selu_dropout(rng: Random, name: str) -> Case:
    text = f"selu_dropout_param {{ dropout_ratio: {rng.uniform(0, 0.8)} }}"
    return Case(text, [shape(rng, 0, 5)], phase=rng.choice([caffe.TRAIN, caffe.TEST]))


@row("SoftTruncation", "soft_truncation_param { c: 2 }")
def soft_truncation(rng: Random, name: str) -> Case:
    return Case(f"soft_truncation_param {{ c: {rng.uniform(0.5, 3)} }}", [shape(rng, 0, 5)])


@row("Truncation", "truncation_param { lower_bound: 0 upper_bound: 5 }")
def truncation(rng: Random, name: str) -> Case:
    low, high = rng.choice([(-0.05, 0.05), (-0.05, 9), (-9, 0.05)])
    text = f"truncation_param {{ lower_bound: {low} upper_bound: {high} }}"
    return Case(text, [shape(rng, 0, 5)], ("off zero",))


@row("Sparsify", "sparsify_param { thre: 0.1 coef: 0.001 }", gradient=(), learns=False)
def sparsify(rng: Random, name: str) -> Case:
    text = f"thre: {rng.choice([0, rng.uniform(0, 0.09)])} coef: {rng.uniform(0, 0.1)}"
    return Case(f"sparsify_param {{ {text} }}", [shape(rng, 0, 5)], ("off zero",))


@row("Noise", "noise_param { gaussian_std: 0.001 }")
def noise(rng: Random, name: str) -> Case:
    # In TRAIN the gradient leaves out how gaussian_std depends on the bottom.
    phase = rng.choice([caffe.TRAIN, caffe.TEST])
    text = rng.choice(["uniform_range: 0.1", ""])
    text = "gaussian_std: 0.1 bias: 1" if phase == caffe.TEST else text
    return Case(f"noise_param {{ {text} }}", [shape(rng, 0, 5)], phase=phase)


@row("ScaleFilter", "scale_filter_param { min_scale: 0.5 max_scale: 1.5 }")
def scale_filter(rng: Random, name: str) -> Case:
    text = f"min_scale: {rng.uniform(0.1, 0.9)} max_scale: {rng.uniform(1, 2)}"
    return Case(
        f"scale_filter_param {{ {text} }}",
        [shape(rng, 4, 4)],
        phase=rng.choice([caffe.TRAIN, caffe.TEST]),
    )


@row("Quantize", gradient=(), learns=False)
def quantize(rng: Random, name: str) -> Case:
    return Case("", [shape(rng, 0, 4)], ("below 220",))


@row("Rescale", "rescale_param { rf: 196 }", gradient=(), learns=False)
def rescale(rng: Random, name: str) -> Case:
    text = f"rescale_param {{ rf: {rng.randint(1, 30)} }} " + rng.choice(["", 'top: "a" top: "b"'])
    return Case(text, [shape(rng, 0, 4)], ("below 40",))


@row("Mish")
def mish(rng: Random, name: str) -> Case:
    return Case("", [shape(rng, 0, 5)])


@row("BReLU", "brelu_param { minval: 0 maxval: 1 }")
def brelu(rng: Random, name: str) -> Case:
    low, high = rng.choice([(-0.05, 0.05), (-0.05, 9), (0, 9)])
    return Case(
        f"brelu_param {{ minval: {low} maxval: {high} }}", [shape(rng, 0, 5)], ("off zero",)
    )


@row("GuidedDropout", 'guided_dropout_param { type: "stochastic" sigmoid_scaler: 1 }')
def guided_dropout(rng: Random, name: str) -> Case:
    bottom = shape(rng, 2, 4)
    text = f"guidance_threshold: {rng.uniform(-1, 1)}"
    if stochastic := rng.random() < 0.5:
        text = 'type: "stochastic" sigmoid_scaler: 2'
    phase = caffe.TEST if stochastic else rng.choice([caffe.TRAIN, caffe.TEST])
    guidance = [*bottom[:2], *rng.choice([[], [1, 1]])]
    return Case(f"guided_dropout_param {{ {text} }}", [bottom, guidance], phase=phase)
