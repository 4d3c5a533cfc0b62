"""Cases of the layers in caffe/layers/common.py."""

from random import Random

from cases import Case, row, shape, some_axis
from cases.rearrange import fields

TRUTH = ("true", "false")


@row("Eltwise", "eltwise_param { operation: SUM coeff: 1 coeff: -1 }")
def eltwise(rng: Random, name: str) -> Case:
    bottoms = [shape(rng, 0, 4)] * rng.randint(1, 4)
    operation = rng.choice(["PROD", "SUM", "MAX"])
    text = f"operation: {operation} "
    if operation == "PROD":
        text += f"stable_prod_grad: {rng.choice(TRUTH)}"
    elif rng.random() < 0.7:  # MAX takes them, too, and has no use for them
        text += fields("coeff", [rng.uniform(-1, 1) for _ in bottoms])
    return Case(f"eltwise_param {{ {text} }}", bottoms, ("off zero",) * len(bottoms))


@row("Axpy")
def axpy(rng: Random, name: str) -> Case:
    x = [rng.randint(1, 3), rng.randint(1, 3), *shape(rng, 0, 3)]
    a = rng.choice([x[:2], [*x[:2], 1, 1]])
    return Case("", [a, x, x])


@row("InnerProduct", 'inner_product_param { num_output: 10 weight_filler { type: "xavier" } }')
def inner_product(rng: Random, name: str) -> Case:
    bottom = shape(rng, 1, 4)
    outputs, axis = rng.randint(1, 3), some_axis(rng, len(bottom))
    bias = rng.choice(TRUTH)
    text = f"num_output: {outputs} axis: {axis} bias_term: {bias} "
    text += 'weight_filler { type: "gaussian" std: 1 } bias_filler { type: "gaussian" std: 1 } '
    if rng.random() < 0.3:  # forks: weights, and perhaps the bias, as bottoms
        weights = [outputs, *bottom[axis % len(bottom) :]]
        further = [weights, [outputs]] if bias == "true" and rng.random() < 0.5 else [weights]
        return Case(f"inner_product_param {{ {text} }}", [bottom, *further])
    return Case(f"inner_product_param {{ {text} transpose: {rng.choice(TRUTH)} }}", [bottom])


@row("Embed", 'embed_param { input_dim: 1000 num_output: 64 weight_filler { type: "uniform" } }')
def embed(rng: Random, name: str) -> Case:
    text = f"num_output: {rng.randint(1, 3)} input_dim: 4 bias_term: {rng.choice(TRUTH)} "
    text += 'weight_filler { type: "gaussian" std: 1 } bias_filler { type: "gaussian" std: 1 }'
    return Case(f"embed_param {{ {text} }}", [shape(rng, 0, 3)], ("below 4",))


@row("Parameter", "parameter_param { shape { dim: 64 dim: 10 } }")
def parameter(rng: Random, name: str) -> Case:
    return Case(f"parameter_param {{ shape {{ {fields('dim', shape(rng, 0, 4))} }} }}")


@row("Reduction", "reduction_param { operation: MEAN axis: 1 }")
def reduction(rng: Random, name: str) -> Case:
    bottom = shape(rng, 1, 4)
    text = f"operation: {rng.choice(['SUM', 'ASUM', 'SUMSQ', 'MEAN'])} "
    text += f"axis: {some_axis(rng, len(bottom))} coeff: {rng.choice([1, 0.7, -2, 0])}"
    return Case(f"reduction_param {{ {text} }}", [bottom], ("off zero",))


@row("BatchReduction", "batch_reduction_param { level: 1 reduction_param { operation: MEAN } }")
def batch_reduction(rng: Random, name: str) -> Case:
    bottom = shape(rng, 1, 4)
    axis = rng.randrange(len(bottom))
    levels = rng.choice([[], [1], [2], [1, 2]])
    if levels not in ([], [1]):
        bottom[axis] = sum(level**2 for level in levels)
    if len(levels) < 2 and rng.random() < 0.3:
        bottom[axis + 1 :] = [bottom[axis], *bottom[axis + 2 :]]
        levels = [*levels, "pos"]
    text = " ".join("pos: true" if level == "pos" else f"level: {level}" for level in levels)
    text += f" reduction_param {{ operation: {rng.choice(['SUM', 'MEAN'])} axis: {axis} }}"
    return Case(f"batch_reduction_param {{ {text} }}", [bottom])


@row("Softmax", "softmax_param { axis: -1 }")
def softmax(rng: Random, name: str) -> Case:
    bottom = shape(rng, 1, 4)
    return Case(f"softmax_param {{ axis: {some_axis(rng, len(bottom))} }}", [bottom])


@row("ArgMax", "argmax_param { axis: 1 }", gradient=(), learns=False)
def argmax(rng: Random, name: str) -> Case:
    bottom = shape(rng, 1, 5)
    text = f"out_max_val: {rng.choice(TRUTH)} "
    if rng.random() < 0.5:
        axis = some_axis(rng, len(bottom))
        bottom[axis] = rng.randint(1, 4)
        text += f"axis: {axis} top_k: {rng.randint(1, bottom[axis])}"
    elif len(bottom) > 1:
        bottom[1] = rng.randint(1, 4)
        text += f"top_k: {rng.randint(1, bottom[1])}"
    # Whole numbers have equals among them.
    return Case(f"argmax_param {{ {text} }}", [bottom], (rng.choice(["real", "below 3"]),))
