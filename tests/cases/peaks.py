"""Cases of heat maps enlarged, and of their peaks."""

from random import Random

from cases import Case, row, shape


@row("ImResize", "imresize_param { factor: 8 start_scale: 1 scale_gap: 0.3 }")
def im_resize(rng: Random, name: str) -> Case:
    n, c, _, _ = shape(rng, 4, 4)
    text = f"factor: {rng.choice([1, 2, 3.5])}"
    if rng.random() < 0.4:
        text = f"target_spatial_height: {rng.randint(1, 9)} target_spatial_width: 7"
    text += f" scale_gap: {rng.choice([0.1, 0.25])}"
    return Case(f"imresize_param {{ {text} }}", [[n, c, rng.randint(2, 6), rng.randint(2, 6)]])


@row("Nms", "nms_param { threshold: 0.05 max_peaks: 64 num_parts: 18 }", gradient=(), learns=False)
def nms(rng: Random, name: str) -> Case:
    n, parts, h, w = shape(rng, 4, 4)
    text = f"threshold: {rng.uniform(0, 0.9)} max_peaks: {rng.randint(0, 3)} num_parts: {parts}"
    image = [n, parts + rng.randint(0, 1), h + rng.randint(0, 7), w + rng.randint(0, 7)]
    return Case(f"nms_param {{ {text} }}", [image], ("distinct",))
