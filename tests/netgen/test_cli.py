"""The command line as a user meets it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from google.protobuf import text_format
from netgen_runs import run

from caffe import TEST
from caffe.errors import CaffeError
from caffe.proto.caffe_pb2 import NetParameter, SolverParameter
from netgen import NETS
from netgen.sources import depth_range


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def net(capsys: pytest.CaptureFixture[str], *argv: str) -> NetParameter:
    status, out, err = run(capsys, *argv)
    assert (status, err) == (0, "")
    return text_format.Parse(out, NetParameter())


@pytest.mark.parametrize("name", NETS)
def test_every_net_prints(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert net(capsys, name).name == f"fusenet-{name}-nyuv2-40"
    assert net(capsys, name, "--deploy").layer[-1].type == "Softmax"
    assert run(capsys, name) == run(capsys, name)


def test_a_bare_net_only_needs_its_lmdbs(capsys: pytest.CaptureFixture[str]) -> None:
    train, test = net(capsys, "sf5").layer[:2]
    assert train.data_param.source == "lmdb/nyuv2-40_trainval"
    assert test.data_param.source == "lmdb/nyuv2-40_test"
    assert (train.data_param.batch_size, test.data_param.batch_size) == (4, 1)
    assert train.data_param.shuffle


def test_iou_adds_a_layer_to_the_tests(capsys: pytest.CaptureFixture[str]) -> None:
    plain, param = net(capsys, "sf1"), net(capsys, "sf1", "--iou")
    (layer,) = [layer for layer in param.layer if layer.type == "SegmentationAccuracy"]
    assert list(layer.bottom) == ["score", "label"]
    assert list(layer.top) == ["global_accuracy", "mean_accuracy", "mean_iou"]
    assert list(layer.segmentation_accuracy_param.ignore_label) == [0]
    assert [rule.phase for rule in layer.include] == [TEST]
    param.layer.remove(layer)
    assert param == plain
    assert net(capsys, "sf1", "--iou", "--deploy") == net(capsys, "sf1", "--deploy")
    Path("train.txt").write_text("")
    status, out, err = run(capsys, "sf1", "--iou", "--classes", "3", "--data-list", "train.txt")
    assert (status, out) == (1, "")
    assert "--iou are those of tests, and the net has no test data" in err


def test_options_reach_the_net(capsys: pytest.CaptureFixture[str]) -> None:
    Path("w.txt").write_text("0 1 2 3")
    param = net(
        capsys,
        *[
            "sf2",
            "--dataset",
            "custom",
            "--classes",
            "3",
            "--size",
            "321x243",
            "--width-multiplier",
            "0.5",
        ],
        *[
            "--source",
            "a",
            "--test-source",
            "b",
            "--batch-size",
            "6",
            "--test-batch-size",
            "2",
            "--no-shuffle",
        ],
        *["--label-weights", "w.txt", "--moving-average-fraction", "0.9", "--scene-classes", "7"],
        *["--scene-loss-weight", "0.25"],
    )
    layers = {layer.name: layer for layer in param.layer}
    train, test = param.layer[:2]
    assert (train.data_param.source, train.data_param.batch_size) == ("a", 6)
    assert (test.data_param.source, test.data_param.batch_size) == ("b", 2)
    assert not train.data_param.shuffle
    assert layers["conv1_1"].convolution_param.num_output == 32
    assert layers["score"].convolution_param.num_output == 4
    assert layers["unpool1"].unpooling_param.output_w == 321
    assert list(layers["loss"].loss_param.label_weights) == [0, 1, 2, 3]
    assert layers["conv1_1_bn"].batch_norm_param.moving_average_fraction == pytest.approx(0.9)
    assert layers["scene_score"].inner_product_param.num_output == 7
    assert list(layers["scene_loss"].loss_weight) == [0.25]
    deployed = net(capsys, "rgb", "--classes", "3", "--deploy", "--batch-size", "2")
    assert list(deployed.layer[0].input_param.shape[0].dim) == [2, 3, 240, 320]
    floor = net(capsys, "sf1", "--pooling", "floor")
    assert next(x for x in floor.layer if x.name == "pool1").pooling_param.round_mode == 1


def test_augmentation_is_for_training_alone(capsys: pytest.CaptureFixture[str]) -> None:
    how = "scale=0.75:1.5,brightness=0.25,contrast=0,saturation=1,hue=0.5,mirror,"
    how += "rotate=12.5,crop=288x224,depth=0.5:2"
    train, test = net(capsys, "sf1", "--augment", how).layer[:2]
    assert not test.HasField("transform_param")
    found = train.transform_param.augmentation_param
    assert train.transform_param.mirror
    assert (found.min_scale, found.max_scale, found.brightness) == (0.75, 1.5, 0.25)
    assert (found.contrast, found.saturation, found.hue) == (0, 1, 0.5)
    assert (list(found.color_channel), list(found.label_channel)) == ([0, 1, 2], [4])
    assert (found.max_angle, found.crop_w, found.crop_h) == (12.5, 288, 224)
    assert (found.min_depth_scale, found.max_depth_scale) == (0.5, 2)
    assert list(found.depth_channel) == [3]
    plain = net(capsys, "sf1", "--augment", "rotate=5").layer[0].transform_param
    assert not plain.augmentation_param.depth_channel
    only = net(capsys, "sf1", "--augment", "mirror").layer[0].transform_param
    assert only.mirror
    assert not only.HasField("augmentation_param")  # stock Caffe reads it


def test_data_sets(capsys: pytest.CaptureFixture[str]) -> None:
    for name, classes, size, weights in (
        ("nyuv2-40", 40, [240, 320], 0),
        ("nyuv2-13", 13, [240, 320], 0),
        ("sunrgbd-37", 37, [224, 224], 38),
        ("scannet-40", 40, [240, 320], 0),
    ):
        deployed = net(capsys, "sf5", "--dataset", name, "--deploy")
        assert list(deployed.layer[0].input_param.shape[0].dim) == [1, 3, *size]
        layers = {x.name: x for x in net(capsys, "sf5", "--dataset", name).layer}
        assert layers["score"].convolution_param.num_output == classes + 1
        assert len(layers["loss"].loss_param.label_weights) == weights


@pytest.mark.parametrize(
    ("argv", "status", "message"),
    [
        ("sf5 --size 31x240", 1, "size 31x240 is too small: five 2x2 poolings need at least 32x32"),
        ("sf5 --label-weights none.txt", 1, "none.txt: No such file"),
        ("sf5 --dataset scannet-40 --label-weights paper", 1, "no label weights were published"),
        ("sf5 --width-multiplier 0", 1, "width multiplier 0 is not above 0"),
        ("solver --net none.prototxt", 1, "none.prototxt: No such file or directory"),
        ("summary none.prototxt", 1, "none.prototxt: No such file or directory"),
        ("sf6", 2, "invalid choice: 'sf6'"),
        ("", 2, "required: NET | COMMAND"),
        ("sf5 --size 320", 2, "'320' is not a width and height such as 320x240"),
        ("sf5 --batch-size 0", 2, "0 is too small"),
        ("sf5 --dataset custom", 2, "--dataset custom needs --classes N"),
        ("sf5 --dataset nyuv2-13 --classes 40", 2, "nyuv2-13 has 13 classes"),
        ("sf5 --augment zoom=2", 2, "'zoom=2'; expected some of scale=MIN:MAX,rotate=DEGREES"),
        ("sf5 --augment rotate=181", 2, "'rotate=181': expected a number from 0 to 180"),
        ("sf5 --augment depth=0:1", 2, "'depth=0:1': expected 0 < MIN <= MAX"),
        ("sf5 --augment crop=288", 2, "'crop=288': expected a width and height in pixels, such"),
        ("sf5 --augment crop=321x64", 1, "crops of 321x64 are larger than the net's frames of 320"),
        ("sf5 --augment crop=64x31", 1, "size 64x31 is too small: five 2x2 poolings need"),
        ("sf5 --augment scale=2", 2, "'scale=2'; expected some of"),
        ("sf5 --augment scale=2:1", 2, "'scale=2:1': expected 0 < MIN <= MAX"),
        ("sf5 --augment hue=0.6", 2, "'hue=0.6': expected a number from 0 to 0.5"),
        ("sf5 --augment mirror,mirror", 2, "'mirror' is given twice"),
        ("sf5 --augment mirror --deploy", 2, "--augment is for training from LMDBs"),
        ("sf5 --augment mirror --data-list a", 2, "--augment is for training from LMDBs"),
        ("solver", 2, "--net"),
        ("draw a.prototxt b.gif", 2, "'b.gif' ends in neither .svg nor .png"),
        ("summary a.prototxt --input 1,x", 2, "'1,x' is not a shape such as 1,3,240,320"),
    ],
)
def test_errors_are_one_line(
    argv: str, status: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found, out, err = run(capsys, *argv.split())
    assert (found, out) == (status, "")
    lines = err.splitlines()
    assert message in lines[-1]
    if status == 1:
        assert len(lines) == 1
        assert lines[0].startswith("netgen: error: ")


@pytest.mark.parametrize(
    ("folder", "records", "message"),
    [
        ("x_train", None, "looks like NYUv2's train split alone (381 frames)"),
        ("anything", 381, "has 381 frames, NYUv2's train split alone"),
        ("x_trainval", None, ""),
        ("train", 795, ""),
    ],
)
def test_warning_of_nyuv2s_smaller_split(
    folder: str,
    records: int | None,
    message: str,
    make_lmdb: Callable[..., str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    source = make_lmdb(folder, records) if records else folder
    status, out, err = run(capsys, "sf5", "--source", source)
    assert status == 0
    assert out
    if not message:
        assert err == ""
        return
    assert err.startswith("netgen: warning: ")
    assert message in err
    assert "train + val (795 frames)" in err
    # Other data sets have other splits.
    assert "split" not in run(capsys, "sf5", "--dataset", "sunrgbd-37", "--source", source)[2]


def test_warning_of_frames_of_another_size(
    make_lmdb: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    source = make_lmdb("frames", 3, width=40, height=36)
    err = run(capsys, "sf5", "--classes", "3", "--source", source)[2]
    assert "frames holds frames of 40x36, the net is made for 320x240" in err
    assert run(capsys, "sf5", "--classes", "3", "--size", "40x36", "--source", source)[2] == ""


def test_warning_of_records_without_labels(
    make_lmdb: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    source = make_lmdb("frames", 3, channels=4)
    err = run(capsys, "sf5", "--classes", "3", "--source", source)[2]
    assert "frames holds records of 4 channels, the net takes 5: blue, green, red, depth" in err
    train = Path("train.prototxt")
    train.write_text(run(capsys, "sf5", "--classes", "3", "--source", source)[1])
    status, _, err = run(capsys, "summary", str(train))
    assert "slice_point [3, 4] leaves nothing of axis 1 of the bottom (4, 4, 240, 320)" in err
    assert status == 1


def test_solver(capsys: pytest.CaptureFixture[str]) -> None:
    Path("train.prototxt").write_text(run(capsys, "sf5")[1])
    argv = "solver --net train.prototxt --train-images 795 --test-images 654 --base-lr 0.01"
    status, out, err = run(capsys, *argv.split())
    assert (status, err) == (0, "")
    solver = text_format.Parse(out, SolverParameter())
    assert (solver.net, solver.max_iter) == ("train.prototxt", 79500)
    assert solver.base_lr == pytest.approx(0.01)
    status, out, err = run(capsys, "solver", "--net", "train.prototxt")
    assert (status, out) == (1, "")
    assert err.count("\n") == 1
    assert "lmdb/nyuv2-40_trainval does not exist" in err
    assert "--train-images" in err


def test_summary(capsys: pytest.CaptureFixture[str]) -> None:
    Path("deploy.prototxt").write_text(run(capsys, "rgb", "--size", "64x32", "--deploy")[1])
    status, out, _ = run(capsys, "summary", "deploy.prototxt")
    assert status == 0
    rows = {line.split()[0]: line.split() for line in out.splitlines() if line.strip()}
    assert rows["conv1_1"][2:] == [
        "1x64x32x64",
        "64x3x3x3",
        "64",
        f"{64 * 3 * 9 + 64:,}",
        f"{32 * 64 * 64 * 3 * 9:,}",
        "0.50",
        "MiB",
    ]
    # A net for training has no sizes of its own.
    Path("train.prototxt").write_text(run(capsys, "rgb")[1])
    status, out, err = run(capsys, "summary", "train.prototxt")
    assert (status, out) == (1, "")
    assert "give the shape of data with --input N,C,H,W" in err
    told = run(capsys, "summary", "train.prototxt", "--input", "4,5,240,320")
    assert told[0] == 0
    assert "phase TRAIN" in told[1]
    assert (
        "phase TEST"
        in run(
            capsys, *["summary", "train.prototxt", "--phase", "test", "--input", "data=1,5,240,320"]
        )[1]
    )


def test_commands_load_no_more_than_they_need(capsys: pytest.CaptureFixture[str]) -> None:
    code = (
        "import sys; from netgen.cli import main; main(sys.argv[1:]); "
        "print([m for m in ('torch', 'cv2', 'matplotlib') if m in sys.modules], file=sys.stderr)"
    )
    Path("net.prototxt").write_text(
        'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 1 dim: 3 } } }'
    )
    Path("train.prototxt").write_text(
        'layer { name: "d" type: "Data" top: "d" data_param { batch_size: 2 } }'
    )
    Path("sf5.prototxt").write_text(run(capsys, "sf5", "--size", "320x240")[1])
    images = ["--train-images", "6", "--test-images", "0"]
    for argv, loaded in (
        (["sf5"], []),
        (["sf5", "--from", "sf5.prototxt"], []),
        (["solver", "--net", "train.prototxt", *images], []),
        (["papers", "out"], []),
        (["summary", "net.prototxt"], ["torch"]),
        (["draw", "net.prototxt", "net.svg"], ["torch"]),
    ):
        done = subprocess.run(
            [sys.executable, "-c", code, *argv], capture_output=True, text=True, check=True
        )
        # No log lines of the engine either.
        said = [line for line in done.stderr.splitlines() if not line.startswith("netgen: ")]
        assert said == [f"{loaded}"], argv


MYSTERY = """
layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 1 dim: 3 dim: 8 dim: 8 } } }
layer { name: "m" type: "%s" bottom: "x" top: "m" }
layer { name: "conv" type: "Convolution" bottom: "m" top: "conv"
        convolution_param { num_output: 4 kernel_size: 3 } }
