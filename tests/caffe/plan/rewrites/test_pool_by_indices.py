"""pool_by_indices: max pooling by positions, and Unpooling on them."""

from __future__ import annotations

import pytest
import torch
from nets import acted, conv, image, losses, misfits

import caffe

POOL = """
layer {{ name: "p" type: "Pooling" bottom: "y" top: "p" {mask} pooling_param {{ {how} }} }}
"""
UNPOOL = """
layer {{ name: "u" type: "Unpooling" bottom: "p" bottom: "k" top: "u" unpooling_param {{ {how} }} }}
"""
SIDE_BY_SIDE = "pool: MAX kernel_size: 2 stride: 2"


def body(how: str, unpooling: str = "", more: str = "") -> str:
    """A convolution from x to y, and its pooling to p, or back to u."""
    text = image(2, 3, 8, 10) + conv("c", "x", "y")
    text += POOL.format(how=how, mask='top: "k"' if unpooling or more else "")
    return text + (UNPOOL.format(how=unpooling) if unpooling else "") + more


@pytest.mark.parametrize("phase", [caffe.TRAIN, caffe.TEST])
@pytest.mark.parametrize("how", [SIDE_BY_SIDE, f"{SIDE_BY_SIDE} round_mode: FLOOR"])
def test_pooling_alone(how: str, phase: int, pair, same_passes) -> None:
    nets = pair(body(how) + (losses("p") if phase == caffe.TRAIN else ""), phase)
    assert acted(nets[1], "pool_by_indices") == 1
    same_passes(nets, backward=phase == caffe.TRAIN)


@pytest.mark.parametrize("phase", [caffe.TRAIN, caffe.TEST])
@pytest.mark.parametrize("unpooling", ["scale: 2", "output_h: 8 output_w: 10"])
def test_with_unpooling(unpooling: str, phase: int, pair, same_passes) -> None:
    nets = pair(
        body(SIDE_BY_SIDE, unpooling) + (losses("u") if phase == caffe.TRAIN else ""), phase
    )
    assert acted(nets[1], "pool_by_indices") == 1
    same_passes(nets, backward=phase == caffe.TRAIN)


@pytest.mark.parametrize("phase", [caffe.TRAIN, caffe.TEST])
def test_places_stay_whole_numbers(phase: int, pair) -> None:
    """A mask is not made float32 between the pooling and its Unpooling."""
    text = body(SIDE_BY_SIDE, "scale: 2") + (losses("u") if phase == caffe.TRAIN else "")
    net = pair(text, phase)[1]
    (node,) = [node for node in net.plan.nodes if node.name == "p"]
    seen: list[torch.dtype] = []
    run = node.run

    def watched(bottom, blobs):
        tops = run(bottom, blobs)
        seen.append(tops[1].dtype)
        return tops

    node.run = watched
    net.forward()
    assert seen == [torch.int64]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (body("pool: MAX kernel_size: 3 stride: 2"), "has windows that do not lie side by side"),
        (body("pool: MAX kernel_size: 2 stride: 2 pad: 1"), "pads the image"),
        (body("pool: MAX global_pooling: true"), "has one window for the whole image"),
        (
            body(SIDE_BY_SIDE, more='layer { name: "s" type: "Power" bottom: "k" top: "shown" }'),
            "gives its mask to s, which is no Unpooling",
        ),
        (
            body("pool: MAX kernel_size: 2 stride: 2", "scale: 3"),
            "gives its mask to u, whose plane may not be the pooled image's",
        ),
    ],
)
def test_where_it_does_not_fit(text: str, reason: str, pair, same_passes) -> None:
    nets = pair(text, caffe.TEST)
    assert acted(nets[1], "pool_by_indices") == 0
    assert misfits(nets[1], "pool_by_indices") == {"p": reason}
    same_passes(nets, backward=False)


def test_a_mask_that_is_an_output(pair, same_passes) -> None:
    text = image(2, 3, 8, 10) + conv("c", "x", "y") + POOL.format(how=SIDE_BY_SIDE, mask='top: "k"')
    nets = pair(text, caffe.TEST)
    assert misfits(nets[1], "pool_by_indices") == {"p": "shows its mask as an output of the net"}
    same_passes(nets, backward=False)


@pytest.mark.parametrize("phase", [caffe.TRAIN, caffe.TEST])
def test_a_plane_too_small_gets_the_same_line(phase: int, pair) -> None:
    body = """
    layer { name: "p" type: "Pooling" bottom: "x" top: "p" top: "k"
      pooling_param { pool: MAX kernel_size: 2 stride: 2 } }
    layer { name: "u" type: "Unpooling" bottom: "p" bottom: "k" top: "u"
      unpooling_param { output_h: 4 output_w: 4 } }
    """
    lines = []
    for net in pair(image(1, 2, 8, 8) + body, phase):
        with pytest.raises(caffe.CaffeError) as error:
            net.forward()
        lines.append(str(error.value))
    assert lines[0] == lines[1]
    assert "do not fit the pooling layer" in lines[0]
