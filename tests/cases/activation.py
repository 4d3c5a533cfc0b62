"""Cases of the layers that work on each value by itself."""

from random import Random

import caffe
from cases import Case, row, shape


@row("Sigmoid")
@row("TanH")
@row("BNLL")
@row("AbsVal")
def plain(rng: Random, name: str) -> Case:
    return Case("", [shape(rng, 0, 5)], ("off zero",))


@row("ReLU", "relu_param { negative_slope: 0.1 }")
def relu(rng: Random, name: str) -> Case:
    slope = rng.choice([0, 0.1, 0.5, -0.3, 2])
    return Case(f"relu_param {{ negative_slope: {slope} }}", [shape(rng, 0, 5)], ("off zero",))


@row("ReLU6", "relu6_param { negative_slope: 0.1 }")
def relu6(rng: Random, name: str) -> Case:
    slope = rng.choice([0, 0.1, 0.5])
    return Case(f"relu6_param {{ negative_slope: {slope} }}", [shape(rng, 0, 5)], ("around 6",))


@row("PReLU", 'prelu_param { channel_shared: true filler { type: "constant" value: 0.1 } }')
def prelu(rng: Random, name: str) -> Case:
    text = f"channel_shared: {rng.choice(['true', 'false'])} "
    text += rng.choice(["", 'filler { type: "uniform" min: 0.1 max: 0.4 }'])
    return Case(f"prelu_param {{ {text} }}", [shape(rng, 2, 5)], ("off zero",))


@row("ELU", "elu_param { alpha: 0.5 }")
def elu(rng: Random, name: str) -> Case:
    alpha = rng.choice([0, rng.uniform(-1, 2)])
    return Case(f"elu_param {{ alpha: {alpha} }}", [shape(rng, 0, 5)], ("off zero",))


@row("Swish", "swish_param { beta: 2 }")
def swish(rng: Random, name: str) -> Case:
    beta = rng.choice([0, 1, rng.uniform(-2, 2)])
    return Case(f"swish_param {{ beta: {beta} }}", [shape(rng, 0, 5)])


@row("Clip", "clip_param { min: 0 max: 6 }")
def clip(rng: Random, name: str) -> Case:
    least, most = rng.choice([(-0.05, 0.05), (-0.05, 9), (-9, 0.05), (0.05, -0.05)])
    return Case(f"clip_param {{ min: {least} max: {most} }}", [shape(rng, 0, 5)])


@row("Threshold", "threshold_param { threshold: 0.5 }", gradient=(), learns=False)
def threshold(rng: Random, name: str) -> Case:
    limit = rng.uniform(-0.05, 0.05)
    return Case(f"threshold_param {{ threshold: {limit} }}", [shape(rng, 0, 5)], ("off zero",))


@row("Dropout", "dropout_param { dropout_ratio: 0.3 }")
def dropout(rng: Random, name: str) -> Case:
    # Multiples of 1/256 are drawn in another way than the rest.
    ratio = rng.choice([0, 0.5, rng.randint(1, 255) / 256, rng.uniform(0.1, 0.8)])
    later = rng.choice(["", "scale_train: true", "scale_train: false"])
    text = f"dropout_param {{ dropout_ratio: {ratio} {later} }}"
    return Case(text, [shape(rng, 0, 5)], phase=rng.choice([caffe.TRAIN, caffe.TEST]))


@row("Power", "power_param { power: 2 scale: 0.5 shift: 1 }")
def power(rng: Random, name: str) -> Case:
    exponent = rng.choice([0, 1, 2, 3, -1, 0.5])
    # Roots and quotients need positive values.
    low = -2 if exponent in (0, 1, 2, 3) else 0.1
    text = f"power: {exponent} scale: {rng.choice([0, 1, rng.uniform(low, 2)])} "
    text += f"shift: {rng.uniform(low, 2)}"
    return Case(f"power_param {{ {text} }}", [shape(rng, 0, 5)], ("positive",))


@row("Exp", "exp_param { base: 2 scale: 0.5 shift: 1 }")
def exp(rng: Random, name: str) -> Case:
    text = f"base: {rng.choice([-1, 2, 0.5, 1, 10])} "
    text += f"scale: {rng.choice([0, 1, rng.uniform(-1.5, 1.5)])} shift: {rng.uniform(-1, 1)}"
    return Case(f"exp_param {{ {text} }}", [shape(rng, 0, 5)])


@row("Log", "log_param { base: 10 scale: 2 shift: 1 }")
def log(rng: Random, name: str) -> Case:
    text = f"base: {rng.choice([-1, 2, 0.5, 10])} "
    text += f"scale: {rng.choice([0, 1, rng.uniform(0.3, 2)])} shift: {rng.uniform(0.1, 2)}"
    return Case(f"log_param {{ {text} }}", [shape(rng, 0, 5)], ("positive",))
