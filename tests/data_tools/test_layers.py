"""RGBDImages in a net: the values of an LMDB, each frame once an epoch, read ahead."""

import json
import os
import subprocess
import sys

import cv2
import numpy as np
import pytest

import caffe
from caffe.proto import caffe_pb2
from data_tools import layers
from data_tools.cli import DataError
from data_tools.layers import FrameList, Settings
from data_tools.store import Reader
from data_tools.synth import Synth


@pytest.fixture(scope="module", autouse=True)
def quiet():
    caffe.init_log(2)


@pytest.fixture
def listing(tmp_path, monkeypatch):
    """Seven frames as PNGs and train.txt, which names them."""
    monkeypatch.chdir(tmp_path)
    lines = []
    for index in range(7):
        frame = Synth(7, (32, 24), 1).load(index)
        for part, image in (("c", frame.color), ("d", frame.depth), ("l", frame.label)):
            (tmp_path / part).mkdir(exist_ok=True)
            cv2.imwrite(str(tmp_path / part / f"{index}.png"), image)
        lines.append(f"c/{index}.png d/{index}.png l/{index}.png {index % 3}\n")
    (tmp_path / "train.txt").write_text("".join(lines))
    return tmp_path


def net(tops=("rgb", "depth", "label"), phase=caffe.TRAIN, **settings):
    param = caffe_pb2.NetParameter()
    layer = param.layer.add(name="data", type="Python", top=tops)
    layer.python_param.module = "data_tools.layers"
    layer.python_param.layer = "RGBDImages"
    layer.python_param.param_str = json.dumps({"source": "train.txt", **settings})
    return caffe.Net(param, phase)


@pytest.mark.parametrize(
    ("size", "fit"), [((16, 12), {}), ((16, 8), {}), ((8, 12), {"fit": "pad"})]
)
def test_the_values_are_an_lmdbs(listing, command, size, fit):
    options = ["--size", "{}x{}".format(*size), *(("--fit", fit["fit"]) if fit else ())]
    command("folder", "--rgb", "c", "--depth", "d", "--label", "l", "db",
            "--depth-range", "valid", *options)  # fmt: skip
    made = net(("rgb", "depth", "label", "scene"), batch_size=7, size=[*size],
               depth_range="valid", **fit)  # fmt: skip
    made.forward()
    records = np.stack([planes for _, planes, _ in Reader(listing / "db").planes()])
    blobs = {name: made.blobs[name].data for name in ("rgb", "depth", "label", "scene")}
    assert (blobs["rgb"] == records[:, :3]).all()
    assert (blobs["depth"] == records[:, 3:4]).all()
    assert (blobs["label"] == records[:, 4:]).all()
    assert blobs["scene"].tolist() == [0, 1, 2, 0, 1, 2, 0]


def test_depth_of_another_camera_is_projected(listing, command):
    told = {"fx": 40, "fy": 40, "cx": 15.5, "cy": 11.5}
    extrinsics = {"rotation": np.eye(3).tolist(), "translation": [0.1, 0, 0]}
    rig = {"color": told, "depth": told, "extrinsics": extrinsics}
    (listing / "rig.json").write_text(json.dumps(rig))
    command("folder", "--rgb", "c", "--depth", "d", "db", "--intrinsics", "rig.json")
    made = net(batch_size=7, intrinsics="rig.json")
    made.forward()
    records = np.stack([planes for _, planes, _ in Reader(listing / "db").planes()])
    assert (made.blobs["depth"].data == records[:, 3:4]).all()
    plain = net(batch_size=7)
    plain.forward()
    assert (made.blobs["depth"].data != plain.blobs["depth"].data).mean() > 0.1


def test_values_that_are_no_readings_are_holes(listing, command):
    for file in (listing / "d").iterdir():
        depth = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
        cv2.imwrite(str(file), np.where(depth > 0, depth, 65535).astype(np.uint16))
    command("folder", "--rgb", "c", "--depth", "d", "db")
    records = np.stack([planes for _, planes, _ in Reader(listing / "db").planes()])
    assert (records[:, 3] == 0).any()
    for more, same in (({}, True), ({"no_reading": [65535]}, True), ({"no_reading": []}, False)):
        made = net(batch_size=7, **more)
        made.forward()
        assert (made.blobs["depth"].data == records[:, 3:4]).all() == same


def first_pixels(frames, batches):
    return [planes[:3].tobytes() for _ in range(batches) for planes, _ in frames.batch()]


