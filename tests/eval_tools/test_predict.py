"""Frames from files and LMDBs to pictures, to the pixel."""

import json
from pathlib import Path

import cv2
import lmdb
import numpy as np
import pytest

from caffe import engines
from data_tools.classes import palette as voc_colours
from data_tools.cli import DataError
from data_tools.depth import DepthRange, DepthUnit
from data_tools.images import read_label
from data_tools.record import Frame, RecordFormat, from_datum, to_datum
from data_tools.synth import Synth
from eval_tools import drawings, evaluate, predict, scannet
from eval_tools.metrics import ConfusionMatrix

RGBD = Path(__file__).parents[3] / "shared" / "rgbd"
FRAMES = {
    "nyuv2_000464": ("rgb.png", "depth.png", "5000"),
    "sunrgbd_img_0063": ("image/img_0063.jpg", "depth_bfx/img_0063_abs.png", "sunrgbd"),
    "sunrgbd_2014-12-18_11-31-54_260595134347": ("image", "depth", "sunrgbd"),
}


def write_files(folder, planes, name="frame", depth=np.uint8):
    """Colour and depth pictures of painted planes (4, H, W)."""
    rgb, deep = folder / "rgb" / f"{name}.png", folder / "depth" / f"{name}.png"
    for path, image in ((rgb, planes[:3].transpose(1, 2, 0)), (deep, planes[3].astype(depth))):
        path.parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(path), image)
    return rgb, deep


def run(*args):
    predict.main([str(arg) for arg in args])


def labels(seed=0, shape=(12, 16)):
    return np.random.default_rng(seed).integers(0, 5, shape).astype(np.uint8)


def talk(capsys):
    """What was said of depth on stderr, where Caffe's log goes as well."""
    lines = capsys.readouterr().err.splitlines()
    return [line for line in lines if line.startswith(("warning", "depth range"))]


def test_one_frame_to_one_file(model, toy, tmp_path, capsys):
    rgb, depth = write_files(tmp_path, toy.paint(labels()))
    out = tmp_path / "out.png"
    run(*model, "--rgb", rgb, "--depth", depth, "--depth-unit", "scaled", "-o", out)
    assert np.array_equal(read_label(out), labels())
    assert capsys.readouterr().out == f"{out}\n"


def test_an_engine_labels_alike(model, toy, tmp_path, capsys):
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    rgb, depth = write_files(tmp_path, toy.paint(labels()))
    frame = ("--rgb", rgb, "--depth", depth, "--depth-unit", "scaled", "-o", tmp_path / "out.png")
    with engines.using("torch"):
        run(*model, *frame, "--engine", "onnxruntime")
        with pytest.raises(
            DataError, match="--engine: engine 'x' is unknown; expected one of auto"
        ):
            run(*model, *frame, "--engine", "x")
        assert engines.engine() == "onnxruntime"
    assert np.array_equal(read_label(tmp_path / "out.png"), labels())


def test_names_of_records_stay_inside_the_folder(model, toy, tmp_path):
    hostile = ["../../x", "/any/where", "kitchen/3", "%2F", "."]
    frames = {name: (labels(i), labels(i)) for i, name in enumerate(hostile)}
    toy.lmdb(tmp_path / "db", frames, {"classes": toy.names})
    (tmp_path / "in").mkdir()
    out = tmp_path / "in" / "out"
    run(*model, "--lmdb", tmp_path / "db", "-o", out, "--overlay")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["db", "in"]
    assert [path.name for path in (tmp_path / "in").iterdir()] == ["out"]
    pictures = {path.name for path in out.iterdir() if "_" not in path.name}
    names = ["%2E.%2F..%2Fx", "%2Fany%2Fwhere", "kitchen%2F3", "%252F", "%2E", "legend"]
    assert pictures == {f"{name}.png" for name in names}
    for i, name in enumerate(names[:-1]):
        assert np.array_equal(read_label(out / f"{name}.png"), labels(i))
    # evaluate finds them again.
    found = tmp_path / "scores.json"
    run_evaluate = [*model, tmp_path / "db", "--size", "16x12", "--labels", out, "--json", found]
    evaluate.main([*map(str, run_evaluate), "--bootstrap", "0"])
    assert json.loads(found.read_text())["global_accuracy"] == 1


