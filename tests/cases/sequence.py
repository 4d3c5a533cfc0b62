"""Cases of the layers in caffe/layers/sequence.py."""

from random import Random

from cases import Case, row, shape


@row("Lstm", "lstm_param { num_output: 128 weight_filler { type: 'xavier' } }")
def lstm(rng: Random, name: str) -> Case:
    steps, streams = rng.randint(1, 3), rng.randint(1, 2)
    text = f"num_output: {rng.randint(1, 3)}"
    values = shape(rng, 1, 2)
    if rng.random() < 0.5:
        return Case(f"lstm_param {{ {text} }}", [[steps, streams, *values]])
    text += f" batch_size: {streams}"
    return Case(f"lstm_param {{ {text} }}", [[steps * streams, *values]])


@row("Reverse", "reverse_param { axis: 0 }")
def reverse(rng: Random, name: str) -> Case:
    bottom = shape(rng, 1, 4)
    return Case(f"reverse_param {{ axis: {rng.randrange(len(bottom))} }}", [bottom])


@row("ReverseTime", "reverse_time_param { copy_remaining: true }")
def reverse_time(rng: Random, name: str) -> Case:
    bottom = shape(rng, 2, 4)
    text = f"reverse_time_param {{ copy_remaining: {str(rng.random() < 0.5).lower()} }}"
    return Case(text, [bottom, bottom[1:2]], ("real", f"below {bottom[0] + 1}"))


@row("Transpose", "transpose_param { dim: 1 dim: 0 dim: 2 }")
def transpose(rng: Random, name: str) -> Case:
    bottom = shape(rng, 1, 4)
    order = rng.sample(range(len(bottom)), len(bottom))
    return Case(f"transpose_param {{ {' '.join(f'dim: {i}' for i in order)} }}", [bottom])


@row(
    "ContinuationIndicator",
    "continuation_indicator_param { time_step: 19 batch_size: 32 }",
    gradient=(),
    learns=False,
)
def continuation_indicator(rng: Random, name: str) -> Case:
    text = f"time_step: {rng.randint(1, 4)} batch_size: {rng.randint(1, 3)}"
    return Case(f"continuation_indicator_param {{ {text} }}")