def test_every_frame_once_an_epoch(listing):
    in_order = first_pixels(FrameList(Settings("train.txt")), 14)
    assert len(set(in_order)) == 7
    assert in_order[:7] == in_order[7:]
    shuffled = first_pixels(FrameList(Settings("train.txt", shuffle=True, seed=3)), 21)
    epochs = [shuffled[i : i + 7] for i in (0, 7, 14)]
    for epoch in epochs:
        assert sorted(epoch) == sorted(in_order[:7])
    assert epochs[0] != epochs[1] != epochs[2] != in_order[:7]
    again = first_pixels(FrameList(Settings("train.txt", shuffle=True, seed=3)), 21)
    assert again == shuffled


def test_batches_run_over_the_end_of_an_epoch(listing):
    ones = first_pixels(FrameList(Settings("train.txt")), 12)
    threes = first_pixels(FrameList(Settings("train.txt", batch_size=3)), 4)
    assert threes == ones


def test_processes_that_train_together_share_the_order(listing):
    whole = first_pixels(FrameList(Settings("train.txt", shuffle=True)), 12)
    shares = [first_pixels(FrameList(Settings("train.txt", shuffle=True), rank, 2), 6)
              for rank in (0, 1)]  # fmt: skip
    assert whole == [frame for pair in zip(*shares, strict=True) for frame in pair]


def test_it_trains(listing):
    (listing / "net.prototxt").write_text("""
        layer { name: "data" type: "Python" top: "rgb" top: "depth" top: "label"
          python_param { module: "data_tools.layers" layer: "RGBDImages"
            param_str: '{"source": "train.txt", "batch_size": 2, "shuffle": true}' } }
        layer { name: "silence" type: "Silence" bottom: "depth" }
        layer { name: "score" type: "Convolution" bottom: "rgb" top: "score"
          convolution_param { num_output: 10 kernel_size: 1
            weight_filler { type: "gaussian" std: 0.001 } } }
        layer { name: "loss" type: "SoftmaxWithLoss" bottom: "score" bottom: "label" top: "loss"
          loss_param { ignore_label: 0 } }
    """)
    (listing / "solver.prototxt").write_text("""
        net: "net.prototxt" base_lr: 1e-5 lr_policy: "fixed" momentum: 0.9 max_iter: 30
        snapshot_prefix: "s" random_seed: 1
    """)
    solver = caffe.get_solver("solver.prototxt")
    losses = []
    for _ in range(30):
        solver.step(1)
        losses.append(float(solver.net.blobs["loss"].data))
    assert np.mean(losses[-7:]) < 0.9 * np.mean(losses[:2])


def labels(made, passes):
    """The frames that some batches show, by their labels' first rows."""
    found = []
    for _ in range(passes):
        made.forward()
        found += [row.tolist() for row in made.blobs["label"].data[:, 0, 0]]
    return found


@pytest.mark.parametrize("shuffle", [False, True])
def test_a_layer_goes_on_where_a_snapshot_was_taken(listing, shuffle):
    settings = {"batch_size": 3, "shuffle": shuffle}
    first = net(**settings)
    labels(first, 4)
    state = first.layers[0].get_state()
    assert state["next"] == 12
    expected = labels(first, 6)
    second = net(**settings)
    labels(second, 1)
    second.layers[0].set_state(state)
    assert labels(second, 6) == expected
    with pytest.raises(DataError, match="of 7 frames in the order of seed 0; there are 7, the "):
        net(seed=4).layers[0].set_state(state)


def test_all_frames_are_tested_however_many_train(listing, monkeypatch):
    alone = labels(net(phase=caffe.TEST), 7)
    monkeypatch.setattr(caffe, "solver_count", lambda: 2)
    assert labels(net(phase=caffe.TEST), 7) == alone
    assert labels(net(), 4) == alone[::2]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"surce": "x"}, "unknown key 'surce'"),
        ({"batch_size": 0}, "batch_size is 0, expected a whole number from 1 up"),
        ({"batch_size": 2**31, "size": [4, 4]}, r"batch_size 2147483648 of 3 x 4 x 4 makes"),
        ({"batch_size": 2**31}, r"batch_size 2147483648 of 3 x \d+ x \d+ makes"),
        ({"intrinsics": 5}, "intrinsics is 5, expected a path or a camera's name"),
        ({"intrinsics": "nowhere"}, "nowhere: no such file, and no camera of this name"),
        ({"extrinsics_direction": "up"}, "expected one of depth-to-color, color-to-depth"),
        ({"fit": "cut"}, "fit is 'cut', expected one of crop, pad, stretch"),
        ({"no_reading": 65535}, "no_reading is 65535, expected a list of numbers"),
        ({"batch_size": 2.5}, "batch_size is 2.5, expected"),
        ({"size": [10**9, 10**9]}, r"size: a picture of 1000000000x1000000000 pixels"),
        ({"size": "ab"}, r"size is 'ab', expected \[width, height\]"),
        ({"seed": -1}, "seed is -1, expected a whole number from 0 up"),
        ({"shuffle": "no"}, "shuffle is 'no', expected true or false"),
        ({"source": 7}, "source is 7, expected a path"),
        ({"root": "a\0b"}, r"root is .*, expected a path"),
        ({"size": [3]}, r"size is \[3\], expected"),
        ({"depth_unit": "inch"}, "'inch' is neither"),
        ({"depth_range": "9:1"}, "'9:1' is neither"),
        ({"source": "none.txt"}, "none.txt"),
        ({"classes": 5}, r"l/0\.png: label \d is out of range|out of range"),
    ],
)
def test_bad_settings_have_their_line(listing, settings, message):
    with pytest.raises(RuntimeError, match=message):
        net(**settings)


