"""Mean field inference."""

from __future__ import annotations

from random import Random

from cases import Case, row


@row(
    "MultiStageMeanfield",
    "multi_stage_meanfield_param { num_iterations: 10 theta_alpha: 160 theta_beta: 3 "
    "theta_gamma: 3 spatial_filter_weight: 3 bilateral_filter_weight: 5 }",
)
def meanfield(rng: Random, name: str) -> Case:
    n, c, height, width = (rng.randint(low, high) for low, high in ((1, 2), (1, 3), (1, 3), (1, 3)))
    text = f"num_iterations: {rng.randint(1, 3)} theta_alpha: {rng.uniform(2, 9)} "
    text += f"theta_beta: {rng.uniform(1, 3)} theta_gamma: {rng.uniform(1, 3)} "
    text += "spatial_filter_weight: 0.5 "
    text += f'bilateral_filter_weights_str: "{" ".join(["0.25"] * c)}"'
    scores = [n, c, height, width]
    return Case(
        f"multi_stage_meanfield_param {{ {text} }}", [scores, scores, [n, 3, height, width]]
    )


@row("DenseCRF", "dense_crf_param { pos_w: 3 pos_xy_std: 3 }", (), False)
def dense_crf(rng: Random, name: str) -> Case:
    n, c, height, width = (rng.randint(1, 3) for _ in range(4))
    scores, image = [n, c, height, width], [n, 3, height, width]
    if rng.random() < 0.4:
        return Case("densecrf_param { x_gauss: 2 wt_bilateral: 5 }", [scores, image])
    text = f"max_iter: {rng.randint(0, 3)} pos_w: 2 pos_xy_std: 3 "
    text += f"output_probability: {rng.choice(['true', 'false'])} "
    size, kinds = [n, 2, 1, 1], ("real", f"numbers {'100 ' * 2 * n}", "real")
    if rng.random() < 0.5:
        text += "bi_w: 4 bi_xy_std: 5 bi_rgb_std: 2"
        return Case(f"dense_crf_param {{ {text} }}", [scores, size, image], kinds)
    return Case(f"dense_crf_param {{ {text} }}", [scores, size], kinds[:2])
