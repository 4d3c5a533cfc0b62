"""Normalising layers, Scale and Bias."""

import random

import caffe
from cases import Case, row, shape, some_axis

PHASES = (caffe.TRAIN, caffe.TEST)


@row("BatchNorm", example="batch_norm_param { moving_average_fraction: 0.9 }", learns=False)
def batch_norm(rng: random.Random, name: str) -> Case:
    fixed = rng.choice(["", "use_global_stats: true", "use_global_stats: false"])
    text = f"eps: {rng.choice([0.01, 0.1])} moving_average_fraction: {rng.uniform(0, 1)} {fixed}"
    bottom = [rng.randint(1, 3), *shape(rng, 0, 3)]
    return Case(f"batch_norm_param {{ {text} }}", [bottom], phase=rng.choice(PHASES))


@row("MVN", example="mvn_param { across_channels: true }")
def mean_variance(rng: random.Random, name: str) -> Case:
    text = f"normalize_variance: {rng.choice(['true', 'false'])} "
    text += f"across_channels: {rng.choice(['true', 'false'])} "
    # Caffe's gradient leaves eps out. The difference shows where eps is large or values are close.
    text += rng.choice(["", "eps: 1e-10"])
    return Case(f"mvn_param {{ {text} }}", [shape(rng, 1, 4)], ("apart",))


@row("LRN", example="lrn_param { local_size: 5 alpha: 0.0001 beta: 0.75 }")
def response(rng: random.Random, name: str) -> Case:
    region = rng.choice(["ACROSS_CHANNELS", "WITHIN_CHANNEL"])
    text = f"local_size: {rng.choice([1, 3, 5, 7])} alpha: {rng.uniform(0.1, 1)} "
    text += f"beta: {rng.uniform(0.3, 1.2)} k: {rng.uniform(0.5, 2)} norm_region: {region} "
    text += f"engine: {rng.choice(['DEFAULT', 'CAFFE', 'CUDNN'])}"
    return Case(f"lrn_param {{ {text} }}", [[rng.randint(1, 2), *shape(rng, 3, 3, largest=4)]])


@row("Scale", example="scale_param { bias_term: true }")
@row("Bias", example="bias_param { filler { value: 0.1 } }")
def broadcast(rng: random.Random, name: str) -> Case:
    bottom = shape(rng, 1, 4)
    axis = some_axis(rng, len(bottom))
    start = axis % len(bottom)
    end = rng.randint(start, len(bottom))
    text, bottoms = f"axis: {axis} ", [bottom]
    if rng.random() < 0.5:
        bottoms.append(bottom[start:end])
    else:
        text += f"num_axes: {rng.choice([-1, end - start])} "
        # Some fillers need axes, which a blob for no axes lacks.
        text += rng.choice(["", 'filler { type: "uniform" min: 0.5 max: 2 } '])
    if name == "Scale" and rng.random() < 0.5:
        text += "bias_term: true "
        text += rng.choice(["", 'bias_filler { type: "gaussian" } '])
    return Case(f"{name.lower()}_param {{ {text} }}", bottoms)