def test_a_net_that_takes_colours_alone_needs_no_depth(toy, tmp_path):
    text = toy.deploy[: toy.deploy.index('layer { name: "depth"')]
    text += """
    layer { name: "score" type: "Convolution" bottom: "rgb" top: "score"
            convolution_param { num_output: 5 kernel_size: 1 } }
    """
    weight = np.zeros((5, 3))
    weight[1:4] = np.eye(3)
    text = text.replace("HEIGHT", "12").replace("WIDTH", "16")
    net = toy.model(tmp_path, text, {"score": [weight, [1, 0, 0, 0, 0]]}, "colours")
    wanted = labels() % 4
    rgb, _ = write_files(tmp_path, toy.paint(wanted))
    run(*net, "--rgb", rgb, "-o", tmp_path / "out.png")
    assert np.array_equal(read_label(tmp_path / "out.png"), wanted)


def test_folders_keep_their_names(model, toy, tmp_path):
    names = ["a/one", "a/two", "b/one"]
    for i, name in enumerate(names):
        write_files(tmp_path, toy.paint(labels(i)), name)
    run(*model, "--rgb", tmp_path / "rgb", "--depth", tmp_path / "depth", "--depth-unit", "scaled",
        "-o", tmp_path / "out", "--overlay", "--probabilities", "--batch-size", 2)  # fmt: skip
    for i, name in enumerate(names):
        assert np.array_equal(read_label(tmp_path / "out" / f"{name}.png"), labels(i))
    written = sorted(p.relative_to(tmp_path / "out").as_posix() for p in tmp_path.glob("out/*/*"))
    assert written[:3] == ["a/one.png", "a/one_overlay.png", "a/one_probability.png"]
    assert len(written) == 9
    assert (tmp_path / "out" / "legend.png").exists()
    # 200 against 10s: the softmax of the label taken is 1.
    sure = cv2.imread(str(tmp_path / "out" / "a" / "one_probability.png"), cv2.IMREAD_UNCHANGED)
    assert np.all(sure[labels(0) > 0] == 255)


def test_original_size_is_the_colour_pictures(model, toy, tmp_path):
    found = np.repeat([[1] * 32 + [3] * 32], 48, 0).astype(np.uint8)
    rgb, depth = write_files(tmp_path, toy.paint(found))
    out = tmp_path / "out.png"
    common = [*model, "--rgb", rgb, "--depth", depth, "--depth-unit", "scaled", "-o", out]
    run(*common)
    assert read_label(out).shape == (12, 16)
    run(*common, "--size", "original", "--overlay")
    assert np.array_equal(read_label(out), found)
    assert cv2.imread(str(tmp_path / "out_overlay.png")).shape == (48, 64, 3)
    run(*common, "--size", "20x10")
    assert read_label(out).shape == (10, 20)


def test_overlays_have_the_frames_size(model, toy, tmp_path):
    found = np.repeat([[1] * 32 + [3] * 32], 48, 0).astype(np.uint8)
    rgb, depth = write_files(tmp_path, toy.paint(found))
    colours = cv2.imread(str(rgb))
    palette = np.array(voc_colours(5), np.uint8)
    wanted = drawings.overlay(colours, found, palette)
    files = ["--rgb", rgb, "--depth", depth, "--depth-unit", "scaled", "--overlay"]
    for size in ([], ["--size", "original"], ["--size", "20x15"]):
        run(*model, *files, "-o", tmp_path / "out.png", *size)
        assert np.array_equal(cv2.imread(str(tmp_path / "out_overlay.png")), wanted)
    run(*model, *files, "-o", tmp_path / "out.png", "--size", "128x96")
    assert cv2.imread(str(tmp_path / "out_overlay.png")).shape == (96, 128, 3)
    # What a cropped frame did not show has no labels.
    wide = np.concatenate([found, found], 1)
    rgb, depth = write_files(tmp_path, toy.paint(wide))
    run(*model, *files, "-o", tmp_path / "out.png")
    overlay, colours = cv2.imread(str(tmp_path / "out_overlay.png")), cv2.imread(str(rgb))
    assert overlay.shape == (48, 128, 3)
    assert np.array_equal(overlay[:, :31], colours[:, :31])
    tint = drawings.overlay(colours, wide, palette)
    assert np.array_equal(overlay[:, 34:62], tint[:, 34:62])


