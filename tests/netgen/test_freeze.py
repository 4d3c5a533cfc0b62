"""Frozen layers: which parameters stay, and that what is frozen gives the same in both phases."""

from __future__ import annotations

import re
from pathlib import Path

import lmdb
import numpy as np
import pytest
from netgen_runs import run

import caffe
from caffe.errors import CaffeError
from caffe.formats import files
from caffe.proto.caffe_pb2 import Datum, NetParameter
from netgen import NETS, Architecture, Training, train_net

CLASSES = 3
LEARNING = ("Convolution", "Deconvolution", "BatchNorm", "Scale", "InnerProduct")


def arch(net: str) -> Architecture:
    return Architecture(net, CLASSES, (33, 32), width_multiplier=0.04)


def frozen_net(net: str, *what: str, source: str = "none", batch: int = 2) -> NetParameter:
    return train_net(arch(net), Training(source, source, batch, batch, freeze=what))


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> str:
    random = np.random.RandomState(0)
    path = str(tmp_path_factory.mktemp("lmdb"))
    with lmdb.open(path, map_size=2**22) as env, env.begin(write=True) as transaction:
        for i in range(6):
            frame = random.randint(0, 256, (5, 32, 33)).astype(np.uint8)
            frame[4] = random.randint(0, CLASSES + 1, (32, 33))
            datum = Datum(channels=5, height=32, width=33, data=frame.tobytes())
            transaction.put(b"%08d" % i, datum.SerializeToString())
    return path


def values(net: caffe.Net) -> dict[str, list[np.ndarray]]:
    return {name: [blob.data.copy() for blob in blobs] for name, blobs in net.params.items()}


def solver_for(net: NetParameter, folder: Path, steps: int) -> caffe.SGDSolver:
    files.write_text(folder / "net.prototxt", net)
    text = f'net: "{folder}/net.prototxt" base_lr: 0.01 momentum: 0.9 weight_decay: 0.1 '
    text += f'lr_policy: "fixed" max_iter: {steps} random_seed: 1 snapshot_prefix: "{folder}/s" '
    (folder / "solver.prototxt").write_text(text + "test_iter: 1 test_interval: 1000 ")
    return caffe.SGDSolver(str(folder / "solver.prototxt"))


def is_depths(name: str) -> bool:
    return "_pair" in name


def is_encoders(name: str) -> bool:
    return "_D" not in name and name != "score"


@pytest.mark.parametrize(
    ("net", "what", "is_frozen"),
    [
        ("sf5", ["encoder"], is_encoders),
        ("sf5", ["depth"], is_depths),
        ("sf5", ["rgb"], lambda name: is_encoders(name) and not is_depths(name)),
        ("df3", ["depth", "score"], lambda name: is_depths(name) or name == "score"),
        ("rgbd", ["encoder"], is_encoders),
        ("depth", ["depth"], is_encoders),
        ("rgb", ["conv1_?", "conv[45]_?_D*"], lambda name: re.match("conv1_.$|conv[45]_._D", name)),
    ],
)
def test_ten_iterations_change_all_but_what_is_frozen(
    net: str, what: list[str], is_frozen, records: str, tmp_path: Path
) -> None:
    """Parameters, and the statistics that BatchNorm gathers."""
    trained = solver_for(frozen_net(net, source=records), tmp_path, 1)
    trained.step(1)
    weights = str(tmp_path / "trained.caffemodel")
    trained.net.save(weights)
    solver = solver_for(frozen_net(net, *what, source=records), tmp_path, 10)
    solver.net.copy_from(weights)
    before = values(solver.net)
    solver.step(10)
    after = values(solver.net)
    same = {
        name: [np.array_equal(a, b) for a, b in zip(before[name], after[name], strict=True)]
        for name in after
    }
    assert {name for name in after if is_frozen(name)} == {
        n for n, all_ in same.items() if all(all_)
    }
    assert any(map(is_frozen, after))
    # Weights, statistics and gains of all others changed, not only a bias.
    assert not any(blobs[0] for name, blobs in same.items() if not is_frozen(name))


