"""Wiring: nets that are refused, and which blobs and parameters get a gradient."""

from __future__ import annotations

import pytest
from nets import CHAIN, INPUT, IP, LOSS, image, ip

import caffe
from caffe.process import memory

pytestmark = pytest.mark.usefixtures("fresh")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (INPUT + 'layer { name: "a" type: "Powr" bottom: "x" top: "y" }',
         r"layer 'a': unknown layer type 'Powr' \(did you mean Power\?\)"),
        (INPUT + 'layer { name: "a" type: "Power" bottom: "nix" top: "y" }',
         r"layer 'a': unknown bottom blob 'nix' \(bottom 0\)"),
        # a blob that somebody else makes already
        (INPUT + 'layer { name: "a" type: "Power" top: "x" bottom: "x" }' + INPUT,
         r"layer 'in': top blob 'x' is made by several layers"),
        # in place means: the same position; elsewhere it is a second maker
        (INPUT + 'layer { name: "s" type: "Slice" bottom: "x" top: "a" top: "x" }',
         r"layer 's': top blob 'x' is made by several layers; in place means"),
        # x belongs to a by then, and relu would change it behind a's back
        (INPUT + 'layer { name: "a" type: "Power" bottom: "x" top: "y" }'
         'layer { name: "relu" type: "ReLU" bottom: "x" top: "x" }',
         r"layer 'relu': top blob 'x' is made by several layers"),
        # a loop: b takes what only a later layer makes
        (INPUT + 'layer { name: "b" type: "Eltwise" bottom: "x" bottom: "z" top: "y" }'
         'layer { name: "a" type: "Power" bottom: "y" top: "z" }',
         r"layer 'b': unknown bottom blob 'z' \(bottom 1\)"),
        (INPUT + 'layer { name: "a" type: "Power" bottom: "x" top: "y" propagate_down: true'
         ' propagate_down: true }', r"layer 'a': propagate_down must be given never or once for"),
        (INPUT + 'layer { name: "a" type: "Power" bottom: "x" top: "y" loss_weight: 1'
         ' loss_weight: 1 }', r"layer 'a' \(Power\): loss_weight is given 2 time"),
        (INPUT + ip("a", "x", more="param { } param { } param { }"),
         r"layer 'a': 3 param entries are given, it has 2 parameter blob"),
        (INPUT + 'layer { name: "s" type: "Split" bottom: "x" top: "x" }',
         r"layer 's' \(Split\): cannot work in place"),
        (INPUT + 'layer { name: "a" type: "Power" bottom: "x" top: "y" top: "z" }',
         r"layer 'a' \(Power\): takes exactly 1 top blob\(s\), got 2"),
    ],
)  # fmt: skip
def test_nets_that_cannot_be(make_net, text: str, message: str) -> None:
    with pytest.raises(caffe.CaffeError, match=message):
        make_net(text)


def test_inputs_get_no_gradient_unless_it_is_forced(make_net) -> None:
    for forced in (False, True):
        net = make_net(f"force_backward: {str(forced).lower()} " + INPUT + IP + LOSS)
        net.blobs["x"].data[...] = 1
        net.forward()
        net.backward()
        assert net.blobs["x"].diff.any() == forced
        assert net.params["ip"][0].diff.any()


def test_propagate_down_false_stops_the_gradient(make_net) -> None:
    text = INPUT + ip("a", "x") + ip("b", "a", more="propagate_down: false")
    net = make_net(text + LOSS.replace('"ip"', '"b"'))
    net.blobs["x"].data[...] = 1
    net.forward()
    net.backward()
    assert net.params["b"][0].diff.any()
    assert not net.params["a"][0].diff.any()
    assert not net.blobs["a"].diff.any()


def test_propagate_down_true_lets_it_through_to_an_input(make_net) -> None:
    net = make_net(INPUT + ip("a", "x", more="propagate_down: true") + LOSS.replace("ip", "a"))
    net.blobs["x"].data[...] = 1
    net.forward()
    net.backward()
    assert net.blobs["x"].diff.any()


def test_layers_that_bear_on_no_loss_get_no_gradient(make_net) -> None:
    net = make_net(INPUT + IP + ip("aside", "ip") + LOSS)
    net.blobs["x"].data[...] = 1
    net.forward()
    net.blobs["aside"].diff[...] = 1
    net.backward()
    assert not net.params["aside"][0].diff.any()
    assert net.params["ip"][0].diff.any()


