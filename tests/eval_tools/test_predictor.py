"""fusenet.Predictor: the labels of eval_tools.predict, from arrays in all their forms, quietly."""

import subprocess
import sys
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import caffe
import fusenet
from boundary import packed
from caffe import engines
from caffe.process import device
from data_tools.cli import DataError
from data_tools.depth import DepthUnit
from data_tools.images import read_color, read_depth, read_label
from eval_tools import predict
from fusenet import Predictor

ROOT = Path(__file__).parents[2]
RGBD = ROOT.parent / "shared" / "rgbd"
NAMES = ["(ignored)", "bluish", "greenish", "reddish", "far"]
COLORS = [[0, 0, 0], [0, 0, 255], [0, 255, 0], [255, 0, 0], [9, 9, 9]]
# Rules, and whether depth was floats in training: one of each kind.
OPTIONS = [
    {"depth_range": "authors", "fit": "crop"},
    {"depth_range": "valid", "float_depth": True, "fit": "pad"},
    {"depth_range": "0.5:8 m", "fit": "stretch"},
]


def make(path, model, options=None, files=(), **facts):
    """A packed model of the net whose answers are known."""
    facts = {"classes": NAMES, "palette": COLORS, "options": options or OPTIONS[2], **facts}
    packed.write(path, facts, {"net": model[0], "weights": model[1], **dict(files)}, DataError)
    return path


def draw(seed=0, shape=(48, 64)):
    """A frame: BGR, and depth in millimetres with holes."""
    random = np.random.default_rng(seed)
    depth = random.integers(400, 9000, shape, np.uint16)
    depth[random.random(shape) < 0.1] = 0
    return random.integers(0, 256, (*shape, 3), np.uint8), depth


@pytest.fixture(scope="session")
def one(model, tmp_path_factory):
    """The path of a packed model."""
    return make(tmp_path_factory.mktemp("packed") / "m.fusenet", model)


@pytest.fixture(scope="session")
def predictor(one):
    return Predictor(one)


# -- the same as the command -----------------------------------------------------------------------


def predicted(folder, bgr, depth, *arguments):
    """What eval_tools.predict writes for the frame."""
    cv2.imwrite(str(folder / "rgb.png"), bgr)
    np.save(folder / "depth.npy", depth)
    out = folder / "labels.png"
    predict.main([*map(str, arguments), "--rgb", str(folder / "rgb.png"), "--size", "original",
                  "--depth", str(folder / "depth.npy"), "-o", str(out)])  # fmt: skip
    return read_label(out)


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: options["depth_range"])
@pytest.mark.parametrize("shape", [(48, 64), (64, 48), (31, 77)])
def test_labels_are_those_of_predict(model, tmp_path, options, shape):
    path = make(tmp_path / "m.fusenet", model, options)
    bgr, depth = draw(1, shape)
    for stored, unit in (
        (depth, None), (depth, "5000"), (depth, "sunrgbd"), ((depth / 1000).astype("f4"), None),
        ((depth % 256).astype(np.uint8), "scaled"),
    ):  # fmt: skip
        more = ["--depth-unit", unit] if unit else []
        wanted = predicted(tmp_path, bgr, stored, path, *more)
        found = Predictor(path)(bgr, stored, unit=unit)
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, wanted)
        assert len(np.unique(found)) > 2


def test_two_files_and_a_dataset(model, tmp_path):
    (tmp_path / "dataset.json").write_text(
        '{"classes": ["a", "b", "c", "d", "e"], "options": {"depth_range": "valid", "fit": "pad"}}'
    )
    bgr, depth = draw()
    found = Predictor(*model, dataset=tmp_path / "dataset.json")
    assert found.names == ("a", "b", "c", "d", "e")
    assert (found.depth_range, found.fit, found.depth_range_assumed) == ("valid", "pad", False)
    wanted = predicted(tmp_path, bgr, depth, *model, "--dataset", tmp_path / "dataset.json")
    np.testing.assert_array_equal(found(bgr, depth), wanted)


