"""Units of depth that files beside the pictures declare."""

import json

import layouts
import numpy as np
import pytest

from data_tools.depth import DepthUnit
from data_tools.recordings import declared
from data_tools.store import read_info

BOP = {"1": {"cam_K": [1, 0, 0, 0, 1, 0, 0, 0, 1], "depth_scale": 0.1}, "2": {"depth_scale": 0.1}}


@pytest.mark.parametrize(
    ("name", "content", "steps"),
    [
        ("cam_params.json", {"camera": {"w": 1200, "fx": 600.0, "scale": 6553.5}}, 6553.5),
        ("scene_camera.json", BOP, 10000),
        ("scene_camera.json", {"0": {"depth_scale": 1}}, 1000),
        ("transforms.json", {"frames": [], "integer_depth_scale": 10 / 65535}, 6553.5),
        ("transforms.json", {"frames": [], "depth_unit_scale_factor": 0.001}, 1000),
    ],
)
def test_steps_in_a_metre(tmp_path, name, content, steps):
    (tmp_path / name).write_text(json.dumps(content))
    assert declared.unit(tmp_path) == (DepthUnit("steps", steps), name)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("cam_params.json", {"camera": {"scale": "6553.5"}}),
        ("cam_params.json", {"camera": [1]}),
        ("scene_camera.json", {"0": {"depth_scale": 1}, "1": {"depth_scale": 0.1}}),
        ("scene_camera.json", {"0": {"cam_K": []}}),
        ("scene_camera.json", {}),
        ("scene_camera.json", {"0": {"depth_scale": 0}}),
        ("transforms.json", {"integer_depth_scale": True}),
        ("transforms.json", {"integer_depth_scale": 1e300}),
    ],
)
def test_files_that_do_not_say_it(command, tmp_path, rendered, name, content):
    layouts.open3d(tmp_path / "rec", rendered[:1], ".png")
    (tmp_path / "rec" / name).write_text(json.dumps(content))
    line = command("sequence", "rec", "db", code=1).stderr
    assert f"{name}: " in line
    assert len(line.splitlines()) == 1


def test_ycb_video_is_told_by_its_files(tmp_path):
    (tmp_path / "000001-meta.mat").write_bytes(b"MATLAB")
    assert declared.unit(tmp_path) == (DepthUnit("steps", 10000), "000001-meta.mat")


def test_files_that_say_nothing_of_depth(tmp_path):
    assert declared.unit(tmp_path) is None
    (tmp_path / "transforms.json").write_text('{"fl_x": 500, "frames": []}')
    assert declared.unit(tmp_path) is None


def test_the_unit_is_taken_and_its_file_said(command, tmp_path, rendered, records):
    root = layouts.named(tmp_path / "Replica/office0", rendered,
                         lambda i: f"results/frame{i:06d}.png",
                         lambda i: f"results/depth{i:06d}.png")  # fmt: skip
    (tmp_path / "Replica/cam_params.json").write_text('{"camera": {"scale": 6553.5}}')
    said = command("sequence", root, "db", "--depth-range", "0:4").stderr
    assert said.endswith("depth unit: 6553.5 steps per metre (cam_params.json)\n")
    assert read_info("db")["options"]["depth_unit"] == "6553.5 steps per metre"
    where = layouts.folder(tmp_path / "plain", rendered)
    command("folder", *where, "--depth-unit", 6553.5, "wanted", "--depth-range", "0:4")
    assert records("db") == records("wanted")
    said = command("sequence", root, "mm", "--depth-unit", "mm").stderr
    assert said.endswith("depth unit: 1000 steps per metre\n")


@pytest.mark.parametrize("unit", ["mm", "6553.5", "sunrgbd"])
def test_pairs_that_sequence_wrote_have_their_unit(command, tmp_path, rendered, records, unit):
    """Their names are times, as TUM's are, whose unit they do not have."""
    layouts.tum(tmp_path / "rec", rendered)
    command("sequence", "rec", "pairs", "--to", "folder", "--depth-unit", unit)
    said = command("sequence", "pairs", "db", "--depth-range", "0:4").stderr
    assert said.startswith("pairs: TUM RGB-D, 6 colour")
    told = {"mm": "1000 steps per metre", "6553.5": "6553.5 steps per metre"}.get(unit, unit)
    assert f"depth unit: {told} (dataset.json)\n" in said
    command("sequence", "rec", "wanted", "--depth-unit", unit, "--depth-range", "0:4")
    assert records("db") == records("wanted")
    facts = json.loads((tmp_path / "pairs/dataset.json").read_text())
    facts["options"]["depth_unit"] = "far"
    (tmp_path / "pairs/dataset.json").write_text(json.dumps(facts))
    line = command("sequence", "pairs", "d", code=1).stderr
    assert "dataset.json: not a unit of depth in options: 'far' is neither a number" in line


def test_floats_are_metres_whatever_is_declared(command, tmp_path, rendered):
    frames = [(color, (depth / 1000).astype(np.float32)) for color, depth in rendered]
    root = layouts.named(tmp_path / "rec", frames, lambda i: f"rgb/{i}.png",
                         lambda i: f"depth/{i}.npy")  # fmt: skip
    (root / "scene_camera.json").write_text(json.dumps(BOP))
    said = command("sequence", root, "db").stderr
    assert said.endswith("depth unit: 1 steps per metre\n")


def test_floats_that_no_room_has_are_millimetres(command, tmp_path, rendered, records):
    for name, scale in (("mm", 1), ("m", 1000)):
        frames = [(color, (depth / scale).astype(np.float32)) for color, depth in rendered]
        layouts.named(tmp_path / name, frames, lambda i: f"rgb/{i}.png",
                      lambda i: f"depth/{i}.npy")  # fmt: skip
    said = command("sequence", "mm", "a", "--depth-range", "0:4").stderr
    assert said.endswith("depth unit: 1000 steps per metre\n")
    command("sequence", "m", "b", "--depth-range", "0:4")
    assert records("a") == records("b")
