"""Cases of DenseNets' blocks."""

from random import Random

import caffe
from cases import Case, row


@row("DenseBlock", "denseblock_param { numTransition: 8 initChannel: 64 growthRate: 8 }")
def dense_block(rng: Random, name: str) -> Case:
    channels = rng.randint(1, 2)
    text = f"numTransition: {rng.randint(1, 2)} initChannel: {channels} growthRate: 1 "
    text += 'Filter_Filler { type: "xavier" } BN_Scaler_Filler { value: 1 } '
    text += rng.choice(["", "use_BC: true", "use_dropout: true dropout_amount: 0"])
    phase = rng.choice([caffe.TRAIN, caffe.TEST])
    image = [2, channels, rng.randint(2, 3), 2]
    return Case(f"denseblock_param {{ {text} }}", [image], phase=phase, tolerance=1e-4)