def test_a_dataset_without_names_leaves_those_of_the_packed_model(one, tmp_path):
    (tmp_path / "dataset.json").write_text('{"options": {"depth_range": "valid"}}')
    found = Predictor(one, dataset=tmp_path / "dataset.json")
    assert (found.names, found.depth_range) == (tuple(NAMES), "valid")


def test_without_a_known_rule_it_is_the_authors_and_told_as_assumed(model, tmp_path):
    bgr, depth = draw()
    found = Predictor(*model)
    assert (found.depth_range, found.depth_range_assumed) == ("authors", True)
    assert "depth authors (assumed)" in repr(found)
    np.testing.assert_array_equal(found(bgr, depth), predicted(tmp_path, bgr, depth, *model))


def test_what_stands_for_no_reading_is_found_as_predict_does(model, tmp_path, capsys):
    path = make(tmp_path / "m.fusenet", model, OPTIONS[1])
    bgr, depth = draw()
    depth[:, ::5] = 65535
    wanted = predicted(tmp_path, bgr, depth, path)
    assert "65535 is taken as no reading" in capsys.readouterr().err
    found = Predictor(path)(bgr, depth)
    assert capsys.readouterr().err == ""
    np.testing.assert_array_equal(found, wanted)
    kept = Predictor(path, no_reading=())(bgr, depth)
    assert (kept != wanted).any()
    np.testing.assert_array_equal(
        kept, predicted(tmp_path, bgr, depth, path, "--no-reading", "none")
    )
    for said in (65535, [65535.0, 3]):
        np.testing.assert_array_equal(Predictor(path, no_reading=said)(bgr, depth), wanted)
    for wrong in ("far", [1, "far"], float("nan")):
        with pytest.raises(ValueError, match=r"no_reading: .*: expected a number, or several"):
            Predictor(path, no_reading=wrong)
    masked = np.ma.masked_equal(depth, 65535)
    np.testing.assert_array_equal(Predictor(path, no_reading=())(bgr, masked), wanted)


@pytest.mark.skipif(not RGBD.is_dir(), reason="real frames are not there")
def test_real_frames(predictor, one, tmp_path):
    for folder, depth_file, unit in (
        ("nyuv2_000464", "depth.png", "5000"),
        ("sunrgbd_img_0063", "depth_bfx/img_0063_abs.png", "sunrgbd"),
    ):
        files = RGBD / folder
        color = next(path for path in files.rglob("*") if path.name in ("rgb.png", "img_0063.jpg"))
        bgr, depth = read_color(color), read_depth(files / depth_file)
        wanted = predicted(tmp_path, bgr, depth, one, "--depth-unit", unit)
        np.testing.assert_array_equal(predictor(bgr, depth, unit), wanted)


# -- forms -----------------------------------------------------------------------------------------


def test_batches_and_lists(predictor):
    frames = [draw(i) for i in range(3)]
    alone = [predictor(*frame) for frame in frames]
    batch = predictor(*(np.stack(part) for part in zip(*frames, strict=True)))
    np.testing.assert_array_equal(batch, np.stack(alone))
    frames[1] = draw(7, (30, 40))
    alone[1] = predictor(*frames[1])
    for form in (list, tuple):
        listed = predictor(*map(form, zip(*frames, strict=True)))
        assert type(listed) is form
        for found, wanted in zip(listed, alone, strict=True):
            np.testing.assert_array_equal(found, wanted)


def test_several_frames_run_at_once(one):
    predictor, calls = Predictor(one, batch_size=2), []
    scores = predictor._network.scores
    predictor._network.scores = lambda *parts: calls.append(len(parts[0])) or scores(*parts)
    frames = [draw(i, (48, 64) if i < 3 else (24, 32)) for i in range(5)]
    found = predictor(*map(list, zip(*frames, strict=True)))
    assert calls == [2, 1, 2]  # of one size each
    for labels, frame in zip(found, frames, strict=True):
        np.testing.assert_array_equal(labels, predictor(*frame))


