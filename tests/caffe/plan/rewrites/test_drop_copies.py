"""drop_copies: Split, Dropout in TEST, Concat and Slice of one."""

from __future__ import annotations

import pytest
from nets import acted, conv, image, losses, misfits, names

import caffe

CONCAT = 'layer { name: "k" type: "Concat" bottom: "y" top: "z" }'
SLICE = 'layer { name: "k" type: "Slice" bottom: "y" top: "z" }'
DROPOUT = 'layer { name: "k" type: "Dropout" bottom: "y" top: "z" }'


@pytest.mark.parametrize("text", [CONCAT, SLICE])
def test_copies_of_one_in_training(text: str, pair, same_passes) -> None:
    nets = pair(image(2, 3, 9, 10) + conv("c", "x", "y") + text + losses("z"))
    assert acted(nets[1], "drop_copies") == 1
    assert "k" not in names(nets[1])
    same_passes(nets, backward=True)


@pytest.mark.parametrize("text", [CONCAT, SLICE, DROPOUT])
def test_copies_in_deploy_nets(text: str, pair, same_passes) -> None:
    nets = pair(image(2, 3, 9, 10) + conv("c", "x", "y") + text, caffe.TEST)
    assert acted(nets[1], "drop_copies") == 1
    assert names(nets[1]) == ["x", "c"]
    same_passes(nets, backward=False)


def test_splits(pair, same_passes) -> None:
    text = image(2, 3, 9, 10) + conv("c", "x", "y") + conv("d", "y", "z") + conv("e", "y", "w")
    nets = pair(text + losses("z", "w"))
    assert acted(nets[1], "drop_copies") == 1
    assert not any("split" in name for name in names(nets[1]))
    same_passes(nets, backward=True)


def test_dropout_in_training_is_no_copy(pair) -> None:
    net = pair(image(2, 3, 9, 10) + conv("c", "x", "y") + DROPOUT + losses("z"))[1]
    assert acted(net, "drop_copies") == 0
    assert "k" in names(net)


def test_a_copy_that_stops_the_gradient_stays(pair, same_passes) -> None:
    text = CONCAT.replace('top: "z"', 'top: "z" propagate_down: false')
    nets = pair(image(2, 3, 9, 10) + conv("c", "x", "y") + text + losses("z"))
    assert misfits(nets[1], "drop_copies") == {"k": "passes no gradient on"}
    same_passes(nets, backward=True)


def test_one_value_shows_as_one_output(pair, same_passes) -> None:
    """A Split whose tops are both outputs would leave one value for two blobs."""
    text = image(2, 3, 9, 10) + 'layer { name: "s" type: "Split" bottom: "x" top: "a" top: "b" }'
    nets = pair(text, caffe.TEST)
    assert misfits(nets[1], "drop_copies") == {"s": "several of its blobs are outputs of the net"}
    same_passes(nets, backward=False)