@pytest.mark.parametrize(
    ("comment", "names"),
    [
        ('# classes: ["(ignored)", "wall", "floor", "d\\u00f6\\nr", "\\"chair\\""]', "read"),
        ('# classes: ["(ignored)", "wall"]', None),
        ("# classes: [wall, floor, door, chair, bed]", None),
        ("# classes: [1, 2, 3, 4, 5]", None),
        ("# classes: " + "[" * 100000, None),
    ],
)
def test_the_prototxt_names_the_classes(model, toy, tmp_path, comment, names, capsys):
    deploy = tmp_path / "deploy.prototxt"
    deploy.write_text(f"{comment}\n" + Path(model[0]).read_text())
    names = json.loads(comment.removeprefix("# classes: ")) if names else ["0", *map(str, "1234")]
    path = toy.lmdb(tmp_path / "db", toy.frames(1))
    run(deploy, model[1], "--lmdb", path, "-o", tmp_path / "out", "--overlay")
    wanted = drawings.legend(names, np.array(voc_colours(5), np.uint8))
    assert np.array_equal(cv2.imread(str(tmp_path / "out" / "legend.png")), wanted)
    assert scored(deploy, path, model[1], tmp_path) == names[1:]
    # The records' own names come first.
    (path / "dataset.json").write_text(json.dumps({"classes": toy.names}))
    assert scored(deploy, path, model[1], tmp_path) == toy.names[1:]


def scored(deploy, path, weights, folder):
    """The names of the classes that evaluate scores."""
    evaluate.main([str(deploy), weights, str(path), "--json", str(folder / "x.json")])
    return [c["name"] for c in json.loads((folder / "x.json").read_text())["classes"]]


def test_lmdb_predictions_are_what_evaluate_counts(model, data, tmp_path):
    path, frames = data
    run(*model, "--lmdb", path, "-o", tmp_path / "out", "--batch-size", 4)
    matrix = ConfusionMatrix(4)
    for name, (found, truth) in frames.items():
        written = read_label(tmp_path / "out" / f"{name}.png")
        assert np.array_equal(written, found)
        matrix.update(truth, written)
    evaluate.main([*model, str(path), "--json", str(tmp_path / "x.json")])
    figures = json.loads((tmp_path / "x.json").read_text())
    assert figures["pixels"] == matrix.pixels
    assert [c["predicted"] for c in figures["classes"]] == matrix.predictions.tolist()
    assert figures["mean_iou"] == matrix.mean_iou


def test_depth_follows_what_the_net_was_trained_on(model, toy, tmp_path, capsys):
    # Depth 1..3 m and a hole; colours all 130. Where depth is the highest the label is 4.
    metres = np.tile(np.linspace(1, 3, 16), (12, 1))
    metres[0, 0] = 0
    planes = np.full((4, 12, 16), 130)
    planes[3] = metres * 1000
    rgb, depth = write_files(tmp_path, planes.astype(np.uint16), depth=np.uint16)
    cv2.imwrite(str(rgb), planes[:3].transpose(1, 2, 0).astype(np.uint8))
    trained = tmp_path / "lmdb"
    trained.mkdir()
    common = [*model, "--rgb", rgb, "--depth", depth, "-o", tmp_path / "out.png"]

    def far():
        return read_label(tmp_path / "out.png") == 4

    def scaled(rule):
        return DepthRange.parse(rule).quantise(DepthRange.parse(rule).apply(metres)) > 130

    run(*common)
    assert "depth range: authors" in capsys.readouterr().err
    assert np.array_equal(far(), scaled("authors"))
    for rule, text in (("valid", "valid"), ("0:10", "0:10 m")):
        info = {"options": {"depth_range": text, "float_depth": False}}
        (trained / "dataset.json").write_text(json.dumps(info))
        for source in (trained, trained / "dataset.json"):
            run(*common, "--dataset", source)
            assert np.array_equal(far(), scaled(rule))
        assert not talk(capsys)
    assert not np.array_equal(scaled("authors"), scaled("valid"))
    run(*common, "--dataset", trained, "--depth-range", "valid")
    message = "warning: --depth-range is valid, but the net was trained with 0:10 m"
    assert message in capsys.readouterr().err
    assert np.array_equal(far(), scaled("valid"))