"""


def test_unknown_layers_are_listed_with_a_warning(capsys: pytest.CaptureFixture[str]) -> None:
    Path("net.prototxt").write_text(MYSTERY % "Mystery")
    where = "netgen: warning: net.prototxt: layer 'm' (Mystery): unknown layer type 'Mystery'; "
    warning = f"{where}give the shape of m with --input m=N,C,H,W\n"
    for argv in (["summary", "net.prototxt"], ["draw", "net.prototxt", "net.svg"]):
        status, out, err = run(capsys, *argv)
        assert (status, err) == (0, warning)
    picture = Path("net.svg").read_text()
    assert "unknown layers not counted" in picture
    assert "m (Mystery)<" in picture  # no shape
    assert "x (Input) 1x3x8x8<" in picture
    status, out, err = run(capsys, "summary", "net.prototxt", "--input", "m=1,2,8,8")
    assert (status, err) == (0, "")
    assert "4x2x3x3" in out
    assert "not counted    unknown parts of 1 layer: m\n" in out
    Path("net.prototxt").write_text(MYSTERY % "Convolutional")
    assert "(did you mean Convolution?)" in run(capsys, "summary", "net.prototxt")[2]


def test_python_layers_are_unknown_but_for_data_tools(capsys: pytest.CaptureFixture[str]) -> None:
    Path("net.prototxt").write_text(MYSTERY % "Python")
    err = run(capsys, "summary", "net.prototxt")[2]
    assert "layer 'm' (Python): its Python class is not run here; give the shape of m" in err
    size = ["--classes", "3", "--size", "64x32"]
    text = run(capsys, "sf1", *size, "--data-list", "none.txt")[1]
    Path("net.prototxt").write_text(text)
    status, out, err = run(capsys, "summary", "net.prototxt")
    assert (status, err) == (0, "")
    assert "4x3x32x64 4x1x32x64 4x1x32x64" in out
    assert "not counted" not in out
    told = ["--input", "rgb=2,3,32,64", "--input", "depth=2,1,32,64", "--input", "label=2,1,32,64"]
    out = run(capsys, "summary", "net.prototxt", *told)[1]
    assert "2x3x32x64 2x1x32x64 2x1x32x64" in out


def test_errors_in_nets_name_file_and_layer(capsys: pytest.CaptureFixture[str]) -> None:
    rules = "include { phase: TEST } exclude { phase: TRAIN }"
    for text, message in (
        (f'layer {{ name: "a" type: "ReLU" {rules} }}', "layer 'a': specify either include"),
        ('layer { name: "x" type: "Input" top: "x" }', "give the shape of x with --input N,C,H,W"),
        (MYSTERY % "ReLU" + 'layer { name: "z" type: "ReLU" bottom: "o" top: "z" }', "layer 'z'"),
    ):
        Path("net.prototxt").write_text(text)
        status, out, err = run(capsys, "summary", "net.prototxt")
        assert (status, out) == (1, "")
        assert err.startswith("netgen: error: net.prototxt: ")
        assert err.count("\n") == 1
        assert message in err


def test_a_reader_that_leaves_early_is_no_error() -> None:
    command = f"{sys.executable} -m netgen sf5 | true"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, text=True
    )
    assert done.stderr == ""
    assert done.returncode == 0


def test_deploy_says_how_depth_was_scaled(tmp_path: Path) -> None:
    """eval_tools' predict follows the comment, which the training records' dataset.json gives."""
    lmdb = tmp_path / "train"
    lmdb.mkdir()
    options = {"depth_range": "0.5:8", "float_depth": True}
    (lmdb / "dataset.json").write_text(json.dumps({"options": options}))
    command = [sys.executable, "-m", "netgen", "rgb", "--deploy", "--source"]
    known = subprocess.run([*command, str(lmdb)], capture_output=True, text=True, check=True)
    assert "# depth_range: 0.5:8 float" in known.stdout.splitlines()
    unknown = subprocess.run([*command, "nowhere"], capture_output=True, text=True, check=True)
    assert "depth_range" not in unknown.stdout


@pytest.mark.parametrize(
    "options", [{"depth_range": 'valid\nlayer { name: "mine" }'}, {"depth_range": 5}]
)
def test_a_dataset_json_puts_nothing_but_a_range_into_a_net(tmp_path, options):
    (tmp_path / "dataset.json").write_text(json.dumps({"options": options}))
    with pytest.raises(CaffeError, match=r"dataset\.json: options\.depth_range: expected authors"):
        depth_range(str(tmp_path))


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        ("--batch-size 2147483648", 2, "'2147483648' is too large; expected at most 2147483647"),
        ("--batch-size " + "9" * 5000, 2, "is too large"),
        ("--size 99999999999x320", 2, "'99999999999' is too large"),
        ("--scene-loss-weight nan", 2, "'nan' is not a number from 0 up"),
        ("--augment scale=1:1e30", 2, "expected a number from 0 to 64"),
        ("--width-multiplier 1e9", 1, "ConvolutionParameter.num_output cannot hold 64000000000"),
    ],
)
def test_numbers_that_no_field_holds(capsys, options: str, status: int, message: str) -> None:
    found, out, err = run(capsys, "sf5", *options.split())
    assert (found, out) == (status, "")
    assert message in err
    assert ".py" not in err


def test_a_solver_of_too_many_iterations(capsys: pytest.CaptureFixture[str]) -> None:
    Path("train.prototxt").write_text(run(capsys, "sf5")[1])
    images = ["--train-images", "2147483647", "--test-images", "1", "--epochs", "2147483647"]
    status, _, err = run(capsys, "solver", "--net", "train.prototxt", *images)
    assert status == 1
    assert "out of range" in err
    assert ".py" not in err


def test_shapes_that_are_given_in_vain_or_twice_are_refused(capsys) -> None:
    Path("net.prototxt").write_text(run(capsys, "rgb", "--deploy")[1])
    status, _, err = run(capsys, "summary", "net.prototxt", "--input", "1,3,24,32")
    assert status == 1
    assert "net.prototxt: --input without a blob's name is for an input whose shape" in err
    twice = ["--input", "rgb=1,3,24,32", "--input", "rgb=1,3,48,64"]
    status, _, err = run(capsys, "summary", "net.prototxt", *twice)
    assert status == 2
    assert "--input gives the shape of rgb twice" in err