def test_empty_batches(predictor):
    bgr, depth = draw()
    assert predictor(bgr[None][:0], depth[None][:0]).shape == (0, 48, 64)
    assert predictor.probabilities(bgr[None][:0], depth[None][:0]).shape == (0, 5, 48, 64)
    assert predictor([], []) == []


def test_tensors_are_answered_by_tensors(predictor):
    bgr, depth = draw()
    wanted = predictor(bgr, depth)
    found = predictor(torch.from_numpy(bgr), torch.from_numpy(depth.astype(np.int32)))
    assert found.dtype == torch.uint8
    np.testing.assert_array_equal(found.numpy(), wanted)
    metres = torch.from_numpy(depth / 1000).requires_grad_()
    found = predictor(torch.from_numpy(bgr)[None], metres[None])
    np.testing.assert_array_equal(found.numpy(), wanted[None])
    picture = predictor.overlay(torch.from_numpy(bgr), found[0])
    assert isinstance(picture, torch.Tensor)
    wide = torch.from_numpy(depth.astype(np.int64))
    np.testing.assert_array_equal(
        predictor(torch.from_numpy(bgr), wide, "sunrgbd").numpy(), predictor(bgr, depth, "sunrgbd")
    )


@pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no GPU")
def test_on_a_gpu(one, predictor):
    bgr, depth = draw()
    found = Predictor(one, gpu=0)(torch.from_numpy(bgr).cuda(), torch.from_numpy(depth).cuda())
    assert found.is_cuda
    np.testing.assert_array_equal(found.cpu().numpy(), predictor(bgr, depth))


def test_an_engine_labels_alike_and_for_this_predictor_alone(one, predictor):
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    bgr, depth = draw()
    found = Predictor(one, engine="onnxruntime")
    np.testing.assert_array_equal(found(bgr, depth), predictor(bgr, depth))
    assert engines.engine() == "torch"
    with engines.using("onnxruntime"):
        assert "onnxruntime" in [node.name for node in found._network.net.plan.nodes]


def test_an_engine_that_is_unknown_is_named(one):
    with pytest.raises(DataError, match="engine 'x' is unknown; expected one of auto, torch"):
        Predictor(one, engine="x")


def test_views_and_other_byte_orders(predictor):
    bgr, depth = draw()
    rgb = np.ascontiguousarray(bgr[..., ::-1])
    np.testing.assert_array_equal(
        predictor(rgb[..., ::-1], depth.astype(">u2")), predictor(bgr, depth)
    )


@pytest.mark.parametrize("unit", ["mm", 1000, 1000.0, DepthUnit("steps", 1000.0), None])
def test_units(predictor, unit):
    bgr, depth = draw()
    np.testing.assert_array_equal(predictor(bgr, depth, unit), predictor(bgr, depth / 1000, "m"))


# -- what it knows ---------------------------------------------------------------------------------


def test_attributes_and_repr(predictor, one):
    assert predictor.names == tuple(NAMES)
    assert predictor.colors.tolist() == COLORS
    assert (predictor.size, predictor.fit, predictor.depth_range) == (
        (16, 12),
        "stretch",
        "0.5:8 m",
    )
    assert repr(predictor) == (
        f"<Predictor {one}: 5 labels, bgr+depth 16x12, depth 0.5:8 m, stretch, CPU>"
    )
    assert fusenet.__version__ == caffe.__version__


def test_probabilities(predictor):
    bgr, depth = draw()
    found = predictor.probabilities(bgr, depth)
    assert (found.shape, found.dtype) == ((5, 48, 64), np.float32)
    np.testing.assert_allclose(found.sum(0), 1, atol=1e-5)
    assert (found.argmax(0) == predictor(bgr, depth)).mean() > 0.999
    batch = predictor.probabilities(bgr[None], depth[None])
    np.testing.assert_array_equal(batch[0], found)


def test_what_a_crop_leaves_out_is_label_0(model, tmp_path):
    predictor = Predictor(make(tmp_path / "m.fusenet", model, OPTIONS[0]))
    bgr, depth = draw(0, (48, 128))  # the middle 64 columns are seen
    labels, shares = predictor(bgr, depth), predictor.probabilities(bgr, depth)
    for part in (labels, shares):
        assert not part[..., :32].any()
        assert not part[..., 96:].any()
        assert part[..., 32:96].any()
    np.testing.assert_array_equal(labels[:, 32:96], predictor(bgr[:, 32:96], depth[:, 32:96]))