def test_depth_range_in_the_prototxt(model, toy, tmp_path, capsys):
    deploy = tmp_path / "deploy.prototxt"
    deploy.write_text("# depth_range: valid\n" + Path(model[0]).read_text())
    rgb, depth = write_files(tmp_path, toy.paint(labels()), depth=np.uint16)
    run(deploy, model[1], "--rgb", rgb, "--depth", depth, "-o", tmp_path / "a.png")
    assert not talk(capsys)
    run(*model, "--rgb", rgb, "--depth", depth, "-o", tmp_path / "b.png", "--depth-range", "valid")
    assert np.array_equal(read_label(tmp_path / "a.png"), read_label(tmp_path / "b.png"))
    # The LMDB's own records say how theirs was made.
    info = {"options": {"depth_range": "authors", "float_depth": False}}
    path = toy.lmdb(tmp_path / "lmdb", toy.frames(1), info)
    run(deploy, model[1], "--lmdb", path, "-o", tmp_path / "out")
    message = "lmdb is authors, but the net was trained with valid"
    assert message in capsys.readouterr().err
    evaluate.main([str(deploy), model[1], str(path)])
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("net", "records", "warns"),
    [
        ("0:8", "0:8 m", False),
        ("0:8 m", "0.0:8.0", False),
        ("0:8", "0:10 m", True),
        ("ours", "ours", False),
        ("ours", "0:8 m", True),
    ],
)
def test_ranges_of_other_words_are_one(model, toy, tmp_path, capsys, net, records, warns):
    deploy = tmp_path / "deploy.prototxt"
    deploy.write_text(f"# depth_range: {net}\n" + Path(model[0]).read_text())
    info = {"options": {"depth_range": records}}
    path = toy.lmdb(tmp_path / "lmdb", toy.frames(1), info)
    evaluate.main([str(deploy), model[1], str(path)])
    run(deploy, model[1], "--lmdb", path, "-o", tmp_path / "out")
    said = capsys.readouterr().err.count(f"is {records}, but the net was trained with {net}")
    assert said == 2 * warns


@pytest.mark.parametrize("name", FRAMES)
def test_real_frames_of_three_cameras(model, tmp_path, name):
    if not RGBD.is_dir():
        pytest.skip("the real frames are not beside this checkout")
    rgb, depth, unit = FRAMES[name]
    folder = RGBD / name
    run(*model, "--rgb", folder / rgb, "--depth", folder / depth, "--depth-unit", unit,
        "-o", tmp_path / "out.png", "--depth-range", "valid", "--fit", "stretch")  # fmt: skip
    files = [next((folder / part).iterdir()) if (folder / part).is_dir() else folder / part
             for part in (rgb, depth)]  # fmt: skip
    frame = Frame(cv2.imread(str(files[0])), cv2.imread(str(files[1]), cv2.IMREAD_UNCHANGED))
    form = RecordFormat((16, 12), DepthUnit.parse(unit), DepthRange("valid"))
    planes, _ = from_datum(form.encode(frame))
    assert planes[3].max() == 255
    scores = np.concatenate([np.ones((1, 12, 16)), planes[:4]])
    assert np.array_equal(read_label(tmp_path / "out.png"), scores.argmax(0))


