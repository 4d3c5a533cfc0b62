"""Cases of forks' layers that cut planes into tiles, join them, and reduce channels."""

from random import Random

from cases import Case, row, shape


@row("Tiling", "tiling_param { tile_dim: 8 }")
def tiling(rng: Random, name: str) -> Case:
    side = rng.randint(1, 3)
    n, c, h, w = shape(rng, 4, 4)
    return Case(f"tiling_param {{ tile_dim: {side} }}", [[n, c * side**2, h, w]])


@row(
    "Division",
    "division_param { width: 22 height: 22 xcoord: 0 ycoord: 0 }",
    gradient=(),
    learns=False,
)
def division(rng: Random, name: str) -> Case:
    n, c, h, w = shape(rng, 4, 4)
    image = [n, c, h + rng.randint(0, 3), w + rng.randint(0, 3)]
    text, tops = f"height: {h} width: {w} ", ""
    for i in range(rng.randint(1, 3)):
        text += f"ycoord: {rng.randint(0, image[2] - h)} xcoord: {rng.randint(0, image[3] - w)} "
        tops += f'top: "part{i}" '
    return Case(f"division_param {{ {text} }} {tops}", [image])


@row(
    "Combination",
    "combination_param { xcoord: 0 ycoord: 0 xcoord: 22 ycoord: 0 }",
    gradient=(),
    learns=False,
)
def combination(rng: Random, name: str) -> Case:
    n, c, h, w = shape(rng, 4, 4)
    text, shapes = "", []
    for _ in range(rng.randint(0, 2)):
        y, x = rng.randint(0, h - 1), rng.randint(0, w - 1)
        text += f"ycoord: {y} xcoord: {x} "
        shapes.append([n, c, rng.randint(1, h - y), rng.randint(1, w - x)])
    last = [n, c, rng.randint(1, h), rng.randint(1, w)]
    text += f"ycoord: {h - last[2]} xcoord: {w - last[3]}"
    return Case(f"combination_param {{ {text} }}", [*shapes, last])


@row("ChannelReduce", "channel_reduce_param { num_channels: 21 operation: SUM }")
def channel_reduce(rng: Random, name: str) -> Case:
    n, c, h, w = shape(rng, 4, 4)
    groups, operation = rng.randint(1, 3), rng.choice(["operation: SUM", "operation: MAX", ""])
    text = f"channel_reduce_param {{ num_channels: {groups} {operation} }}"
    return Case(text, [[n, c * groups, h, w]], ("distinct",))


@row("Convert")
def convert(rng: Random, name: str) -> Case:
    n, c, w = shape(rng, 3, 3)
    middle = rng.choice([[], [1], [1, 1]])
    return Case(rng.choice(["", 'top: "steps" top: "going"']), [[n, c, *middle, w]])


@row("OuterProduct", gradient=(1,))
def outer_product(rng: Random, name: str) -> Case:
    n, a, b = shape(rng, 3, 3)
    return Case("", [[n, a, *rng.choice([[], [1, 1]])], [n, b]])