@pytest.mark.parametrize(
    ("line", "encoding"),
    [
        ("c a.png\td.png\tl.png\t3\r\n", "utf-8-sig"),
        ("c a.png;d.png; l.png;3\r\n", "utf-8"),
        ("\nc a.png\td.png\tl.png\t3\n", "utf-16"),
    ],
)
def test_lists_as_other_programs_save_them(tmp_path, line, encoding):
    (tmp_path / "list").write_text(line, encoding=encoding, newline="")
    files = [tmp_path / name for name in ("c a.png", "d.png", "l.png")]
    assert layers.read_list(tmp_path / "list", str(tmp_path)) == [(files, 3)]


def test_bad_lists_and_files_have_their_line(listing):
    with pytest.raises(DataError, match="not JSON"):
        Settings.parse("source=train.txt")
    (listing / "bad.txt").write_text("c/0.png d/0.png\nc/1.png\n")
    with pytest.raises(DataError, match=r"bad\.txt:2: expected COLOUR DEPTH"):
        layers.read_list(listing / "bad.txt", "")
    (listing / "bad.txt").write_text("\n")
    with pytest.raises(DataError, match="names no frame"):
        layers.read_list(listing / "bad.txt", "")
    (listing / "c" / "3.png").write_bytes(b"")
    frames = FrameList(Settings("train.txt", batch_size=7))
    with pytest.raises(DataError, match=r"^train\.txt: c/3\.png: not a picture"):
        frames.batch()
    (listing / "d" / "2.png").rename(listing / "d" / "moved.png")
    frames = FrameList(Settings("train.txt", batch_size=3))
    with pytest.raises(DataError, match=r"^train\.txt: d/2\.png: No such file or directory"):
        frames.batch()
    (listing / "d" / "moved.png").rename(listing / "d" / "2.png")
    cv2.imwrite(str(listing / "c" / "3.png"), np.zeros((12, 16, 3), np.uint8))
    with pytest.raises(RuntimeError, match='a frame is 16x12 and the first 32x24: give "size"'):
        net(batch_size=7).forward()


def test_names_with_blanks_are_parted_by_tabs(listing):
    (listing / "c" / "0.png").rename(listing / "c" / "my picture.png")
    (listing / "tabs.txt").write_text("c/my picture.png\td/0.png\n")
    ((planes, scene),) = FrameList(Settings("tabs.txt")).batch()
    assert planes.shape == (5, 24, 32)
    assert (planes[4] == 0).all()
    assert scene == 0


def test_netgen_and_caffe_train_go_with_it(listing):
    """As a user types it, in processes of their own, which must come to an end by themselves."""

    def run(*command):
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        result = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True,
                                timeout=600, env=environment)  # fmt: skip
        assert result.returncode == 0, result.stderr
        return result

    net = run("netgen", "sf1", "--classes", "9", "--size", "32x32", "--width-multiplier", "0.05",
              "--batch-size", "2", "--data-list", "train.txt",
              "--test-data-list", "train.txt", "--scene-classes", "3")  # fmt: skip
    (listing / "net.prototxt").write_text(net.stdout)
    solver = run("netgen", "solver", "--net", "net.prototxt", "--epochs", "1", "--test-epochs", "1",
                 "--display", "1", "--random-seed", "1")  # fmt: skip
    (listing / "solver.prototxt").write_text(solver.stdout)
    assert "max_iter: 4\n" in solver.stdout  # 7 frames in batches of 2
    log = run("caffe", "train", "-solver", "solver.prototxt").stderr
    assert "Iteration 4, Testing net (#0)" in log
    assert "Test net output #3: scene_loss" in log
    assert log.rstrip().endswith("Optimization Done.")
