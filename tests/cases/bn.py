"""BN in its three kinds."""

import random

import caffe
from cases import Case, row, shape


@row("BN", example="bn_param { slope_filler { value: 1 } frozen: true }", learns=False)
def bn(rng: random.Random, name: str) -> Case:
    bottom = [rng.randint(2, 3), *shape(rng, 1, 3)]
    phase, tops = rng.choice([caffe.TRAIN, caffe.TEST]), ""
    kind = rng.choice(["segnet", "windows", "tsn"])
    if kind == "segnet":
        text = f"scale_filler {{ value: 1.5 }} bn_mode: {rng.choice(['LEARN', 'INFERENCE'])}"
        if "LEARN" in text and rng.random() < 0.3:
            tops = 'top: "top" top: "mean" top: "variance"'
    elif kind == "windows":
        averaged = rng.choice(["true", "false"])
        text = f"decay: 0.9 var_eps: 0.01 scale_filler {{ value: 2 }} moving_average: {averaged}"
        phase = caffe.TRAIN if averaged == "true" else phase  # TEST: see test_bn.py
    else:
        phase, frozen = (caffe.TRAIN, rng.choice(["true", "false"]))
        text = f"slope_filler {{ value: 2 }} eps: {rng.choice([0.01, 0.1])} frozen: {frozen}"
        text += f" momentum: {rng.choice([0.9, 0.95])}"
    return Case(f"{tops} bn_param {{ {text} }}", [bottom], phase=phase)
