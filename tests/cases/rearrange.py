"""Cases of the layers in caffe/layers/rearrange.py."""

from random import Random

from cases import Case, row, shape, some_axis


def tops(count: int) -> str:
    """`top` fields for this many tops."""
    return " ".join(f'top: "top{i}"' for i in range(count))


def fields(name: str, values: list[int] | list[float]) -> str:
    """A repeated field."""
    return " ".join(f"{name}: {value}" for value in values)


def axis_field(rng: Random, axis: int, old: str) -> str:
    """The axis by its name or, if it is counted from the front, by its older name."""
    return f"{rng.choice(['axis', old]) if axis >= 0 else 'axis'}: {axis}"


@row("Split")
def split(rng: Random, name: str) -> Case:
    return Case(tops(rng.randint(1, 3)), [shape(rng, 0, 4)])


@row("Silence", gradient=(), learns=False)
def silence(rng: Random, name: str) -> Case:
    return Case("", [shape(rng, 0, 4) for _ in range(rng.randint(1, 3))])


@row("Concat", "concat_param { axis: -1 }")
def concat(rng: Random, name: str) -> Case:
    bottom = shape(rng, 1, 4)
    axis = some_axis(rng, len(bottom))
    bottoms = [list(bottom) for _ in range(rng.randint(1, 4))]
    for each in bottoms:
        each[axis] = rng.randint(1, 3)
    return Case(f"concat_param {{ {axis_field(rng, axis, 'concat_dim')} }}", bottoms)


@row("Slice", "slice_param { axis: 1 slice_point: 2 slice_point: 3 }")
def slice_(rng: Random, name: str) -> Case:
    bottom, parts = shape(rng, 1, 4), rng.randint(1, 3)
    axis = some_axis(rng, len(bottom))
    text = axis_field(rng, axis, "slice_dim")
    if parts > 1 and rng.random() < 0.5:
        points = sorted(rng.sample(range(1, 6), parts - 1))
        bottom[axis] = rng.randint(max(points[-1], parts), 6)  # the last part may be empty
        text += f" {fields('slice_point', points)}"
    else:
        bottom[axis] = parts * rng.randint(1, 2)
    return Case(f"slice_param {{ {text} }} {tops(parts)}", [bottom])


@row("Flatten", "flatten_param { axis: 1 end_axis: -1 }")
def flatten(rng: Random, name: str) -> Case:
    bottom = shape(rng, 1, 5)
    start = rng.randrange(len(bottom))
    end = rng.randint(max(start - 1, 0), len(bottom) - 1)  # before start: one more axis
    start, end = (axis - rng.choice([0, len(bottom)]) for axis in (start, end))
    return Case(f"flatten_param {{ axis: {start} end_axis: {end} }}", [bottom])


@row("Reshape", "reshape_param { shape { dim: 0 dim: -1 dim: 2 } }")
def reshape(rng: Random, name: str) -> Case:
    bottom = shape(rng, 0, 4)
    axes = len(bottom)
    start = rng.randint(0, axes)
    count = rng.randint(0, axes - start)
    dims = [*bottom[start : start + count], *[1] * rng.randint(0, 2)]
    rng.shuffle(dims)
    for i, n in enumerate(dims):
        if start + i < axes and n == bottom[start + i] and rng.random() < 0.5:
            dims[i] = 0
    if dims and rng.random() < 0.6:
        dims[rng.randrange(len(dims))] = -1
    text = f"axis: {start - rng.choice([0, axes + 1])} "
    text += f"num_axes: {rng.choice([count, -1]) if start + count == axes else count} "
    return Case(f"reshape_param {{ {text} shape {{ {fields('dim', dims)} }} }}", [bottom])


@row("Permute", "permute_param { order: 0 order: 2 order: 3 order: 1 }")
def permute(rng: Random, name: str) -> Case:
    bottom = shape(rng, 0, 5)
    order = rng.sample(range(len(bottom)), rng.randint(0, len(bottom)))
    return Case(f"permute_param {{ {' '.join(f'order: {axis}' for axis in order)} }}", [bottom])


@row("ShuffleChannel", "shuffle_channel_param { group: 2 }")
def shuffle_channel(rng: Random, name: str) -> Case:
    group = rng.randint(1, 3)
    bottom = [rng.randint(1, 2), group * rng.randint(1, 3), *shape(rng, 0, 3)]
    return Case(f"shuffle_channel_param {{ group: {group} }}", [bottom])


@row("Reorg", "reorg_param { stride: 2 }")
def reorg(rng: Random, name: str) -> Case:
    stride, reverse = rng.randint(1, 3), rng.random() < 0.4
    square = stride**2
    n, c, h, w = (rng.randint(1, 2) for _ in range(4))
    bottom = [n, c * square, h, w] if reverse else [n, c, h * square, w * stride]
    text = f"stride: {stride} reverse: {'true' if reverse else 'false'}"
    return Case(f"reorg_param {{ {text} }}", [bottom])


@row("Flip", "flip_param { flip_width: true flip_height: false }")
def flip(rng: Random, name: str) -> Case:
    truth = ("true", "false")
    text = f"flip_width: {rng.choice(truth)} flip_height: {rng.choice(truth)}"
    return Case(f"flip_param {{ {text} }}", [shape(rng, 0, 4)])


@row("Gather")
def gather(rng: Random, name: str) -> Case:
    count = rng.randint(1, 3)
    return Case(tops(count), [shape(rng, 0, 4) for _ in range(count)])


@row("Tile", "tile_param { axis: 2 tiles: 3 }")
def tile(rng: Random, name: str) -> Case:
    bottom = shape(rng, 1, 4)
    text = f"axis: {some_axis(rng, len(bottom))} tiles: {rng.randint(1, 3)}"
    return Case(f"tile_param {{ {text} }}", [bottom])


@row("BatchReindex")
def batch_reindex(rng: Random, name: str) -> Case:
    return Case("", [[3, *shape(rng, 0, 3)], [rng.randint(1, 5)]], ("real", "below 3"))


@row("Filter")
def filter_(rng: Random, name: str) -> Case:
    bottoms = [[4, *shape(rng, 0, 3)] for _ in range(rng.randint(1, 3))]
    selector = [4, *[1] * rng.randint(0, 3)]
    kinds = ("real",) * len(bottoms) + ("below 2",)
    return Case(tops(len(bottoms)), [*bottoms, selector], kinds)
