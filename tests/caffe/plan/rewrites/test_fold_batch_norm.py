"""fold_batch_norm: BatchNorm on gathered statistics that no convolution took in."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from nets import acted, conv, image, names, norm, set_statistics

import caffe

RELU = 'layer { name: "r" type: "ReLU" bottom: "y" top: "y" }'
BARE = norm("a", "x", "y", relu=False).partition('layer { name: "a_s')[0]
ALONE = f"{BARE}{RELU}"
SCALE = norm("a", "x", "y")


@pytest.fixture
def folded(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Of each multiply-add of a plan, whether it overwrites its bottom."""
    seen: list[bool] = []
    original = torch.addcmul

    def noted(shift, x, gain, out):
        seen.append(out is x)
        return original(shift, x, gain, out=out)

    monkeypatch.setattr(torch, "addcmul", noted)
    return seen


@pytest.mark.parametrize("shape", [(2, 3, 9, 10), (4, 3), (2, 3, 5), (2, 3, 2, 3, 4), (6,)])
@pytest.mark.parametrize(
    ("text", "node"),
    [
        (BARE, "a"),
        (ALONE, "a+r"),
        (SCALE, "a+a_s+a_r"),
        (norm("a", "x", "y", relu=False, bias="false"), "a+a_s"),
    ],
)
def test_all_forms_predict_alike(
    text: str, node: str, shape: tuple[int, ...], pair, same_passes, folded: list
) -> None:
    if len(shape) == 1:
        text, node = (ALONE, "a+r") if "a_r" in text or "a_s" in text else (text, node)
    nets = pair(image(*shape) + text, caffe.TEST)
    set_statistics(nets, "a")
    assert names(nets[1])[-1] == node
    assert acted(nets[1], "fold_batch_norm") == 1
    same_passes(nets, backward=False)
    assert folded == [False, False]


def test_nvcaffes_own_gain_and_offset(pair, same_passes, folded: list) -> None:
    how = """batch_norm_param { scale_bias: true scale_filler { type: "uniform" min: 1 max: 2 }
      bias_filler { type: "gaussian" } }"""
    text = ALONE.replace('top: "y" }', f'top: "y" {how} }}', 1)
    nets = pair(image(2, 3, 9, 10) + text, caffe.TEST)
    for net in nets:
        for blob, value in zip(net.params["a"], (0.3, 2, 1), strict=False):
            blob.data[...] = value
    same_passes(nets, backward=False)
    assert folded


def test_new_parameters_count(pair, same_passes) -> None:
    nets = pair(image(2, 3, 9, 10) + SCALE, caffe.TEST)
    set_statistics(nets, "a")
    same_passes(nets, backward=False)
    for name in ("a", "a_s"):
        for i in range(2):
            for net in nets:
                net.params[name][i].data[...] += 1
            same_passes(nets, backward=False)


def test_a_bottom_that_nobody_else_takes_is_written_over(pair, same_passes, folded: list) -> None:
    before = image(2, 3, 9, 10) + conv("c", "x", "y") + RELU
    behind = norm("a", "y", "z") + conv("d", "z", "w")
    nets = pair(before + behind, caffe.TEST)
    set_statistics(nets, "a")
    same_passes(nets, backward=False)
    assert folded == [True, True]
    folded.clear()
    nets = pair(before + behind + conv("e", "y", "v"), caffe.TEST)
    set_statistics(nets, "a")
    same_passes(nets, backward=False)
    assert folded == [False, False]


def test_an_input_keeps_its_values(pair) -> None:
    net = pair(image(2, 3, 9, 10) + SCALE, caffe.TEST)[1]
    before = net.blobs["x"].data.copy()
    net.forward()
    np.testing.assert_array_equal(net.blobs["x"].data, before)


def test_in_bfloat16(pair) -> None:
    caffe.set_precision("bf16")
    nets = pair(image(2, 3, 9, 10) + conv("c", "x", "y") + RELU + norm("a", "y"), caffe.TEST)
    set_statistics(nets, "a")
    first, second = (net.forward()["y"] for net in nets)
    assert np.abs(first - second).max() < 0.02 * np.abs(first).max()


def test_what_it_leaves(pair, same_passes) -> None:
    """The batch's own statistics, and what a convolution takes in."""
    own = SCALE.replace('top: "y" }', 'top: "y" batch_norm_param { use_global_stats: false } }', 1)
    nets = pair(image(2, 3, 9, 10) + own, caffe.TEST)
    assert not acted(nets[1], "fold_batch_norm")
    same_passes(nets, backward=False)
    nets = pair(image(2, 3, 9, 10) + conv("c", "x", "y") + norm("a", "y"), caffe.TEST)
    assert not acted(nets[1], "fold_batch_norm")


def test_a_bottom_that_does_not_fit_is_refused_as_by_the_layer(pair, same_refusal) -> None:
    same_refusal(pair(image(2, 3, 9, 10) + SCALE, caffe.TEST), "x", (2, 4, 9, 10))


def test_on_a_gpu(pretend_gpu, pair, same_passes) -> None:
    nets = pair(image(2, 3, 9, 10) + SCALE, caffe.TEST)
    set_statistics(nets, "a")
    assert acted(nets[1], "fold_batch_norm") == 1
    same_passes(nets, backward=False)
