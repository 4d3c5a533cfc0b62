"""Depth from another camera, labelled by the command and from Python."""

import json

import cv2
import numpy as np
import pytest

from data_tools.align import align
from data_tools.calibration import rig
from data_tools.camera import Extrinsics, Intrinsics
from data_tools.cli import DataError
from data_tools.images import read_label
from eval_tools import predict
from eval_tools.predictor import Predictor

COLOR = Intrinsics(60.0, 60.0, 31.5, 23.5, (), (64, 48))
DEPTH = Intrinsics(50.0, 50.0, 19.5, 19.5, (), (40, 40))
PLACE = Extrinsics(translation=(0.05, 0.0, 0.0))


@pytest.fixture
def files(tmp_path):
    """Paths by name: colour, depth in millimetres, the same aligned in metres, and the cameras."""
    random = np.random.default_rng(0)
    depth = np.repeat(random.integers(600, 3000, (40, 4), np.uint16), 10, axis=1)
    told = {"color": COLOR.describe(), "depth": DEPTH.describe(), "extrinsics": PLACE.describe()}
    paths = {
        name: str(tmp_path / name) for name in ("rgb.png", "depth.png", "near.npy", "rig.json")
    }
    (tmp_path / "rig.json").write_text(json.dumps(told))
    cv2.imwrite(paths["rgb.png"], random.integers(0, 256, (48, 64, 3), np.uint8))
    cv2.imwrite(paths["depth.png"], depth)
    np.save(paths["near.npy"], align(depth / 1000, rig(paths["rig.json"]), (64, 48)))
    return paths


def test_predict_and_predictor_align(model, files, tmp_path):
    out, common = str(tmp_path / "out.png"), ["--rgb", files["rgb.png"], "--size", "original"]
    common += ["--depth-range", "0:3", "-o", out]
    predict.main([*model, *common, "--depth", files["near.npy"]])
    wanted = read_label(out)
    predict.main(
        [*model, *common, "--depth", files["depth.png"], "--intrinsics", files["rig.json"]]
    )
    assert (read_label(out) == wanted).mean() > 0.999
    assert len(np.unique(wanted)) > 2
    bgr, raw = cv2.imread(files["rgb.png"]), cv2.imread(files["depth.png"], cv2.IMREAD_UNCHANGED)
    found = Predictor(*model, rig=rig(files["rig.json"]))(bgr, raw, unit="mm")
    near = Predictor(*model)(bgr, np.load(files["near.npy"]), unit="m")
    assert (found == near).mean() > 0.999


def test_depth_cannot_be_projected_into_no_colour(model, files, tmp_path):
    both = [*model, "--depth", files["depth.png"], "--intrinsics", files["rig.json"]]
    with pytest.raises(DataError, match="looks at rgb: --rgb is missing"):
        predict.main([*both, "-o", str(tmp_path / "x.png")])
    with pytest.raises(DataError, match="depth is 48x64; its camera's intrinsics are of 40x40"):
        Predictor(*model, rig=rig(files["rig.json"]))(
            np.zeros((48, 64, 3), np.uint8), np.ones((64, 48), np.uint16)
        )