def test_frames_of_another_aspect(model, toy, tmp_path):
    """By default the net sees their middle; labels at the frame's size have 0 beside it."""
    rng = np.random.default_rng(3)
    color = rng.integers(0, 256, (12, 32, 3), np.uint8)
    depth = rng.integers(500, 6000, (12, 32)).astype(np.uint16)
    cv2.imwrite(str(tmp_path / "c.png"), color)
    cv2.imwrite(str(tmp_path / "d.png"), depth)
    cv2.imwrite(str(tmp_path / "cm.png"), color[:, 8:24])
    cv2.imwrite(str(tmp_path / "dm.png"), depth[:, 8:24])

    def labels(rgb, deep, *more):
        run(*model, "--rgb", tmp_path / rgb, "--depth", tmp_path / deep, "-o", tmp_path / "o.png",
            "--depth-range", "0:8", *more)  # fmt: skip
        return read_label(tmp_path / "o.png")

    middle = labels("cm.png", "dm.png")
    assert len(np.unique(middle)) > 1
    assert np.array_equal(labels("c.png", "d.png"), middle)
    whole = labels("c.png", "d.png", "--size", "original", "--overlay")
    assert np.array_equal(whole[:, 8:24], middle)
    assert not whole[:, :8].any()
    assert not whole[:, 24:].any()
    padded = labels("c.png", "d.png", "--size", "original", "--fit", "pad")
    assert padded[:, :8].any()


def test_scannet_submission(toy, tmp_path, capsys):
    # Labels 39, 13 and 1 where blue, green, red is highest; 13 is not among the benchmark's.
    weight = np.zeros((41, 4))
    weight[[39, 13, 1], [0, 1, 2]] = 1
    weight[40] = -1
    text = toy.deploy.replace("num_output: 5", "num_output: 41")
    text = text.replace("HEIGHT", "12").replace("WIDTH", "16")
    model = toy.model(tmp_path, text, {"score": [weight, np.zeros(41)]}, "nyu40")
    colors = np.repeat([[1] * 6 + [2] * 5 + [3] * 5], 12, 0)
    path = toy.lmdb(tmp_path / "lmdb", {"scene0707_00/000020": (colors, None)})
    run(*model, "--lmdb", path, "--submission", "scannet", "-o", tmp_path / "out")
    (file,) = (tmp_path / "out").iterdir()
    assert file.name == "scene0707_00_000020.png"
    image = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
    assert (image.shape, image.dtype) == ((480, 640), np.uint8)
    assert set(np.unique(image)) <= {1, 39}


@pytest.mark.parametrize(
    "name", ["scene0707_00/color/000020", "scene0707_00/000020", "scene0707_00_000020"]
)
def test_names_of_submissions(name):
    assert scannet.file_name(name) == "scene0707_00_000020.png"


def test_names_and_classes_that_cannot_be_submitted():
    with pytest.raises(DataError, match="img_1: --submission scannet needs names with scene"):
        scannet.file_name("img_1")
    with pytest.raises(DataError, match="the net scores 5 values, expected 41"):
        scannet.classes(5)
    labels20 = np.array([[0, 1, 13, 20]], np.uint8)

    class Twenty:
        values = 21

    assert scannet.nyu40(labels20, Twenty).tolist() == [[0, 1, 14, 39]]


def test_nets_of_one_input_need_only_that(toy, tmp_path, capsys):
    text = """
    layer { name: "depth" type: "Input" top: "depth"
            input_param { shape { dim: 1 dim: 1 dim: 12 dim: 16 } } }
    layer { name: "score" type: "Convolution" bottom: "depth" top: "score"
            convolution_param { num_output: 2 kernel_size: 1 } }
    """
    model = toy.model(tmp_path, text, {"score": [[[1], [0]], [0, 50]]}, "near")
    _, depth = write_files(tmp_path, np.full((4, 12, 16), 40))
    run(*model, "--depth", depth, "--depth-unit", "scaled", "-o", tmp_path / "o.png", "--overlay")
    assert np.all(read_label(tmp_path / "o.png") == 1)
    with pytest.raises(DataError, match=r"near\.prototxt looks at depth: --depth is missing"):
        run(*model, "--rgb", depth)
    colour = text.replace("depth", "rgb").replace("dim: 1 dim: 1 dim", "dim: 1 dim: 3 dim")
    model = toy.model(tmp_path, colour, {"score": [[[0] * 3, [1] * 3], [10, 0]]}, "colour")
    rgb, _ = write_files(tmp_path, np.full((4, 12, 16), 40))
    run(*model, "--rgb", rgb, "-o", tmp_path / "c.png")
    assert np.all(read_label(tmp_path / "c.png") == 1)


