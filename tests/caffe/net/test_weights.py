"""Weights into nets and out of them: files, and sharing between nets."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from nets import CHAIN, INPUT, IP, ip, shared

import caffe
from caffe.formats import files
from caffe.proto import caffe_pb2 as pb

pytestmark = pytest.mark.usefixtures("fresh")


def test_save_and_copy_from(make_net, tmp_path) -> None:
    first, second = make_net(CHAIN + IP), make_net(CHAIN + IP)
    for name in ("w.caffemodel", "w.caffemodel.h5"):
        (first.save_hdf5 if name.endswith("h5") else first.save)(tmp_path / name)
        for blob in second.params["ip"]:
            blob.data[...] = 0
        second.copy_from(str(tmp_path / name))
        for mine, theirs in zip(second.params["ip"], first.params["ip"], strict=True):
            assert np.array_equal(mine.data, theirs.data)


def test_a_saved_net_keeps_its_structure(make_net, tmp_path) -> None:
    make_net('name: "n"' + INPUT + ip("a", "x") + ip("b", "x")).save(tmp_path / "w")
    saved = pb.NetParameter.FromString((tmp_path / "w").read_bytes())
    assert saved.name == "n"
    assert [layer.name for layer in saved.layer] == ["in", "x_in_0_split", "a", "b"]
    assert list(saved.layer[2].blobs[0].shape.dim) == [2, 3]


@pytest.mark.parametrize("name", ["w.caffemodel", "w.caffemodel.h5"])
def test_two_layers_of_one_name(make_net, tmp_path, name: str) -> None:
    text = INPUT + IP + 'layer { name: "ip" type: "ReLU" bottom: "ip" top: "ip" }'
    first, second = make_net(text), make_net(text)
    assert list(first.params) == ["ip"]
    (first.save_hdf5 if name.endswith("h5") else first.save)(tmp_path / name)
    second.copy_from(tmp_path / name)
    assert np.array_equal(second.params["ip"][0].data, first.params["ip"][0].data)


def test_gradients_are_saved_on_demand(make_net, tmp_path) -> None:
    net = make_net(INPUT + IP)
    net.params["ip"][0].diff[...] = 5
    net.save(tmp_path / "w")
    assert not files.read_weights(tmp_path / "w").diffs
    net.save(tmp_path / "w", write_diff=True)
    assert (files.read_weights(tmp_path / "w").diffs["ip"][0] == 5).all()


def test_shared_parameters_are_saved_once_in_hdf5(make_net, tmp_path) -> None:
    net = make_net(shared("", ""))
    net.save_hdf5(tmp_path / "w.h5")
    with h5py.File(tmp_path / "w.h5") as file:
        assert sorted(file["data/a"]) == ["0", "1"]
        assert sorted(file["data/b"]) == ["1"]
    other = make_net(shared("", ""))
    other.load_hdf5(tmp_path / "w.h5")
    assert np.array_equal(other.params["b"][0].data, net.params["a"][0].data)


def test_layers_that_only_one_side_has(make_net, tmp_path, capsys) -> None:
    make_net(INPUT + ip("a", "x") + ip("b", "a")).save(tmp_path / "w")
    net = make_net(INPUT + ip("a", "x") + ip("c", "a"))
    before = net.params["c"][0].data.copy()
    net.copy_from(tmp_path / "w")
    assert np.array_equal(net.params["c"][0].data, before)
    assert capsys.readouterr().err.splitlines()[-1].endswith("] Ignoring source layer b")


def test_a_file_without_weights_for_any_layer_is_told(make_net, tmp_path, capsys) -> None:
    net = make_net(INPUT + ip("a", "x"))
    (tmp_path / "empty").write_bytes(b"")
    net.copy_from(tmp_path / "empty")
    assert "empty: no weights for any of the 1 layers that have some" in capsys.readouterr().err


def _write(path, arrays: dict[str, list[np.ndarray]]) -> None:
    param = pb.NetParameter()
    for name in arrays:
        param.layer.add(name=name, type="InnerProduct")
    files.write_weights(path, param, arrays)


def test_shapes_of_four_axes_from_old_models(make_net, tmp_path) -> None:
    weight = np.arange(6, dtype=np.float32)
    _write(tmp_path / "w", {"ip": [weight.reshape(1, 1, 2, 3), weight[:2].reshape(1, 1, 1, 2)]})
    net = make_net(INPUT + IP)
    net.copy_from(tmp_path / "w")
    assert net.params["ip"][0].data.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert net.params["ip"][1].data.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ([np.ones((2, 4)), np.ones(2)],
         r"w: layer 'b', parameter blob 0: shape mismatch: the file has 2 4 \(8\), the net 2 2"),
        ([np.ones((1, 1, 4, 1)), np.ones(2)], r"layer 'b', parameter blob 0: shape mismatch"),
        ([np.ones((2, 2)), np.ones(3)], r"layer 'b', parameter blob 1: .*has 3 \(3\), the net 2"),
        ([np.ones((2, 2))], r"layer 'b': the file has 1 parameter blob\(s\), the net 2"),
        ([], r"layer 'b': the file has 0 parameter blob\(s\), the net 2"),
    ],
)  # fmt: skip
def test_weights_that_do_not_fit_change_nothing(make_net, tmp_path, arrays, message) -> None:
    _write(tmp_path / "w", {"a": [np.ones((2, 3), np.float32), np.ones(2, np.float32)],
                            "b": [a.astype(np.float32) for a in arrays]})  # fmt: skip
    net = make_net(INPUT + ip("a", "x") + ip("b", "a"))
    before = net.params["a"][0].data.copy()
    with pytest.raises(caffe.CaffeError, match=message):
        net.copy_from(tmp_path / "w")
    assert np.array_equal(net.params["a"][0].data, before)


@pytest.mark.parametrize("name", ["w.caffemodel", "w.caffemodel.h5"])
def test_fresh_layers_keep_what_they_have(make_net, tmp_path, name: str) -> None:
    source = make_net(INPUT + ip("a", "x") + ip("b", "a") + ip("b1", "b") + ip("c[1]", "b1"))
    for blobs in source.params.values():
        blobs[0].data[...] = 7
    (source.save_hdf5 if name.endswith("h5") else source.save)(tmp_path / name)
    # b has another shape than in the file.
    net = make_net(INPUT + ip("a", "x") + ip("b", "a", outputs=5) + ip("b1", "b") + ip("c[1]", "a"))
    net.copy_from(tmp_path / name, fresh=["b*", "c[1]"])
    assert [layer for layer, blobs in net.params.items() if (blobs[0].data == 7).all()] == ["a"]


@pytest.mark.parametrize("layer", ["a", "b"])
@pytest.mark.parametrize("name", ["w.caffemodel", "w.caffemodel.h5"])
def test_a_parameter_that_a_fresh_layer_shares_is_fresh(make_net, tmp_path, layer, name) -> None:
    """a owns the weight, b shares it; their biases are their own."""
    source, net = make_net(shared("", "")), make_net(shared("", ""))
    for blobs in source.params.values():
        for blob in blobs:
            blob.data[...] = 7
    (source.save_hdf5 if name.endswith("h5") else source.save)(tmp_path / name)
    net.copy_from(tmp_path / name, fresh=[layer])
    assert not (net.params["a"][0].data == 7).any()
    assert [n for n in "ab" if (net.params[n][1].data == 7).all()] == [{"a": "b", "b": "a"}[layer]]


def test_fresh_layers_that_are_not_there(make_net, tmp_path) -> None:
    net = make_net(
        INPUT + ip("score", "x") + 'layer { name: "r" type: "ReLU" bottom: "score" top: "r" }'
    )
    net.save(tmp_path / "w")
    for pattern, message in (
        ("scroe", "no layer with weights is named 'scroe'; near it: score"),
        ("conv*", r"no layer with weights is named 'conv\*'; they are: score"),
        ("r", "no layer with weights is named 'r'; they are: score"),
    ):
        with pytest.raises(caffe.CaffeError, match=message):
            net.copy_from(tmp_path / "w", fresh=["score", pattern])


def test_reading_weights_warns_of_nothing(make_net, tmp_path, recwarn) -> None:
    net = make_net(INPUT + IP)
    net.save(tmp_path / "w")
    net.copy_from(tmp_path / "w")
    assert not recwarn.list


def test_share_with(make_net) -> None:
    first = make_net(INPUT + ip("a", "x") + ip("b", "a"))
    second = make_net(INPUT + ip("a", "x"), caffe.TEST)
    second.share_with(first)
    first.params["a"][0].data[...] = 3
    assert (second.params["a"][0].data == 3).all()
    second.params["a"][0].diff[...] = 1  # gradients stay apart
    assert not first.params["a"][0].diff.any()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (ip("a", "x", outputs=3), r"layer 'a', parameter blob 0: cannot share 2 3 \(6\) with 3 3"),
        (ip("a", "x").replace("num_output", "bias_term: false num_output"),
         r"layer 'a': cannot share 2 parameter blob\(s\) with 1"),
    ],
)  # fmt: skip
def test_share_with_another_shape(make_net, text: str, message: str) -> None:
    with pytest.raises(caffe.CaffeError, match=message):
        make_net(INPUT + text).share_with(make_net(INPUT + ip("a", "x")))