def test_overlay(predictor):
    bgr, depth = draw()
    labels = np.zeros((48, 64), np.uint8)
    labels[:, 32:] = 3
    picture = predictor.overlay(bgr, labels)
    np.testing.assert_array_equal(picture[:, :32], bgr[:, :32])
    blend = 0.45 * bgr[:, 40].astype(float) + 0.55 * np.array([0, 0, 255])  # BGR of label 3
    np.testing.assert_allclose(picture[:, 40], blend, atol=1)
    assert predictor.overlay(bgr, labels[::2, ::2]).shape == (24, 32, 3)
    for bad in (labels + 5, labels[None], labels.astype(float)):
        with pytest.raises(DataError, match="labels are"):
            predictor.overlay(bgr, bad)
    with pytest.raises(DataError, match="colour is"):
        predictor.overlay(depth, labels)


def test_the_example(model, predictor, tmp_path):
    assert predictor.example() is None
    bgr, depth = draw()
    cv2.imwrite(str(tmp_path / "a.png"), bgr)
    np.save(tmp_path / "b.npy", depth)
    files = {"color": tmp_path / "a.png", "depth": tmp_path / "b.npy"}
    path = make(tmp_path / "m.fusenet", model, files=files, example={"depth_unit": "5000"})
    found = Predictor(path).example()
    np.testing.assert_array_equal(found[0], bgr)
    np.testing.assert_array_equal(found[1], depth)
    assert found[2] == "5000"


def test_a_spoiled_example_is_named(model, tmp_path):
    (tmp_path / "a.png").write_bytes(b"no picture")
    path = make(tmp_path / "m.fusenet", model, files={"color": tmp_path / "a.png"})
    with pytest.raises(DataError, match=r"m\.fusenet: example: ") as caught:
        Predictor(path).example()
    assert "fusenet-" not in str(caught.value)


def test_nets_of_one_input(toy, tmp_path):
    depth_alone = toy.deploy[toy.deploy.index('layer { name: "depth"') :]
    depth_alone = depth_alone.replace('bottom: "rgb" ', "")
    colour_alone = toy.deploy[: toy.deploy.index('layer { name: "depth"')] + toy.deploy[
        toy.deploy.index('layer { name: "all"') :
    ].replace('bottom: "depth" ', "")
    bgr, depth = draw()
    for name, text, channels, frame in (
        ("bgr", colour_alone, 3, (bgr, None)), ("depth", depth_alone, 1, (None, depth)),
    ):  # fmt: skip
        text = text.replace("HEIGHT", "12").replace("WIDTH", "16")
        weight = np.random.default_rng(0).normal(size=(5, channels))
        files = toy.model(tmp_path, text, {"score": [weight, np.zeros(5)]}, name)
        predictor = Predictor(*files)
        assert (predictor.takes_color, predictor.takes_depth) == (name == "bgr", name == "depth")
        assert f", {name} 16x12" in repr(predictor)
        labels = predictor(*frame)
        assert labels.shape == (48, 64)
        np.testing.assert_array_equal(predictor(bgr, depth), labels)
        with pytest.raises(DataError, match=f"looks at {name}, which is None"):
            predictor(*((None, depth) if name == "bgr" else (bgr, None)))
    with pytest.raises(DataError, match="neither bgr nor depth"):
        predictor(None)


