"""Normalize in its two meanings."""

import random

from cases import Case, row, shape


@row("Normalize", "norm_param { across_spatial: false channel_shared: false }")
def normalize(rng: random.Random, name: str) -> Case:
    across, shared = (rng.choice(["true", "false"]) for _ in range(2))
    if rng.random() < 0.5:
        text = f"across_spatial: {across} channel_shared: {shared} "
        text += rng.choice(["", "eps: 0.1", "scale_filler { value: 20 }"])
        bottom = shape(rng, 2, 4)
        if shared == "false":  # with several channels SSD's gradient is not the derivative
            bottom[1] = 1
        return Case(f"norm_param {{ {text} }}", [bottom], ("off zero",))
    kind = rng.choice(["L1", "L2"])
    text = rng.choice(["", f'normalize_param {{ normalize_type: "{kind}" }}'])
    if rng.random() < 0.5:
        text = f'bp_norm: true normalize_type: "{kind}"'
        text = f'top: "top" top: "norm" normalize_param {{ {text} }}'
    return Case(text, [shape(rng, 1, 4)], ("off zero",))
