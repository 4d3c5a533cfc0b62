"""work_in_place: ReLU and sums that overwrite their bottom."""

from __future__ import annotations

import pytest
from nets import acted, conv, image, misfits

import caffe
from caffe.plan.plan import Plan

RELU = 'layer {{ name: "r" type: "ReLU" bottom: "{bottom}" top: "z" }}'
SUM = 'layer {{ name: "s" type: "Eltwise" bottom: "{0}" bottom: "{1}" top: "z" {2} }}'
SCALE = 'layer {{ name: "{0}" type: "Scale" bottom: "{1}" top: "{0}" }}'
SLOPE = "relu_param { negative_slope: 0.1 }"


def kept(net: caffe.Net) -> set[int]:
    """The memories of the values that the plan's last node returns and takes."""
    node = net.plan.nodes[-1]
    seen: list[set[int]] = []
    run = node.run

    def watched(bottom, blobs):
        before = {x.data_ptr() for x in bottom}
        tops = run(bottom, blobs)
        seen.append(before & {x.data_ptr() for x in tops})
        return tops

    node.run = watched
    net.forward()
    return seen[0]


@pytest.mark.parametrize(
    "text",
    [
        SCALE.format("y", "x") + RELU.format(bottom="y"),
        SCALE.format("y", "x") + SCALE.format("w", "x") + SUM.format("y", "w", ""),
        conv("c", "x", "a")
        + RELU.format(bottom="a").replace('"z"', '"y"')
        + conv("d", "x", "b")
        + RELU.format(bottom="b").replace('"z"', '"w"')
        + SUM.format("y", "w", ""),
    ],
    ids=["relu", "sum", "sum of rectified convolutions"],
)
def test_the_bottoms_memory_is_written_over(text: str, pair, same_passes) -> None:
    nets = pair(image(2, 3, 9, 10) + text, caffe.TEST)
    assert acted(nets[1], "work_in_place") == 1
    same_passes(nets, backward=False)
    assert kept(nets[1])


# Two blocks of a residual net: `a` goes through the convolution `b` and past it.
FIRST = conv("first", "x", "a") + RELU.format(bottom="a").replace('"z"', '"r0"').replace(
    '"r"', '"rectified"'
)
BLOCK = conv("b", "r0", "c") + conv("d", "c", "e") + SUM.format("e", "r0", "")


def test_a_residual_blocks_sum_is_written_over_what_went_past_it(pair, same_passes) -> None:
    nets = pair(image(2, 4, 9, 10) + FIRST + BLOCK, caffe.TEST)
    assert acted(nets[1], "work_in_place") == 1
    same_passes(nets, backward=False)
    same_passes(nets, backward=False)
    assert kept(nets[1])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (FIRST + BLOCK + conv("later", "r0", "w"), "has a bottom that others take, too"),
        (
            FIRST + 'layer { name: "f" type: "Reshape" bottom: "r0" top: "alias" '
            "reshape_param { shape { dim: 0 dim: 0 dim: -1 dim: 1 } } }" + BLOCK,
            "has a bottom that others take, too",
        ),
        (conv("b", "x", "e") + SUM.format("e", "x", ""), "whose memory may belong to others"),
        (FIRST + conv("b", "r0", "e") + SUM.format("e", "r0", ""), "that others take, too"),
        (
            conv("first", "x", "a")
            + conv("b", "a", "e")
            + SUM.format("e", "a", "")
            + conv("h", "a", "w"),
            "has a bottom that others take, too",
        ),
    ],
    ids=["taken later", "held by another shape", "a blob of the user's", "twice", "by another"],
)
def test_a_sum_that_must_not_be_written_over(text: str, reason: str, pair, same_passes) -> None:
    nets = pair(image(2, 4, 9, 10) + text, caffe.TEST)
    assert acted(nets[1], "work_in_place") == 0
    assert any(reason in why for why in misfits(nets[1], "work_in_place").values())
    same_passes(nets, backward=False)
    same_passes(nets, backward=False)


@pytest.mark.parametrize(
    ("text", "node", "reason"),
    [
        (RELU.format(bottom="x"), "r", "has a bottom whose memory may belong to others"),
        (
            'layer { name: "p" type: "Power" bottom: "x" top: "y" }' + RELU.format(bottom="y"),
            "r",
            "has a bottom whose memory may belong to others",
        ),
        (
            SCALE.format("y", "x") + RELU.format(bottom="y") + SCALE.format("w", "y"),
            "r",
            "has a bottom that others take, too",
        ),
    ],
)
def test_where_it_does_not_fit(text: str, node: str, reason: str, pair, same_passes) -> None:
    nets = pair(image(2, 3, 9, 10) + text, caffe.TEST)
    assert acted(nets[1], "work_in_place") == 0
    assert misfits(nets[1], "work_in_place") == {node: reason}
    same_passes(nets, backward=False)


@pytest.mark.parametrize(
    "text",
    [
        SCALE.format("y", "x") + RELU.format(bottom="y").replace('top: "z"', 'top: "z" ' + SLOPE),
        SCALE.format("y", "x") + SUM.format("y", "x", "eltwise_param { coeff: 1 coeff: 2 }"),
    ],
    ids=["slope", "coefficients"],
)
def test_others_are_not_its_business(text: str, pair, same_passes) -> None:
    nets = pair(image(2, 3, 9, 10) + text, caffe.TEST)
    report = Plan(nets[1].wiring, train=False).report
    assert report.acted["work_in_place"] == 0
    assert not any(misfit.rewrite == "work_in_place" for misfit in report.misfits)
    same_passes(nets, backward=False)