def test_batch_norm_counts_as_a_layer_that_learns_unless_it_says_no(make_net, capsys) -> None:
    # Caffe looks at the prototxt before the layer forbids its blobs to learn
    for given, says in (("", "needs"), ("param { lr_mult: 0 } " * 3, "does not need")):
        bn = f'layer {{ name: "bn" type: "BatchNorm" bottom: "x" top: "y" {given} }}'
        net = make_net(INPUT + bn + LOSS.replace('"ip"', '"y"'))
        assert f"] bn {says} backward computation." in capsys.readouterr().err
        assert [p.lr_mult for p in net.learnable] == [0, 0, 0]
        net.blobs["x"].data[...] = [[1, 2, 3], [3, 2, 1]]
        net.forward()
        net.backward()
        assert not any(p.blob.diff.any() for p in net.learnable)


def test_anonymous_tops(make_net) -> None:
    net = make_net(
        INPUT.replace('top: "x"', 'top: "x" top: "l"')
        + 'layer { name: "loss" type: "EuclideanLoss" bottom: "x" bottom: "l" }'
    )
    net.blobs["x"].data[...] = 2
    net.blobs["l"].data[...] = 0
    assert net._forward(0, 1) == pytest.approx(6 * 4 / 2 / 2)
    assert net.outputs == []
    assert list(net.blobs) == ["x", "l", "(automatic)"]


IN_PLACE = 'layer { name: "l" bottom: "x" top: "x" type: '


@pytest.mark.parametrize(
    ("layer", "shapes"),
    [
        ('"Tile" tile_param { tiles: 2 } }', "[(]2, 3[)] becomes [(]2, 6[)]"),
        ('"ArgMax" argmax_param { axis: 1 } }', "[(]2, 3[)] becomes [(]2, 1[)]"),
        ('"InnerProduct" inner_product_param { num_output: 4 } }', "becomes [(]2, 4[)]"),
        ('"Reduction" }', "becomes [(][)]"),
    ],
)
def test_a_layer_that_changes_the_shape_does_not_work_in_place(make_net, layer, shapes) -> None:
    message = f"layer 'l' .*: cannot work in place: its bottom .*{shapes}"
    with pytest.raises(caffe.CaffeError, match=message):
        make_net(INPUT + IN_PLACE + layer)


def test_a_layer_that_keeps_the_shape_works_in_place(make_net) -> None:
    net = make_net(INPUT + IN_PLACE + '"InnerProduct" inner_product_param { num_output: 3 } }')
    net.blobs["x"].data[...] = 1
    assert net.forward()["x"].shape == (2, 3)


# -- memory ---------------------------------------------------------------------------------------


def test_a_net_that_is_too_large_is_refused_before_memory_is_taken(make_net, monkeypatch) -> None:
    monkeypatch.setattr(caffe.blob.Blob, "tensor", lambda *_: pytest.fail("memory was taken"))
    monkeypatch.setattr(memory, "left", lambda: 1000.0)
    big = INPUT + ip("small", "x") + ip("big", "small", outputs=500)
    message = (
        r"^layer 'big' \(InnerProduct\): the net needs 10.0 kB of memory up to here, of which "
        r"6.0 kB are parameters and 4.0 kB this layer's blobs; 1.0 kB are left$"
    )
    # weights: (2 x 3 + 2) + (500 x 2 + 500); bottom and top: 2 x 2 + 2 x 500; 4 bytes each
    with pytest.raises(caffe.CaffeError, match=message):
        make_net(big)


def test_what_padding_takes_counts(make_net, monkeypatch) -> None:
    """One window of 1000 x 1000 padded values, though bottom and top are small."""
    monkeypatch.setattr(memory, "left", lambda: 1e6)
    pool = 'type: "Pooling" bottom: "x" top: "y" pooling_param { kernel_size: 1000 pad: 499 }'
    with pytest.raises(caffe.CaffeError, match=r"^layer 'p' \(Pooling\): the net needs 4.0 MB"):
        make_net(image(1, 1, 2, 2) + f'layer {{ name: "p" {pool} }}')


def test_blobs_that_are_kept_need_memory_together(make_net, monkeypatch) -> None:
    net = make_net(CHAIN)  # four blobs of 2 x 3
    monkeypatch.setattr(memory, "left", lambda: 4.0 * 23)
    with pytest.raises(caffe.CaffeError, match=r"^layer 'c' \(Power\): the net needs"):
        net.forward()
    net.observed = False  # a plan frees what no layer takes any more
    net.forward()