def bad(kind, tmp_path, toy):
    """Arguments of a call that must fail, and what its message must say."""
    rgb, depth = write_files(tmp_path, toy.paint(labels()), depth=np.uint16)
    common = ["--rgb", rgb, "--depth", depth]
    if kind == "sizes":
        cv2.imwrite(str(depth), np.zeros((16, 16), np.uint16))
        return common, "depth is 16x16 and colour 16x12: expected one aspect ratio"
    if kind == "lonely":
        write_files(tmp_path, toy.paint(labels()), "other", np.uint16)[1].unlink()
        folders = ["--rgb", tmp_path / "rgb", "--depth", tmp_path / "depth"]
        return folders, r"other\.png: no depth file named 'other'"
    if kind == "eight bits":
        cv2.imwrite(str(depth), np.zeros((12, 16), np.uint8))
        return common, "8-bit depth has no unit"
    if kind == "broken":
        rgb.write_text("no picture")
        return common, r"frame\.png: not a picture"
    if kind == "nothing":
        return ["--rgb", tmp_path / "nowhere", "--depth", depth], "nowhere: no such folder or file"
    if kind == "one name":
        write_files(tmp_path, toy.paint(labels()), "other", np.uint16)
        folders = ["--rgb", tmp_path / "rgb", "--depth", tmp_path / "depth"]
        return [*folders, "-o", tmp_path / "x.png"], r"x\.png: one file for 2 frames"
    if kind == "file in the way":
        (tmp_path / "out").write_text("")
        return [*common, "-o", tmp_path / "out"], "out: not a folder"
    assert kind == "dataset"
    return [*common, "--dataset", tmp_path], "no dataset.json with options and a depth_range"


BAD = [
    "sizes",
    "lonely",
    "eight bits",
    "broken",
    "nothing",
    "one name",
    "file in the way",
    "dataset",
]


@pytest.mark.parametrize("kind", BAD)
def test_bad_input_is_met_with_one_clear_line(kind, model, toy, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    args, message = bad(kind, tmp_path, toy)
    with pytest.raises(DataError, match=message) as error:
        run(*model, *args)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("args", [[], ["--rgb", "a", "--lmdb", "b"], ["--size", "3"]])
def test_bad_usage(model, args):
    with pytest.raises(SystemExit) as error:
        run(*model, *args)
    assert error.value.code == 2


def test_pictures_overwrite_neither_inputs_nor_each_other(model, toy, tmp_path):
    rgb, depth = write_files(tmp_path, toy.paint(labels()), "a")
    before = rgb.read_bytes()
    colours, deep = rgb.parent, depth.parent
    files = ["--rgb", colours, "--depth", deep, "--depth-unit", "scaled"]
    one = ["--rgb", rgb, "--depth", depth, "--depth-unit", "scaled"]
    (tmp_path / "link").symlink_to(colours)
    for given, out in ((files, colours), (files, tmp_path / "link"), (one, rgb), (one, colours)):
        with pytest.raises(DataError, match=r"the labels of frame a would overwrite the input \("):
            run(*model, *given, "-o", out)
    assert rgb.read_bytes() == before
    out = tmp_path / "out"
    for other, told in (("a_overlay", "frame a_overlay"), ("legend", "the legend")):
        for path in write_files(tmp_path, toy.paint(labels(1)), other):
            assert path.is_file()
        with pytest.raises(DataError, match=f"would overwrite .*{told}|{told} would overwrite"):
            run(*model, *files, "-o", out, "--overlay")
        assert not out.exists()
        (colours / f"{other}.png").unlink()
        (deep / f"{other}.png").unlink()
    write_files(tmp_path, toy.paint(labels(1)), "a_overlay")
    run(*model, *files, "-o", out)
    assert {path.name for path in out.iterdir()} == {"a.png", "a_overlay.png"}


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30, -1e30])
@pytest.mark.parametrize("plane", [0, 3])
def test_float_records_that_are_no_pictures_are_refused(model, toy, tmp_path, plane, value):
    planes = toy.paint(labels()).astype(np.float32)
    planes[plane, 3, 4] = value
    (tmp_path / "db").mkdir()
    with lmdb.open(str(tmp_path / "db")) as env, env.begin(write=True) as transaction:
        transaction.put(b"00000000_a", to_datum(planes))
    path = str(tmp_path / "db")
    for tool, args in (
        (predict, ["--lmdb", path, "-o", str(tmp_path / "out")]),
        (evaluate, [path]),
    ):
        with pytest.raises(DataError, match=r"db: record 00000000_a: colours and depth of .* to "):
            tool.main([*model, *args])


