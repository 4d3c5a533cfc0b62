"""examples/nyuv2.py: the recipe on a small file of the data set's form, killed and resumed."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from caffe.proto import caffe_pb2
from data_tools.cli import DataError
from data_tools.store import Reader
from eval_tools.caffe_log import read_log

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "examples" / "nyuv2.py"
# A net of few channels on small frames, trained for 30 iterations.
TINY = ["--quick", "--net", "rgb", "--size", "64x48", "--width-multiplier", "0.02",
        "--epochs", "12", "--test-epochs", "6", "--class-weights", "authors"]  # fmt: skip
LAST = "rgb/rgb_iter_30.caffemodel"


def start(out: Path, *options: str) -> subprocess.Popen[str]:
    """The recipe, with its output in pipes."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, str(SCRIPT), str(out), *options]
    return subprocess.Popen(words, env=environment, text=True, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE)  # fmt: skip


def run(out: Path, *options: str) -> tuple[int, str, str]:
    """Its exit status, stdout and stderr."""
    process = start(out, *options)
    said, wrong = process.communicate()
    return process.returncode, said, wrong


def kill_when(there: Callable[[], bool], out: Path, *options: str) -> None:
    """Starts it, and kills it with SIGKILL once something is there."""
    process = start(out, *options)
    while not there() and process.poll() is None:
        time.sleep(0.005)
    assert process.poll() is None, process.communicate()
    process.kill()
    process.communicate()


@pytest.fixture(scope="module")
def mat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data set's file with its first 16 frames, 64x48 instead of 640x480: 10 of trainval."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "tests" / "data_tools"))
        from mat_files import write_nyu
    path = tmp_path_factory.mktemp("nyu") / "nyu_depth_v2_labeled.mat"
    write_nyu(path, 16, size=(64, 48))
    return path


