"""Cases of the layers in caffe/layers/flow_loss.py."""

from random import Random

from cases import Case, row, shape


@row("L1Loss", "l1_loss_param { l2_per_location: true }")
def l1_loss(rng: Random, name: str) -> Case:
    if rng.random() < 0.3:  # NVCaffe's
        bottom = shape(rng, 1, 4)
        return Case("", [bottom, bottom])
    bottom = [rng.randint(1, 3) for _ in range(4)]
    flags = ["l2_per_location", "l2_prescale_by_channels", "normalize_by_num_entries"]
    text = " ".join(f"{flag}: {str(rng.random() < 0.5).lower()}" for flag in flags)
    text += f" epsilon: {rng.uniform(0.01, 0.1)} plateau: {rng.choice([0, 0.01])}"
    return Case(f"l1_loss_param {{ {text} }}", [bottom] * rng.randint(1, 2), ("off zero", "real"))


@row("LpqLoss", "lpq_loss_param { p: 2 q: 0.2 }")
def lpq_loss(rng: Random, name: str) -> Case:
    bottom = [rng.randint(1, 3) for _ in range(4)]
    flags = ["l2_prescale_by_channels", "normalize_by_num_entries"]
    text = " ".join(f"{flag}: {str(rng.random() < 0.5).lower()}" for flag in flags)
    text += f" p: {rng.choice([1, 1.5, 2])} q: {rng.choice([0.2, 0.5, 1])}"
    text += f" p_epsilon: {rng.choice([0, 0.1])} q_epsilon: {rng.uniform(0.01, 0.1)}"
    return Case(f"lpq_loss_param {{ {text} }}", [bottom] * rng.randint(1, 2), ("off zero", "real"))


@row("AbsLoss")
def abs_loss(rng: Random, name: str) -> Case:
    bottom = shape(rng, 1, 4)
    return Case("", [bottom, bottom])
