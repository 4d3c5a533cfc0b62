"""What all commands have in common: streams that are closed or full cause no traceback, and they
start without the libraries that take long to load.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bench import start

ROOT = Path(__file__).parents[1]
MODULES = start.modules()


def _start(module: str, line: str, folder: Path) -> subprocess.Popen:
    script = f'exec "$0" -m {module} {line}'
    return subprocess.Popen(
        ["bash", "-c", script, sys.executable],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"},
    )


def _end(process: subprocess.Popen) -> tuple[int, str]:
    out, said = process.communicate()
    assert out == ""
    return process.returncode, said


def test_the_installed_commands_are_among_them() -> None:
    """They start in one module, which knows the others by name."""
    project = (ROOT / "pyproject.toml").read_text()
    scripts = re.search(r"\[project.scripts\]\n(.*?)\n\n", project, re.DOTALL)
    starts = (ROOT / "caffe" / "__main__.py").read_text()
    for line in scripts[1].splitlines():
        name, function = re.fullmatch(r'(\w+) = "caffe\.__main__:(\w+)"', line).groups()
        module = re.search(rf'^{function} = _command\("([\w.]+)"\)', starts, re.MULTILINE)[1]
        assert name == function
        assert module in MODULES or module == "caffe.commands.cli"  # as `python -m caffe`


@pytest.mark.parametrize("module", MODULES)
def test_streams_that_are_no_use(module: str, tmp_path: Path) -> None:
    """If output is lost, the status tells and one line says why; bad usage stays bad usage."""
    full = _start(module, "--help >/dev/full", tmp_path)
    closed = _start(module, "--no-such-option <&- >&- 2>&-", tmp_path)
    status, said = _end(full)
    assert status == 1
    assert said.count("\n") == 1
    assert said.endswith(": the output on stdout is lost: No space left on device\n")
    assert _end(closed) == (2, "")


def test_the_work_is_done_all_the_same(tmp_path: Path) -> None:
    """Files are written, whatever becomes of what is printed about them."""
    lost = "the output on stdout is lost: it is closed\n"
    status, said = _end(_start("data_tools.synth", "--count 2 --size 32x24 lm >&-", tmp_path))
    assert (status, said) == (1, f"python -m data_tools.synth: {lost}")
    assert (tmp_path / "lm" / "data.mdb").exists()
    status, said = _end(_start("data_tools.inspect", "lm --html x.html >&-", tmp_path))
    assert (status, said) == (1, f"python -m data_tools.inspect: {lost}")
    assert (tmp_path / "x.html").exists()
    status, said = _end(_start("netgen", "papers folder 2>&-", tmp_path))
    assert (status, said) == (0, "")
    assert list((tmp_path / "folder").rglob("*.prototxt"))


PLACE = "import boundary; print(boundary.__path__[0])"
START = {"cwd": None, "capture_output": True, "text": True, "env": {"PATH": "/usr/bin:/bin"}}


def test_a_folder_named_caffe_hides_nothing(tmp_path: Path) -> None:
    """One without an __init__.py, such as a clone of BVLC's; the commands are those installed."""
    options = {**START, "cwd": tmp_path}
    place = subprocess.run([sys.executable, "-c", PLACE], **options).stdout.strip()
    if not place or Path(place).parent.resolve() != ROOT.resolve():
        pytest.skip("this folder is not the one that is installed")
    for package in start.PACKAGES:
        (tmp_path / package).mkdir()
    for module in ("netgen", "caffe.convert", "data_tools.folder", "eval_tools.predict"):
        done = subprocess.run([sys.executable, "-m", module, "--help"], **options)
        text = "is the install older than pyproject.toml? pip install -e ."
        assert done.returncode == 0, f"{done.stderr[-300:]}; {text}"


def test_another_package_named_caffe_is_named(tmp_path: Path) -> None:
    (tmp_path / "caffe").mkdir()
    (tmp_path / "caffe" / "__init__.py").touch()
    status, said = _end(_start("netgen", "sf1", tmp_path))
    assert status == 1
    assert said == (
        f"netgen: error: {tmp_path}/caffe hides the package caffe of {ROOT}: start from another "
        "folder\n"
    )


def test_sources_that_are_not_installed_say_so(tmp_path: Path) -> None:
    """They lack what is generated from the schema."""
    for package in ("boundary", "caffe", "netgen"):
        ignored = shutil.ignore_patterns("*_pb2.py", "__pycache__")
        shutil.copytree(ROOT / package, tmp_path / package, ignore=ignored)
    what = f"{tmp_path}/caffe/proto lacks caffe_pb2.py, which installing makes: pip install -e "
    options = {**START, "cwd": tmp_path}
    done = subprocess.run([sys.executable, "-m", "netgen", "sf1"], **options)
    assert (done.returncode, done.stderr) == (1, f"error: {what}{tmp_path}\n")
    done = subprocess.run([sys.executable, "-c", "from caffe.proto import caffe_pb2"], **options)
    assert done.stderr.endswith(f"ImportError: {what}{tmp_path}\n")