@pytest.fixture(scope="module")
def whole(mat: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an undisturbed run."""
    out = tmp_path_factory.mktemp("whole") / "out"
    status, _, wrong = run(out, "--mat", str(mat), *TINY)
    assert status == 0, wrong
    return out


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], object]]:
    """example(name): a module of examples/."""
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    yield __import__
    for name in ("nyuv2", "stages"):
        sys.modules.pop(name, None)


def weights(path: Path) -> dict[str, list[np.ndarray]]:
    net = caffe_pb2.NetParameter.FromString(path.read_bytes())
    return {layer.name: [np.array(blob.data) for blob in layer.blobs] for layer in net.layer}


# -- the whole recipe --------------------------------------------------------------------------


def test_the_recipe_ends_in_figures_and_a_report(whole: Path) -> None:
    found = json.loads((whole / "scores" / "scores.json").read_text())
    assert found["frames"] == 6
    assert found["model"] == "rgb_iter_30"
    assert (whole / "rgb" / "rgb_best.caffemodel").exists()
    lines = (whole / "scores" / "summary.txt").read_text().splitlines()
    shown = [found[key] for key in ("global_accuracy", "mean_accuracy", "mean_iou")]
    assert lines[1].split() == ["rgb", *(f"{100 * figure:.1f}" for figure in shown)]
    assert lines[2].split() == ["FuseNet-SF5,", "published", "66.0", "43.4", "32.7"]
    assert "<html" in (whole / "scores" / "report.html").read_text()[:200]
    assert Reader(whole / "lmdb" / "trainval").info["dataset"] == "nyuv2-40"
    assert "test/mean_iou" in read_log(whole / "rgb" / "train.log").series
    net = (whole / "rgb" / "train.prototxt").read_text()
    assert "use_weights: true" in net
    assert "dropout_ratio: 0.1" in net


def test_what_is_there_is_not_made_again(whole: Path, mat: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*.caffemodel")}
    status, said, wrong = run(whole, "--mat", str(mat), *TINY)
    assert (status, wrong) == (0, "")
    assert said.count(": is there") == 4
    assert "$ python" not in said
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_changed_option_is_told(whole: Path, mat: Path) -> None:
    status, said, wrong = run(whole, "--mat", str(mat), *TINY, "--base-lr", "0.01")
    assert status == 1
    assert "$ python" not in said
    assert wrong == (
        f"nyuv2: {whole}/rgb: was made otherwise: with --base-lr 0.001, now with --base-lr 0.01; "
        "another folder keeps both, --force makes it and what depends on it anew\n"
    )
    assert (whole / LAST).exists()


def test_killed_twice_it_ends_as_if_undisturbed(whole: Path, mat: Path, tmp_path: Path) -> None:
    """First while the second LMDB is made, then while the net trains."""
    out = tmp_path / "out"
    options = ["--mat", str(mat), *TINY]
    kill_when((out / "lmdb" / "trainval").exists, out, *options)
    kill_when(lambda: any(out.glob("rgb/*.solverstate")), out, *options)
    status, said, wrong = run(out, *options)
    assert status == 0, wrong
    assert "lmdb: is there" in said
    assert "Resuming from rgb/rgb_iter_" in (out / "rgb" / "train.log").read_text()
    mine, wanted = weights(out / LAST), weights(whole / LAST)
    assert all(
        np.array_equal(a, b) for n in wanted for a, b in zip(mine[n], wanted[n], strict=True)
    )
    scores = [(one / "scores" / "scores.json").read_text() for one in (out, whole)]
    assert scores[0] == scores[1]
    assert not list(out.rglob("*.tmp")) + list(out.rglob("*.fusenet-partial"))


# -- stages ------------------------------------------------------------------------------------


@pytest.fixture
def work(example, tmp_path: Path):
    """work(force): a Work in one folder."""
    stages = example("stages")
    return lambda force=False: stages.Work(tmp_path / "out", ".mark", force)


def step(example, name: str, value: str):
    """A command that writes its option's value: Python's own json.tool says what is in a file."""
    return example("stages").Step(("json.tool", "--indent", "2", value), name, out=True)


def test_a_stage_that_is_made_anew_takes_its_readers_along(work, example, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / f"{name}.json").write_text(f'"{name}"')
    first, second = (step(example, "a/x", str(tmp_path / f"{n}.json")) for n in ("one", "two"))
    reader = step(example, "b/y", str(tmp_path / "one.json"))
    with work() as place:
        place.stage("a", [first])
        place.stage("b", [reader], after=["a"])
        place.stage("c", [step(example, "c/z", str(tmp_path / "one.json"))])
    with work() as place, pytest.raises(DataError, match=r"one\.json, now with .*two\.json; ano"):
        place.stage("a", [second])
    assert (tmp_path / "out/a/x").read_text() == '"one"\n'
    (tmp_path / "out/b/old").touch()
    with work(force=True) as place:
        place.stage("a", [second])
        assert not (tmp_path / "out/b/stage.json").exists()
        assert (tmp_path / "out/c/stage.json").exists()
        place.stage("b", [reader], after=["a"])
    assert (tmp_path / "out/a/x").read_text() == '"two"\n'
    assert not (tmp_path / "out/b/old").exists()


def test_an_input_that_changed_is_told(work, example, tmp_path: Path) -> None:
    source = tmp_path / "one.json"
    source.write_text("1")
    steps = [step(example, "a/x", str(source))]
    with work() as place:
        place.stage("a", steps, [source])
    source.write_text("123")
    with work() as place, pytest.raises(DataError, match=r"one\.json has changed since"):
        place.stage("a", steps, [source])
    source.unlink()
    with work() as place:
        place.stage("a", steps, [source])  # a stage that is through needs it no more
        with pytest.raises(DataError, match=r"one\.json: no such file or folder"):
            place.stage("b", steps, [source])


@pytest.mark.parametrize("text", ["{", "[]", '{"done": true}'])
def test_a_damaged_record_is_told(work, example, tmp_path: Path, text: str) -> None:
    (tmp_path / "one.json").write_text("1")
    steps = [step(example, "a/x", str(tmp_path / "one.json"))]
    with work() as place:
        place.stage("a", steps)
    (tmp_path / "out/a/stage.json").write_text(text)
    with (
        work() as place,
        pytest.raises(DataError, match=r"a/stage\.json: is damaged; expected aft"),
    ):
        place.stage("a", steps)


def test_a_command_that_fails_leaves_nothing_and_may_be_mended(
    work, example, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.json").write_text("[1")
    with work() as place, pytest.raises(DataError, match=r"ended with status 1: python -m json"):
        place.stage("a", [step(example, "a/x", str(tmp_path / "bad.json"))])
    assert [path.name for path in (tmp_path / "out/a").iterdir()] == ["stage.json"]
    (tmp_path / "one.json").write_text("1")
    with work() as place:  # nothing was lost, so nobody need be asked
        place.stage("a", [step(example, "a/x", str(tmp_path / "one.json"))])
    assert (tmp_path / "out/a/x").read_text() == "1\n"
    assert "a: made anew: with" in capfd.readouterr().out


def test_a_folder_of_somebody_is_left_alone(work, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    with pytest.raises(DataError, match="holds other things"):
        work().__enter__()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine"]


SERVES = """
import sys
from pathlib import Path
from stages import Step, Work
with Work(Path(sys.argv[1]), ".mark") as place:
    place.stage("a", [Step(("http.server", "--bind", "127.0.0.1", "0"), "a/x", out=True)])
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_signals_reach_the_command(work, tmp_path: Path, number: signal.Signals) -> None:
    """It ends, also where nobody can tell it; then the folder is free."""
    path = os.pathsep.join([str(SCRIPT.parent), str(ROOT)])
    words = [sys.executable, "-c", SERVES, str(tmp_path / "out")]
    process = subprocess.Popen(words, env={**os.environ, "PYTHONPATH": path})
    while not list(tmp_path.glob("out/a/.x.*")):
        time.sleep(0.01)
    process.send_signal(number)
    process.wait()
    assert process.returncode == (-9 if number == signal.SIGKILL else 128 + number)
    with work():
        pass


def test_glogs_variables_do_not_reach_the_command(work, example, monkeypatch, tmp_path) -> None:
    """With them caffe train would write no log, which the report's curves are drawn from."""
    (tmp_path / "tell.py").write_text("import os\nprint(*sorted(os.environ))")
    for name in ("GLOG_logtostderr", "GLOG_minloglevel", "HELD"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with work() as place:
        place.stage("a", [example("stages").Step(("tell",), "a/x", out=True)])
    found = (tmp_path / "out/a/x").read_text().split()
    assert "HELD" in found
    assert not [name for name in found if name.startswith("GLOG_")]


def test_logs_are_joined_by_date_not_by_machine(work, example, tmp_path) -> None:
    (tmp_path / "out/a/log").mkdir(parents=True)
    for name, text in (
        ("z.me.log.INFO.20260101-000000.9", "1"),
        ("a.me.log.INFO.20260102-0.1", "2"),
    ):
        (tmp_path / "out/a/log" / f"caffe.{name}").write_text(text)
    example("stages").Joined("a/log/caffe.*", "a/train.log").do(tmp_path / "out")
    assert (tmp_path / "out/a/train.log").read_text() == "12"


@pytest.mark.skipif(torch.cuda.is_available(), reason="asks for a GPU that is not there")
@pytest.mark.parametrize("gpu", ["all", "0", "0,3"])
def test_a_gpu_that_is_missing_is_told_first(example, monkeypatch, tmp_path, gpu: str) -> None:
    (tmp_path / "m.mat").touch()
    options = ["out", "--mat", "m.mat", "--quick", "--gpu", gpu]
    monkeypatch.setattr(sys, "argv", ["nyuv2", *options])
    monkeypatch.chdir(tmp_path)
    with pytest.raises((DataError, SystemExit)) as caught:
        example("nyuv2").main()
    assert f"--gpu {gpu}: this machine has 0 GPUs that PyTorch can use" in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_one_works_in_a_folder_at_a_time(work) -> None:
    with work(), pytest.raises(DataError, match=f"process {os.getpid()} works in it"):
        work().__enter__()


# -- commands ----------------------------------------------------------------------------------


def printed(nyuv2, monkeypatch, capsys, *options: str) -> list[list[str]]:
    """The commands of --dry-run."""
    monkeypatch.setattr(sys, "argv", ["nyuv2", "out", *options, "--dry-run"])
    nyuv2.main()
    lines = capsys.readouterr().out.splitlines()
    return [shlex.split(line)[3:] for line in lines if line.startswith("$ python -m")]


def test_the_papers_recipe(example, monkeypatch, capsys, tmp_path: Path) -> None:
    """As the paper trains: VGG-16, batches of 4, a rate of 0.001, 320x240, dropout of a half."""
    monkeypatch.chdir(tmp_path)
    options = ["--mat", "m.mat", "--vgg", "v.caffemodel", "--gpu", "0,1", "--classes", "13"]
    found = printed(example("nyuv2"), monkeypatch, capsys, *options)
    commands = {" ".join(words[:2]): words for words in found}
    assert [words[0] for words in found] == [
        "data_tools.nyuv2", "data_tools.nyuv2", "netgen", "netgen", "netgen",
        "data_tools.vgg_surgery", "caffe", "eval_tools.evaluate",
    ]  # fmt: skip
    net = " ".join(found[2])
    assert "netgen sf5 --dataset nyuv2-13 --source lmdb/trainval --width-multiplier 1 " in net
    assert "--label-weights none --batch-size 4 --dropout 0.5 " in net
    assert "--augment" not in net
    solver = " ".join(commands["netgen solver"])
    assert (
        "--type SGD --base-lr 0.001 --lr-policy step --weight-decay 0.0005 --epochs 400 " in solver
    )
    assert "--devices 2" in solver
    training = " ".join(commands["caffe train"])
    assert "-weights sf5/init.caffemodel -snapshot latest" in training
    assert "-gpu 0,1" in training
    assert found[-1][-4:-2] == ["--gpu", "0"]
    assert not (tmp_path / "out").exists()


def test_the_page_has_the_recipe(example) -> None:
    page = (ROOT / "docs" / "nyuv2.md").read_text()
    rows = re.findall(r"^\| `--([\w-]+)` \| (\S+) \| (\S+) \|$", page, re.M)
    recipe = example("nyuv2").RECIPE
    assert [name for name, _, _ in rows] == list(recipe)
    for name, paper, quick in rows:
        row = recipe[name]
        assert (row.kind(paper), row.kind(quick)) == (row.paper, row.quick), name


def test_several_nets_are_compared(example, monkeypatch, capsys) -> None:
    options = ["--mat", "m.mat", "--quick", "--net", "sf5,rgb,depth", "--split", "train:val"]
    options += ["--class-weights", "paper", "--score", "best"]
    found = printed(example("nyuv2"), monkeypatch, capsys, *options)
    assert [words[1] for words in found if words[:2] == ["netgen", words[1]]][::3] == [
        "sf5", "rgb", "depth",
    ]  # fmt: skip
    last = " ".join(found[-1])
    assert "sf5/sf5_best.caffemodel lmdb/val --versus rgb/deploy.prototxt rgb/rgb_best." in last
    assert all("paper" in words for words in found if "--test-source" in words)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--mat", "m"], "expected --vgg FILE, or --from-scratch, or --quick"),
        (["--mat", "m", "--vgg", "v", "--quick"], "--vgg needs the full width"),
        (["--mat", "m", "--vgg", "v", "--from-scratch"], "--vgg does not go with --from-scratch"),
        (["--mat", "m", "--quick", "--depth-unit", "mm"], "go with --frames"),
        (["--mat", "m", "--frames", "f", "--quick"], "not allowed with argument --mat"),
        (
            ["--mat", "m", "--quick", "--class-weights", "mine"],
            "'mine' is none of none, paper,",
        ),
        (["--mat", "m", "--quick", "--augment", "tilt=3"], "'tilt=3'; expected some of scale"),
        (["--mat", "m", "--quick", "--lr-policy", "exp"], "'exp' is none of step, poly, fixed"),
        (["--mat", "m", "--quick", "--gpu", "0,b"], "'0,b' is neither all nor numbers such as 0,1"),
        (["--mat", "m", "--quick", "--score", "best", "--test-epochs", "0"], "needs tests"),
        (["--mat", "m", "--quick", "--net", "sf5,sf5"], "'sf5' is not one of sf1"),
        (
            ["--mat", "m", "--quick", "--score", "best", "--epochs", "4"],
            "--score best needs tests: --test-epochs 15 is more than --epochs 4",
        ),
        ([], "one of the arguments --mat --frames is required"),
    ],
)
def test_bad_usage(example, monkeypatch, capsys, options: list[str], message: str) -> None:
    monkeypatch.setattr(sys, "argv", ["nyuv2", "out", *options])
    with pytest.raises(SystemExit) as end:
        example("nyuv2").main()
    assert end.value.code == 2
    assert message in capsys.readouterr().err


