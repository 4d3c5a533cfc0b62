"""A net whose answers are known, and LMDBs to ask it about.

The net labels a pixel with 1, 2, 3 or 4 where blue, green, red or depth is the highest of the four
(0 where all are below 1), so a frame painted with values says what must come out.
"""

import json
from types import SimpleNamespace

import lmdb
import numpy as np
import pytest
from browser import chromium

import caffe
from data_tools.record import to_datum
from data_tools.store import key

NAMES = ["(ignored)", "bluish", "greenish", "reddish", "far"]

DEPLOY = """
name: "brightest"
layer { name: "rgb" type: "Input" top: "rgb"
        input_param { shape { dim: 1 dim: 3 dim: HEIGHT dim: WIDTH } } }
layer { name: "depth" type: "Input" top: "depth"
        input_param { shape { dim: 1 dim: 1 dim: HEIGHT dim: WIDTH } } }
layer { name: "all" type: "Concat" bottom: "rgb" bottom: "depth" top: "all" }
layer { name: "score" type: "Convolution" bottom: "all" top: "score"
        convolution_param { num_output: 5 kernel_size: 1 } }
layer { name: "prob" type: "Softmax" bottom: "score" top: "prob" }
"""


def write_model(folder, text, params, name="net"):
    """Writes a deploy prototxt and a caffemodel with those blobs; returns both paths."""
    deploy, weights = folder / f"{name}.prototxt", folder / f"{name}.caffemodel"
    deploy.write_text(text)
    net = caffe.Net(str(deploy), caffe.TEST)
    for layer, blobs in params.items():
        for blob, value in zip(net.params[layer], blobs, strict=True):
            blob.data[...] = np.reshape(value, blob.data.shape)
    net.save(str(weights))
    return str(deploy), str(weights)


def brightest():
    """Weights that copy the four planes to the scores 1..4; label 0 scores 1."""
    weight = np.zeros((5, 4))
    weight[1:] = np.eye(4)
    return {"score": [weight, [1, 0, 0, 0, 0]]}


def paint(labels):
    """Planes (4, H, W) that the net labels so: 200 in the label's plane, 10 in the others."""
    planes = np.full((4, *labels.shape), 10, np.uint8)
    for label in range(1, 5):
        planes[label - 1][labels == label] = 200
    planes[:, labels == 0] = 0
    return planes


def write_lmdb(path, frames, info=None, scenes=None, dtype=np.uint8):
    """frames: name -> (found, truth) label maps; truth None leaves the label channel out."""
    path.mkdir()
    env = lmdb.open(str(path), map_size=1 << 26)
    with env.begin(write=True) as transaction:
        for i, (name, (found, truth)) in enumerate(frames.items()):
            planes = paint(found)
            if truth is not None:
                planes = np.concatenate([planes, truth[None].astype(np.uint8)])
            scene = scenes[i] if scenes else 0
            transaction.put(key(i, name), to_datum(planes.astype(dtype), scene))
    env.close()
    if info is not None:
        (path / "dataset.json").write_text(json.dumps(info))
    return path


def draw_frames(count, shape=(12, 16), seed=0, right=0.6):
    """Frames of which the net gets about that share of the pixels right."""
    random = np.random.default_rng(seed)
    frames = {}
    for i in range(count):
        truth = random.integers(0, 5, shape)
        wrong = random.random(shape) > right
        frames[f"frame{i}"] = (np.where(wrong, random.integers(0, 5, shape), truth), truth)
    return frames


@pytest.fixture(scope="session")
def toy():
    """This file's functions, for the tests beside it."""
    return SimpleNamespace(
        names=NAMES,
        deploy=DEPLOY,
        brightest=brightest,
        paint=paint,
        model=write_model,
        lmdb=write_lmdb,
        frames=draw_frames,
    )


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """(DEPLOY, WEIGHTS) of the net, at 16x12."""
    text = DEPLOY.replace("HEIGHT", "12").replace("WIDTH", "16")
    return write_model(tmp_path_factory.mktemp("model"), text, brightest())


@pytest.fixture
def data(tmp_path):
    """(LMDB, frames): six frames with class names."""
    frames = draw_frames(6)
    return write_lmdb(tmp_path / "lmdb", frames, {"classes": NAMES}), frames


@pytest.fixture(scope="session")
def page(tmp_path_factory):
    """A tab of a headless Chromium."""
    with chromium(tmp_path_factory.mktemp("chromium")) as tab:
        yield tab