# -- what a command loads ------------------------------------------------------------------------

HEAVY = [
    "torch", "cv2", "matplotlib", "h5py", "scipy", "PIL", "tqdm", "onnx", "onnxruntime", "openvino",
    "nncf", "pycocotools", "sklearn", "pandas",
]  # fmt: skip

# Runs [module, arguments, allowed libraries] one after the other; prints [status, what was asked
# for, what it printed on stderr] of each.
DRIVER = """
import contextlib, io, json, os, runpy, sys, warnings
heavy, cases = json.loads(sys.argv[1])
warnings.simplefilter("ignore", RuntimeWarning)  # runpy's, of modules that are imported already
asked, allowed = [], set()
class Finder:
    def find_spec(self, name, path=None, target=None):
        first = name.partition(".")[0]
        if first in heavy and first not in allowed:
            asked.append(name)
            raise ImportError(f"{name} is not to be imported")
sys.meta_path.insert(0, Finder())
for module, arguments, may in cases:
    asked.clear()
    allowed = set(may)
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        sys.argv = ["-m", *arguments]
        try:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
            status = 0
        except SystemExit as end:
            status = end.code
        except Exception as error:
            status = repr(error)
    print(json.dumps([status, asked, said.getvalue()]), flush=True)
"""

# A command, its arguments, which of these libraries it may load, and its status.
Case = tuple[str, list[str], list[str], int]
GOLDEN = ROOT / "tests" / "golden"
SOLVER = 'net: "net.prototxt" base_lr: 0.1 lr_policy: "fixed" max_iter: 1'
# Flags of `caffe`, and the status.
CAFFE = {
    "": 2,
    "-version": 0,
    "train -help": 0,
    "test -help": 0,
    "time -help": 0,
    "device_query -help": 0,
    "nothing": 2,
    "train": 2,
    "test -model net.prototxt": 2,
    "time": 2,
    "time -model net.prototxt -phase BOTH": 2,
    "time -model net.prototxt -gpu one": 2,
    "train -solver missing.prototxt": 1,
    "train -solver broken.prototxt": 1,
    "train -solver solver.prototxt -fresh fc": 2,
    "train -solver solver.prototxt -gpu 0 -cpu 2": 2,
    "train -solver solver.prototxt -precision fp8": 2,
}


def _cases() -> list[Case]:
    found: list[Case] = []
    for module in MODULES + start.examples():
        found += [(module, ["--help"], [], 0), (module, ["--no-such-option"], [], 2)]
    found += [("caffe", flags.split(), [], status) for flags, status in CAFFE.items()]
    found += [
        ("netgen", ["sf5"], [], 0),
        ("netgen", ["summary", "missing.prototxt"], [], 1),
        ("caffe.convert", ["net.prototxt", "net.caffemodel", "net.xyz"], [], 1),
        ("data_tools.inspect", ["missing"], [], 1),
        ("data_tools.inspect", [str(GOLDEN / "train" / "lmdb")], ["cv2", "tqdm"], 0),
        ("eval_tools.evaluate", ["net.prototxt", "net.caffemodel", "missing"], [], 1),
        ("eval_tools.curves", ["missing.log"], [], 1),
        # Last, as what is loaded stays so.
        (
            "eval_tools.curves",
            [str(GOLDEN / "interop" / "reference_train.log")],
            ["matplotlib", "PIL"],
            0,
        ),
    ]
    return found


def test_what_commands_load(tmp_path: Path) -> None:
    """Help, bad usage and bad input that is seen at once need no library that loads slowly."""
    (tmp_path / "solver.prototxt").write_text(SOLVER)
    (tmp_path / "broken.prototxt").write_text("net: net")
    cases = _cases()
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, json.dumps([HEAVY, [case[:3] for case in cases]])],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": f"{ROOT}:{ROOT / 'examples'}", "PATH": "/usr/bin:/bin"},
    )
    outcomes = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(outcomes) == len(cases), done.stderr[-2000:]
    wrong = {
        f"{module} {' '.join(arguments)}": outcome
        for (module, arguments, _, status), outcome in zip(cases, outcomes, strict=True)
        if outcome[:2] != [status, []]
    }
    assert wrong == {}
