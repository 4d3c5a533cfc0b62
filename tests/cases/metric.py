"""Cases of the layers that learn distances."""

from random import Random

import caffe
from cases import Case, row, shape

TRUTH = ("true", "false")


@row(
    "CenterLoss",
    'center_loss_param { num_output: 10 center_filler { type: "xavier" } }',
    gradient=(),
    learns=False,
)
def center_loss(rng: Random, name: str) -> Case:
    classes, x = rng.randint(1, 4), [rng.randint(1, 4), *shape(rng, 1, 2)]
    text = f'num_output: {classes} distance_type: "{rng.choice(["L1", "L2"])}" '
    text += 'center_filler { type: "gaussian" std: 1 }'
    labels = [x[0], *rng.choice([[], [1, 1, 1]])]
    return Case(f"center_loss_param {{ {text} }}", [x, labels], ("real", f"below {classes}"))


@row("InnerDistance", 'inner_distance_param { num_output: 10 weight_filler { type: "xavier" } }')
def inner_distance(rng: Random, name: str) -> Case:
    classes, x = rng.randint(1, 3), [rng.randint(1, 3), *shape(rng, 1, 2)]
    text = f'num_output: {classes} distance_type: "{rng.choice(["L1", "L2"])}" '
    text += 'weight_filler { type: "gaussian" std: 1 }'
    bottoms = [x] if rng.random() < 0.5 else [x, [classes, *x[1:]]]
    return Case(f"inner_distance_param {{ {text} }}", bottoms)


@row("GeneralContrastiveLoss", "general_contrastive_loss_param { negative_margin: 1 }", (), False)
def general_contrastive(rng: Random, name: str) -> Case:
    samples, classes = rng.randint(1, 4), rng.randint(2, 4)
    text = f"positive_margin: {rng.uniform(0, 0.3)} negative_margin: {rng.uniform(0.5, 2)} "
    for field in ("max_negative_only", "max_positive_only", "positive_first", "add_intra_mae"):
        text += f"{field}: {rng.choice(TRUTH)} "
    text += f"exp_negative_weight: {rng.choice(TRUTH)} " + rng.choice(["", "normalize_negative: 1"])
    text = f"general_contrastive_loss_param {{ {text} }} " + rng.choice(["", 'top: "a" top: "b"'])
    x = [samples, classes]
    bottoms = [x, [samples], x][: rng.randint(2, 3)]
    return Case(text, bottoms, ("positive", f"below {classes}", "positive")[: len(bottoms)])


@row("GeneralTripletLoss", "general_triplet_loss_param { margin: 0.8 }", (), False)
def general_triplet(rng: Random, name: str) -> Case:
    samples, classes = rng.randint(1, 4), rng.randint(2, 4)
    text = f"margin: {rng.uniform(0, 1)} hardest_only: {rng.choice(TRUTH)} "
    text += f"add_center_loss: {rng.choice(TRUTH)} positive_first: {rng.choice(TRUTH)} "
    text = f"general_triplet_loss_param {{ {text} }} " + rng.choice(["", 'top: "a" top: "b"'])
    bottoms = [[samples, classes], [samples], [samples]][: rng.randint(2, 3)]
    return Case(text, bottoms, ("positive", f"below {classes}", "real")[: len(bottoms)])


@row("TripletLoss", "triplet_loss_param { margin: 0.2 }")
def triplet(rng: Random, name: str) -> Case:
    x = [rng.randint(1, 3), rng.randint(1, 3), *rng.choice([[], [1, 1]])]
    bottoms = [x, x, x, [x[0]]][: rng.randint(3, 4)]
    return Case(f"triplet_loss_param {{ margin: {rng.uniform(0, 3)} }}", bottoms)


@row("ChannelScale", "channel_scale_param { do_backward_scale: false }")
def channel_scale(rng: Random, name: str) -> Case:
    x = [rng.randint(1, 3), rng.randint(1, 3), *shape(rng, 0, 2)]
    factors = rng.choice([[x[0], 1, *x[2:]], [x[0], *x[2:]]])
    return Case("", [x, factors], phase=rng.choice([caffe.TRAIN, caffe.TEST]))


@row("Norm", gradient=(), learns=False)
def norm(rng: Random, name: str) -> Case:
    return Case("", [shape(rng, 2, 4)], ("off zero",))


@row("RankHardLoss", "rank_param { neg_num: 4 pair_size: 2 hard_ratio: 0.5 rand_ratio: 0.5 }")
def rank_hard(rng: Random, name: str) -> Case:
    pairs, size = rng.randint(1, 3), rng.randint(2, 3)
    text = f"neg_num: {rng.randint(1, 4)} pair_size: {size} hard_ratio: 0.5 rand_ratio: 0.5"
    bottoms = [[pairs * size, *shape(rng, 1, 2)], [pairs * size]]
    return Case(f"rank_param {{ {text} }}", bottoms, ("real", "below 3"))