def write_rendered(folder, spoil=lambda depth: depth, count=2):
    """rgb/ and depth/ of rendered frames, with depth spoiled."""
    source = Synth(count, (160, 120), 33)
    for i in range(count):
        frame = source.load(i)
        for part, image in (("rgb", frame.color), ("depth", spoil(frame.depth))):
            (folder / part).mkdir(exist_ok=True)
            assert cv2.imwrite(str(folder / part / f"f{i}.png"), image)
    return ["--rgb", folder / "rgb", "--depth", folder / "depth", "-o", folder / "out"]


def doctors_lines(capsys):
    """What was said on stderr of the frames and of the folder of depth."""
    lines = capsys.readouterr().err.splitlines()
    return [line for line in lines if line.startswith("f0: ") or "no reading" in line]


def test_spoiled_depth_is_told_once_and_refused_by_strict(model, tmp_path, capsys):
    files = write_rendered(tmp_path, lambda depth: np.full_like(depth, 1500))
    run(*model, *files)
    (line,) = doctors_lines(capsys)
    assert line.startswith("f0: depth is a constant plane: nearly all readings are 1500 (1.5 m)")
    assert line.endswith("; --strict refuses such frames (so with 2 frames)")
    with pytest.raises(DataError, match="depth is a constant plane"):
        run(*model, *files, "--strict")


def test_a_value_that_is_no_reading_is_taken_as_a_hole(model, tmp_path, capsys):
    (tmp_path / "a").mkdir()
    files = write_rendered(tmp_path / "a")
    run(*model, *files, "--depth-range", "valid")
    assert doctors_lines(capsys) == []
    other = write_rendered(tmp_path, lambda d: np.where(d > 0, d, 65535).astype(np.uint16))
    run(*model, *other, "--depth-range", "valid")
    (line,) = doctors_lines(capsys)
    assert line.startswith(f"{tmp_path / 'depth'}: depth 65535 is taken as no reading: ")
    for name in ("f0.png", "f1.png"):
        found = read_label(tmp_path / "out" / name)
        assert np.array_equal(found, read_label(tmp_path / "a" / "out" / name))


def test_colour_alone_is_not_examined(toy, tmp_path, capsys):
    text = toy.deploy[: toy.deploy.index('layer { name: "depth"')]
    text += """
layer { name: "score" type: "Convolution" bottom: "rgb" top: "score"
        convolution_param { num_output: 5 kernel_size: 1 } }
layer { name: "prob" type: "Softmax" bottom: "score" top: "prob" }
"""
    text = text.replace("HEIGHT", "12").replace("WIDTH", "16")
    params = {"score": [np.zeros((5, 3)), [0, 1, 0, 0, 0]]}
    files = write_rendered(tmp_path, lambda depth: np.full_like(depth, 1500))
    run(*toy.model(tmp_path, text, params), *files)
    assert doctors_lines(capsys) == []
