"""Layers that step through time."""

import random

from cases import Case, row, shape

FILLERS = 'weight_filler { type: "uniform" min: -1 } bias_filler { type: "gaussian" }'
EXAMPLE = 'recurrent_param { num_output: 256 weight_filler { type: "uniform" min: -0.1 max: 0.1 } }'
STATES = {"RNN": 1, "LSTM": 2}


@row("LSTMUnit", example="")
def unit(rng: random.Random, name: str) -> Case:
    n, d = rng.randint(1, 3), rng.randint(1, 3)
    kinds = ("real", "real", "below 2")
    return Case('top: "c" top: "h"', [[1, n, d], [1, n, 4 * d], [1, n]], kinds)


@row("RNN", example=EXAMPLE)
@row("LSTM", example=EXAMPLE)
def recurrent(rng: random.Random, name: str) -> Case:
    steps, streams, outputs = rng.randint(1, 3), rng.randint(1, 2), rng.randint(1, 3)
    static = [[streams, *shape(rng, 1, 2)]] if rng.random() < 0.5 else []
    exposed = STATES[name] if rng.random() < 0.4 else 0
    # Caffe gives exposed states no gradient. That is the derivative where all sequences begin anew.
    indicators = "below 1" if exposed else "below 2"
    text = f"recurrent_param {{ num_output: {outputs} {FILLERS} "
    text += f"expose_hidden: {'true' if exposed else 'false'} "
    text += f"debug_info: {rng.choice(['true', 'false'])} }} "
    text += " ".join(f'top: "top{i}"' for i in range(1 + exposed))
    bottoms = [[steps, streams, *shape(rng, 1, 2)], [steps, streams], *static]
    bottoms += [[1, streams, outputs]] * exposed
    return Case(text, bottoms, ("real", indicators, *["real"] * (len(bottoms) - 2)))