# -- what is wrong ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda bgr, depth: (bgr / 255, depth), "colour is float64 of shape .*expected uint8"),
        (lambda bgr, depth: (bgr[..., :2], depth), "expected uint8 of shape"),
        (lambda bgr, depth: (bgr[None], depth), "bgr is uint8 of shape .* and depth uint16 of"),
        (lambda bgr, depth: ([bgr], [depth, depth]), "bgr is a list of 1 and depth a list of 2"),
        (lambda bgr, depth: ([bgr], depth), "bgr is a list of 1 and depth uint16"),
        (lambda bgr, depth: ([bgr[0]], [depth]), "bgr is a list of uint8 of shape .*expected"),
        (
            lambda bgr, depth: (bgr.tolist(), depth),
            "bgr is a list of a list of 64, expected",
        ),
        (lambda bgr, depth: ("frame.png", depth), "bgr is str, expected a NumPy array"),
        (lambda bgr, depth: (bgr[0, 0], depth), "expected 3 axes, or 4 for a batch"),
        (lambda bgr, depth: (bgr[:0], depth[:0]), "colour is uint8 of shape"),
        (lambda bgr, depth: (bgr, None), "looks at depth, which is None"),
        (lambda bgr, depth: (bgr, 0 * depth), "depth has no reading at all"),
        (lambda bgr, depth: ([bgr, bgr], [depth, 0 * depth]), "frame 1: depth has no reading"),
        (lambda bgr, depth: (bgr, depth[:, :32]), "depth is 32x48 and colour 64x48"),
        (lambda bgr, depth: (bgr, depth.astype(np.uint8)), "8-bit depth has no unit"),
        (lambda bgr, depth: (bgr, depth, "scaled"), "scaled depth must lie in 0..255"),
        (lambda bgr, depth: (bgr, depth, "feet"), "unit: 'feet' is neither a number of steps"),
        (lambda bgr, depth: (bgr, depth, 0.001), "unit: 0.001 steps per metre"),
    ],
)
def test_frames_that_cannot_be_used(predictor, change, message):
    with pytest.raises(ValueError, match=message) as caught:
        predictor(*change(*draw()))
    assert "\n" not in str(caught.value)


def test_models_that_cannot_be_used(model, one, tmp_path):
    for arguments, message in (
        ((one, model[1]), "a packed model has its own weights"),
        ((model[0],), "WEIGHTS is missing"),
        ((tmp_path / "x.fusenet",), "No such file"),
    ):
        with pytest.raises(ValueError, match=message):
            Predictor(*arguments)
    with pytest.raises(ValueError, match="GPU 99"):
        Predictor(one, gpu=99)
    with pytest.raises(ValueError, match="batch_size is 0"):
        Predictor(one, batch_size=0)


# -- manners ---------------------------------------------------------------------------------------


def test_it_is_quiet_and_leaves_the_process_as_it_was(one):
    """In a process of its own, whose log is at its default."""
    script = f"""
import numpy as np
from caffe.process import device, log
from fusenet import Predictor
device._state.mode = "GPU"
p = Predictor({str(one)!r})
p(np.zeros((9, 12, 3), np.uint8), np.ones((9, 12), np.uint16))
assert (device._state.mode, log.lowest_level()) == ("GPU", 0)
"""
    found = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert (found.returncode, found.stdout, found.stderr) == (0, "", "")


def test_threads_share_it(predictor):
    frames = [draw(i, (48 + 4 * i, 64)) for i in range(4)]
    wanted = [predictor(*frame) for frame in frames]
    found = [[None] * 5 for _ in frames]

    def work(number):
        for turn in range(5):
            found[number][turn] = predictor(*frames[number])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for turns, labels in zip(found, wanted, strict=True):
        for one_turn in turns:
            np.testing.assert_array_equal(one_turn, labels)
    assert device.current_device().type == "cpu"


def test_weights_that_are_not_finite_are_a_python_warning(model, toy, tmp_path):
    weight, bias = toy.brightest()["score"]
    text = toy.deploy.replace("HEIGHT", "12").replace("WIDTH", "16")
    files = toy.model(tmp_path, text, {"score": [weight, [np.nan, *bias[1:]]]})
    with pytest.warns(RuntimeWarning, match="holds NaN or infinity"):
        predictor = Predictor(*files)
    with pytest.raises(ValueError, match="are not finite"):
        predictor(*draw())


def test_the_package_is_typed():
    assert (ROOT / "fusenet" / "py.typed").is_file()
