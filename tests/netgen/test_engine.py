"""Emitted nets in the engine: they build, run and train, and the sketch knows their shapes."""

from __future__ import annotations

from pathlib import Path

import lmdb
import numpy as np
import pytest

import caffe
from caffe.formats import files
from caffe.graph.sketch import sketch
from netgen import NETS, Architecture, Training, deploy_net, train_net

CLASSES, SCENES = 4, 3


def small(net: str, size: tuple[int, int]) -> Architecture:
    return Architecture(net, CLASSES, size, width_multiplier=0.04, scene_classes=SCENES)


def built(net, tmp_path: Path, phase: int) -> caffe.Net:
    files.write_text(tmp_path / "net.prototxt", net)
    return caffe.Net(str(tmp_path / "net.prototxt"), phase)


@pytest.mark.parametrize(
    ("net", "size"),
    [*((net, (33, 47)) for net in NETS), ("sf5", (321, 243)), ("df2", (64, 96)), ("rgb", (32, 32))],
)
def test_deploy_nets_run_at_any_size(net: str, size: tuple[int, int], tmp_path: Path) -> None:
    param = deploy_net(small(net, size))
    found = built(param, tmp_path, caffe.TEST)
    for blob in found.inputs:
        found.blobs[blob].data[...] = np.random.RandomState(0).rand(*found.blobs[blob].data.shape)
    # A fresh BatchNorm divides by a variance of 0: give it the statistics of an identity.
    for name, blobs in found.params.items():
        if "_bn" in name:
            blobs[1].data[...] = blobs[2].data[...] = 1
    out = found.forward()
    assert out["prob"].shape == (1, CLASSES + 1, size[1], size[0])
    np.testing.assert_allclose(out["prob"].sum(1), 1, rtol=1e-4)
    assert out["scene_prob"].shape == (1, SCENES)
    for item in sketch(param, caffe.TEST):
        blobs = found.params.get(item.layer.name, [])
        assert [tuple(blob.data.shape) for blob in blobs] == item.params
        for top, shape in zip(item.layer.top, item.tops, strict=True):
            assert tuple(found.blobs[top].data.shape) == shape, top


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Six random records of 47x33 with labels 0..CLASSES and scenes."""
    random = np.random.RandomState(0)
    path = str(tmp_path_factory.mktemp("lmdb"))
    with lmdb.open(path, map_size=2**22) as env, env.begin(write=True) as transaction:
        for i in range(6):
            frame = random.randint(0, 256, (5, 33, 47)).astype(np.uint8)
            frame[4] = random.randint(0, CLASSES + 1, (33, 47))
            datum = caffe.proto.caffe_pb2.Datum(
                channels=5, height=33, width=47, data=frame.tobytes(), label=i % SCENES
            )
            transaction.put(b"%08d" % i, datum.SerializeToString())
    return path


@pytest.mark.parametrize("net", NETS)
def test_train_nets_train(net: str, records: str, tmp_path: Path) -> None:
    training = Training(records, records, 2, label_weights=(0.0, 1.0, 2.0, 0.5, 1.0))
    param = train_net(small(net, (47, 33)), training)
    found = built(param, tmp_path, caffe.TRAIN)
    out = found.forward()
    assert set(out) == {"loss", "accuracy", "scene_loss", "scene_accuracy"}
    # Five labels, one weighted 0 and ignored: an untrained net is near ln 5 = 1.6 times the
    # weights' mean, and nowhere near overflowing.
    assert 0.1 < out["loss"] < 20
    found.backward()
    learned = [
        np.abs(found.params[layer.name][0].diff).max() > 0
        for layer in param.layer
        if layer.type in ("Convolution", "Deconvolution", "InnerProduct")
    ]
    assert all(learned)
    assert set(built(param, tmp_path, caffe.TEST).forward()) == set(out)