@pytest.mark.parametrize("what", ["encoder", "depth"])
def test_what_is_frozen_gives_the_same_in_both_phases(
    what: str, records: str, tmp_path: Path
) -> None:
    """With dropout, and batches whose own statistics would differ."""
    trained = solver_for(frozen_net("sf5", source=records), tmp_path, 1)
    trained.step(1)
    weights = str(tmp_path / "trained.caffemodel")
    trained.net.save(weights)
    param = frozen_net("sf5", what, source=records, batch=3)
    for layer in param.layer:
        layer.data_param.ClearField("shuffle")
    files.write_text(tmp_path / "net.prototxt", param)
    tops = {}
    for phase in (caffe.TRAIN, caffe.TEST):
        net = caffe.Net(str(tmp_path / "net.prototxt"), phase)
        net.copy_from(weights)
        net.forward()
        tops[phase] = {name: blob.data.copy() for name, blob in net.blobs.items()}
    last = "pool5" if what == "encoder" else "conv5_3_pair"
    assert np.array_equal(tops[caffe.TRAIN][last], tops[caffe.TEST][last])
    assert not np.array_equal(tops[caffe.TRAIN]["score"], tops[caffe.TEST]["score"])


@pytest.mark.parametrize("net", NETS)
def test_branches_are_whole(net: str) -> None:
    """Encoder: all layers that learn, gather or drop and are not the decoder's or the scores'."""
    layers = {layer.name: layer for layer in frozen_net(net, "encoder").layer}
    for name, layer in layers.items():
        encoders = "_D" not in name and name != "score" and not name.startswith("decdrop")
        if layer.type == "BatchNorm":
            assert layer.batch_norm_param.use_global_stats == encoders
        elif layer.type == "Dropout":
            assert (layer.dropout_param.dropout_ratio == 0) == encoders
        elif layer.type in LEARNING:
            rates = [(spec.lr_mult, spec.decay_mult) for spec in layer.param]
            assert (rates == [(0, 0)] * 2) == encoders, name
        else:
            assert not layer.param


@pytest.mark.parametrize(
    ("net", "what", "message"),
    [
        ("rgb", "depth", "--freeze depth: the net has no such branch; expected encoder, rgb or"),
        ("rgbd", "rgb", "--freeze rgb: the net has no such branch; expected encoder or layers'"),
        ("sf1", "conv9_1", r"conv9_1: no layer has such a name; did you mean one of conv\d_1"),
        ("sf1", "encodr", "encodr: no layer has such a name; did you mean one of encoder"),
        ("rgb", "all", "all: no layer has such a name; expected encoder, rgb or layers' names"),
        ("sf1", "Conv1_1", "Conv1_1: no layer has such a name; did you mean one of conv1_1"),
        ("sf1", "relu1_1", "--freeze relu1_1: of relu1_1, nothing is learned"),
        ("sf1", "conv2_1_pair", "conv2_1_pair: no layer has such a name"),
        ("sf1", "*", r"--freeze score,\*: nothing is left to learn"),
    ],
)
def test_what_cannot_be_frozen(net: str, what: str, message: str) -> None:
    with pytest.raises(CaffeError, match=message):
        frozen_net(net, "score", what)


def run_sf5(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    return run(capsys, "sf5", "--classes", "3", "--source", "a", *argv)


def test_the_head_of_the_file_says_what_is_frozen(capsys) -> None:
    _, out, _ = run_sf5(capsys, "--freeze", "rgb, conv1_*_pair")
    lines = out.splitlines()
    assert lines[0].endswith("--freeze 'rgb, conv1_*_pair'")
    frozen = "# rgb, conv1_*_pair: frozen; start with caffe train -weights TRAINED.caffemodel"
    assert lines[1] == frozen
    assert "frozen" not in run_sf5(capsys)[1]
    # A pattern may hold a line break, which must not end the comment.
    assert run_sf5(capsys, "--freeze", "conv1_[1\n]")[1].splitlines()[2].startswith("name:")


def test_bad_usage(capsys) -> None:
    assert run_sf5(capsys, "--freeze", "rgb", "--deploy")[0] == 2
    status, out, err = run_sf5(capsys, "--freeze", "rgb,,depth")
    assert (status, out) == (2, "")
    assert "'rgb,,depth' has an empty part" in err
