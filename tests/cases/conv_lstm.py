"""Cases of the layers in caffe/layers/conv_lstm.py."""

from random import Random

from cases import Case, row


@row("ConvLSTM", "lstm_conv_param { num_output: 32 kernel_size: 3 pad: 1 }")
def conv_lstm(rng: Random, name: str) -> Case:
    steps, n, size = rng.randint(1, 3), rng.randint(1, 2), rng.randint(1, 2)
    image = [rng.randint(2, 3) for _ in range(2)]
    dilation = rng.randint(1, 2)
    text = f"lstm_conv_param {{ num_output: {size} kernel_size: 3 pad: {dilation} "
    text += f"dilation: {dilation} }}"
    if rng.random() < 0.3:
        text += " lstm_debug_param { disable_hadamard: true }"
    elif rng.random() < 0.5:
        text += " lstm_debug_param { axis_hadamard: 2 num_axes_hadamard: 1 }"
    bottoms = [[steps, n, rng.randint(1, 2), *image], [steps, n]]
    kinds = ["real", "ones"]
    if rng.random() < 0.5:
        bottoms += [[1, n, size, *image]] * 2
        kinds += ["real", "real"]
        text += ' recurrent_param { expose_hidden: true } top: "y" top: "h" top: "c"'
    return Case(text, bottoms, tuple(kinds))
