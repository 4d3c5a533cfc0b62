"""Cases of types that are other types in one, or under another name."""

from random import Random

from cases import TABLE, Case, row


@row("ConvolutionReLU", "convolution_param { num_output: 64 kernel_size: 3 }")
@row("ConvolutionReLUPool", "convolution_param { num_output: 64 kernel_size: 3 }")
@row("ConvolutionReLUPoolLRN", "convolution_param { num_output: 64 kernel_size: 3 }")
@row("ReLUPooling", "pooling_param { kernel_size: 3 stride: 2 }")
def chain(rng: Random, name: str) -> Case:
    text = f"pooling_param {{ pool: {rng.choice(['MAX', 'AVE'])} kernel_size: 2 }}"
    if name != "ReLUPooling":
        text += f" convolution_param {{ num_output: {rng.randint(1, 2)} kernel_size: 2 pad: 1 "
        text += 'bias_filler { type: "gaussian" } weight_filler { type: "gaussian" } }'
    if "LRN" in name:
        text += " lrn_param { local_size: 3 alpha: 0.5 }"
    return Case(text, [[2, rng.randint(1, 2), 3, rng.randint(3, 4)]])


@row("InnerProductReLUDropout", "inner_product_param { num_output: 4096 }", (), learns=False)
def inner_product(rng: Random, name: str) -> Case:
    text = 'num_output: 3 weight_filler { type: "gaussian" } bias_filler { type: "gaussian" }'
    return Case(f"inner_product_param {{ {text} }}", [[2, rng.randint(1, 4), 2]])


@row("MKLConvolution", "convolution_param { num_output: 64 kernel_size: 3 pad: 1 }")
@row("MKLPooling", "pooling_param { pool: MAX kernel_size: 2 stride: 2 }")
@row("MKLLRN", "lrn_param { local_size: 5 alpha: 0.0001 beta: 0.75 }")
@row("MKLReLU")
def renamed(rng: Random, name: str) -> Case:
    return TABLE[name.removeprefix("MKL")].draw(rng)