def test_a_missing_file_is_told_before_any_work(example, monkeypatch, tmp_path: Path) -> None:
    (tmp_path / "m.mat").touch()
    out, vgg = tmp_path / "out", tmp_path / "none.caffemodel"
    options = [str(out), "--mat", str(tmp_path / "m.mat"), "--vgg", str(vgg)]
    monkeypatch.setattr(sys, "argv", ["nyuv2", *options])
    missing = pytest.raises(DataError, match=r"none\.caffemodel: no such file or folder")
    with missing:
        example("nyuv2").main()
    assert not out.exists()
    out.mkdir()
    with missing:
        example("nyuv2").main()
    assert not list(out.iterdir())


# -- frames as pictures ------------------------------------------------------------------------


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    """Pictures of the frames 1 to 8, of which the data set's split trains on 3 to 8."""
    random = np.random.default_rng(1)
    for part, channels in (("rgb", 3), ("depth8", 1), ("label40", 1)):
        (tmp_path / "frames" / part).mkdir(parents=True)
        for number in range(1, 9):
            picture = random.integers(1, 40, (48, 64, channels), np.uint8)
            cv2.imwrite(str(tmp_path / "frames" / part / f"{number:04d}.png"), picture)
    return tmp_path / "frames"


def test_frames_are_split_by_their_numbers(example, frames: Path, tmp_path: Path) -> None:
    nyuv2 = example("nyuv2")
    options = ["--frames", str(frames), "--depth-unit", "scaled", "--quick", "--size", "64x48"]
    args = nyuv2.parse([str(tmp_path / "out"), *options])
    with nyuv2.Work(args.out, ".mark") as work:
        nyuv2.make_data(work, args)
    names = {split: [key.decode() for key, _ in Reader(args.out / "lmdb" / split)]
             for split in ("trainval", "test")}  # fmt: skip
    assert names == {
        "trainval": [f"{place:08d}_{place + 3:04d}" for place in range(6)],
        "test": ["00000000_0001", "00000001_0002"],
    }
    assert Reader(args.out / "lmdb" / "test").info["classes"][1] == "wall"


def test_a_table_of_splits_names_frames(example, frames: Path, tmp_path: Path) -> None:
    nyuv2 = example("nyuv2")
    table = tmp_path / "splits.csv"
    table.write_text("image,split\n0008,train\n2,train\n0001,val\n77,val\n")
    options = ["--frames", str(frames), "--quick", "--split-table", str(table)]
    args = nyuv2.parse([str(tmp_path / "out"), *options])
    names = [f"{number:04d}" for number in range(1, 9)]
    assert nyuv2.names_of("train", names, args) == ["0008", "0002"]
    assert nyuv2.names_of("val", names, args) == ["0001"]
    with pytest.raises(DataError, match="has no frame of test, by "):
        nyuv2.names_of("test", names, args)


def test_folders_of_frames_are_found_or_named(example, frames: Path) -> None:
    nyuv2 = example("nyuv2")
    assert [path.name for path in nyuv2.parts(frames)] == ["rgb", "depth8", "label40"]
    (frames / "label13").mkdir()
    with pytest.raises(DataError, match=r"expected one folder label\*, found label13, label40"):
        nyuv2.parts(frames)
