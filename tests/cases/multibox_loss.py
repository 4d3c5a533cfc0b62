"""MultiBoxLoss."""

import random

from cases import Case, row
from cases.detection_output import CODES

EXAMPLE = "num_classes: 21 code_type: CENTER_SIZE overlap_threshold: 0.5 neg_overlap: 0.5"


@row("MultiBoxFocalLoss", f"multibox_loss_param {{ {EXAMPLE} }} focal_loss_param {{ gamma: 2 }}")
@row("MultiBoxLoss", f"multibox_loss_param {{ {EXAMPLE} }}")
def multibox_loss(rng: random.Random, name: str) -> Case:
    images, priors, classes = rng.randint(1, 3), rng.randint(1, 8), rng.randint(2, 4)
    shared = rng.random() < 0.7
    text = f"num_classes: {classes} code_type: {rng.choice(CODES)} overlap_threshold: 0.3 "
    text += rng.choice(["", "loc_loss_type: L2 "]) + rng.choice(["", "conf_loss_type: LOGISTIC "])
    text += rng.choice(["", "match_type: BIPARTITE ", "use_difficult_gt: false ", "loc_weight: 2 "])
    text += rng.choice(["", "bp_inside: true ", "ignore_cross_boundary_bbox: true "])
    if shared:
        text += rng.choice(["", "mining_type: NONE ", "mining_type: HARD_EXAMPLE sample_size: 4 "])
    else:
        text += "share_location: false mining_type: NONE "
    places = priors * (1 if shared else classes)
    shapes = [[images, places * 4], [images, priors * classes], [1, 2, priors * 4]]
    kinds = ("real", "real", "priors", f"truths {images} {classes}")
    modes = ("VALID", "FULL", "BATCH_SIZE", "NONE")
    mode = f"loss_param {{ normalization: {rng.choice(modes)} }}"
    text = f"multibox_loss_param {{ {text} }} {rng.choice(['', mode])}"
    if name == "MultiBoxFocalLoss":
        text += f" focal_loss_param {{ alpha: 0.7 gamma: {rng.uniform(1, 3)} }}"
    return Case(text, [*shapes, [1, 1, rng.randint(1, 5), 8]], kinds)
