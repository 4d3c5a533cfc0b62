"""The commands and programs that README and docs print: each is run, or excused with a reason.

They run in a folder that holds small files of the names that the pages use. A new command is run,
too; if its inputs cannot be made here, EXCUSED says why.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import cv2
import numpy as np
import printed
import pytest
import stage
import torch

import caffe
from caffe.export import programs
from caffe.formats.onnx import TARGETS
from caffe.layers import REGISTRY

# The page that goes through everything, which test_own_frames.py walks.
WALK = "docs/own_frames.md"

# Commands by a regular expression, and why they are not run.
EXCUSED = {
    r"make demo|make test.*|make fuzz .*|make bench|make docs|make lint|make format": "tests and "
    "checks of their own, minutes to hours",
    r"python3 -m venv .*|\. \.venv/.*|pip install .*": "installs packages from an index",
    r"python -m data_tools\.nyuv2 .*": "the data set is a download of 2.8 GB; "
    "tests/data_tools/test_nyuv2.py has files of its form",
    r"python -m data_tools\.sunrgbd .*": "the data set is a download; "
    "tests/data_tools/test_sunrgbd.py has files of its form",
    r"python -m data_tools\.scannet .*": "the data set is a download; "
    "tests/data_tools/test_scannet.py has files of its form",
    r"python -m data_tools\.prepared .*": "the data sets are downloads; "
    "tests/data_tools/test_prepared.py has files of their form",
    r"python -m data_tools\.port_weights .*": "the weights are a download; "
    "tests/data_tools/test_port_weights.py has files of their form",
    r"python -m data_tools\.vgg_surgery .*": "VGG-16's weights are a download of 500 MB; "
    "tests/data_tools/test_vgg_surgery.py has files of its form",
    r"python -m data_tools\.folder .* --labels-from annotations\.xml lmdb/mine .*": "for those who "
    "drew labels; the next command is for the others",
    r"python -m data_tools\.annoset .*": "VOC is a download; tests/data_tools/test_annoset.py has "
    "files of its form",
    r"caffe train .* -weights VGG_ILSVRC_16_layers_fc_reduced\.caffemodel": "trains SSD300",
    r"python -m caffe_patches .*": "needs a checkout of Caffe; tests/caffe_patches makes one",
    r"python examples/.*": "tests/examples runs them",
    r"python -m tests\.fuzz .*": "minutes; tests/fuzz runs a part",
    r"(CAFFE_BIN=\S+ )?python -m bench\..*": "minutes, or a GPU",
    r"torchrun .*|caffe train .*-gpu all": "needs several GPUs",
    r"python -m caffe\.tools\.train .* --gpus 0 1": "needs two GPUs",
    r"caffe train .* -cpu 2": "starts processes; tests/caffe/train does",
    r"caffe train -solver prototxt/.*": "trains the whole net on the whole data set",
    r"python -m eval_tools\.live .*": "serves until it is stopped; tests/eval_tools runs it",
    r"python -m caffe\.convert \[options\] .*": "a form, not a command",
    r"python -m caffe\.convert .*(res10|MobileNetSSD|pose_|age|gender).*": "the net is a download",
}
# Programs by what they begin with, and why they are not run.
EXCUSED_PROGRAMS = {
    **dict.fromkeys(
        ("# onnxruntime\n", "# opencv\n", "# openvino\n", "import torch\nimport caffe\n"),
        "tests/docs/test_convert_page.py runs it",
    ),
    '@register("Shrink")': "a part of a file, with a change of the schema",
    '@row("Shrink"': "a part of a file, with a change of the schema",
    "@family(0.5)": "a part of a file; tests/fuzz tries all families",
    '"""drop_idle_powers: Power layers that leave their bottom as it is."""': "a test's file",
    'net = caffe.Net("deploy.prototxt", "VGG_VOC0712': "the net is a download",
    'net = caffe.Net("test.prototxt", "ZF_faster_rcnn': "the net is a download",
    'import caffe\nimport numpy as np\n\nnet = caffe.Net("deploy.prototxt", "ssd.': "the net is a "
    "download; tests/examples runs such a program",
    "net = cv2.dnn.readNetFromCaffe(": "the first line is for OpenCV 4 alone",
    'net = cv2.dnn.readNetFromONNX("faces': "the net is a download",
    'net = cv2.dnn.readNetFromONNX("objects': "the net is a download",
    'net = cv2.dnn.readNetFromONNX("pose': "the net is a download",
    'net = cv2.dnn.readNetFromONNX("gender': "the net is a download",
    'net = cv2.dnn.readNetFromONNX("color': "the net is a download",
    "from caffe import convert\n": "the net is a download",
}
# What makes a command small: nets with few channels, few frames and iterations, no GPU.
SMALLER = (
    (r"^(python -m netgen (?:sf|df|rgb|depth)\S*)", r"\1 --width-multiplier 0.02"),
    (r"^(python -m netgen solver)", r"\1 --max-iter 2 --test-epochs 0"),
    (r"--count 1000?\b", "--count 3"),
    (r" -gpu 0\b", ""),
    (r"--intrinsics kinect-v2\b", "--intrinsics kinect-v1"),  # its pictures are 4:3
    (r"-iterations (10|654)\b", "-iterations 2"),
    (r"-find_lr -iterations 300\b", "-find_lr"),
    (r"-find_lr\b", "-find_lr -iterations 12"),
    (r"^(python -m caffe\.quantize)", r"\1 --frames 2 --float none"),
)
SMALLER_PROGRAMS = (("caffe.set_mode_gpu()", "caffe.set_mode_cpu()"), ("step(100)", "step(2)"))

BLOCKS = [block for page in printed.pages() for block in printed.blocks(page)]
SHELL = [block for block in BLOCKS if block.kind == "shell" and block.page != WALK]
PROGRAMS = [block for block in BLOCKS if block.kind == "python" and block.page != WALK]


def excuse(command: str) -> str | None:
    """Why a command is not run."""
    return next((why for form, why in EXCUSED.items() if re.fullmatch(form, command)), None)


def excuse_program(block: printed.Block) -> str | None:
    """Why a program is not run."""
    return next((w for begin, w in EXCUSED_PROGRAMS.items() if block.text.startswith(begin)), None)


def smaller(command: str) -> str:
    """The command with less to do."""
    for form, instead in SMALLER:
        command = re.sub(form, instead, command)
    return command


# What a page's commands need besides.
BEFORE = {"docs/pycaffe.md": stage.write_classifier}


@pytest.fixture(scope="session")
def prepared(tmp_path_factory):
    """A folder with all inputs."""
    folder = tmp_path_factory.mktemp("stage")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        stage.write_all()
    return folder


@pytest.fixture
def copy(prepared, tmp_path, monkeypatch):
    """A copy of that folder, as the working directory."""
    shutil.copytree(prepared, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    monkeypatch.syspath_prepend(str(tmp_path / "copy"))
    return tmp_path / "copy"


# -------------------------------------------------------------------------------------------------
# Tests
# -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", SHELL, ids=lambda block: f"{block.page}:{block.line}")
def test_printed_commands_run(block, request):
    commands = [command for command in block.commands if excuse(command) is None]
    if not commands:
        return
    request.getfixturevalue("copy")
    skip_without_programs(commands)
    BEFORE.get(block.page, lambda: None)()
    for command in commands:
        try:
            printed.run(smaller(command))
        except AssertionError as error:
            raise AssertionError(f"{block.page}:{block.line}: {error}") from None


def skip_without_programs(commands: list[str]) -> None:
    """Skips commands that need what is not installed: onnx, or a program to write files for."""
    for command in commands:
        if ".onnx" in command or "--for" in command:
            pytest.importorskip("onnx", reason="the package onnx is not installed")
        if "--labels-from" in command:
            pytest.importorskip("pycocotools", reason="pycocotools is not installed")
        name = re.search(r"--for (\w+)", command)
        if name and not programs.is_installed(TARGETS[name[1]]):
            pytest.skip(f"{name[1]} is not installed")


def stand_ins() -> dict[str, object]:
    """What programs take for granted: a frame, and the libraries."""
    bgr = stage.planes(0)[:3].transpose(1, 2, 0).copy()
    big = cv2.resize(bgr, (640, 480))
    depth = np.full((480, 640), 2000, np.uint16)
    truth = np.ones((4, 4), np.uint8)
    return {
        "np": np, "cv2": cv2, "torch": torch, "caffe": caffe, "bgr": big, "depth": depth,
        "frames": [(truth, truth)], "names": [str(i) for i in range(40)],
    }  # fmt: skip


@pytest.fixture
def as_before():
    """Layer types that a program registers, and modules that it makes, are gone afterwards."""
    types, modules, path = dict(REGISTRY), set(sys.modules), list(sys.path)
    yield
    REGISTRY.clear()
    REGISTRY.update(types)
    for name in set(sys.modules) - modules:
        if name in ("my_layers", "shift_layer"):
            del sys.modules[name]
    sys.path[:] = path


PAGES = sorted({block.page for block in PROGRAMS})


@pytest.mark.parametrize("page", PAGES)
def test_printed_programs_run(page, request, as_before):
    """The programs of a page, one after the other, as a reader would."""
    blocks = [b for b in PROGRAMS if b.page == page and excuse_program(b) is None]
    if not blocks:
        return
    request.getfixturevalue("copy")
    found = {"__name__": "__main__", **stand_ins(), **SPECIAL.get(page, dict)()}
    for block in blocks:
        text = block.text
        for part, instead in SMALLER_PROGRAMS:
            text = text.replace(part, instead)
        code = compile("\n" * (block.line - 1) + text, block.page, "exec")
        exec(code, found)  # a failure's traceback names page and line


def of_pycaffe() -> dict[str, object]:
    return {"image": stage.planes(0)[:3], "depth": stage.planes(0)[3]}


def of_readme() -> dict[str, object]:
    frame = stage.planes(0)
    return {"bgr": frame[:3].transpose(1, 2, 0), "depth": frame[3].astype(np.uint16)}


def of_convert() -> dict[str, object]:
    return {"batch": torch.ones(4, 5, 240, 320)}


SPECIAL = {"docs/convert.md": of_convert, "docs/pycaffe.md": of_pycaffe, "README.md": of_readme}


def test_no_excuse_is_out_of_date():
    commands = [c for block in BLOCKS if block.kind == "shell" for c in block.commands]
    for form in EXCUSED:
        assert any(re.fullmatch(form, command) for command in commands), form
    for begin in EXCUSED_PROGRAMS:
        assert any(block.text.startswith(begin) for block in PROGRAMS), begin


def test_no_two_examples_of_a_page_write_the_same_lmdb():
    """A reader who tries one after the other is not told that it exists already."""
    writes = re.compile(
        r"data_tools\.(?:folder .*?|sequence \S+ |synth |convert (?:\S+ )+?)(lmdb/\S+)(?= --| *$)"
    )
    found: dict[tuple[str, str], str] = {}
    for block in BLOCKS:
        for command in block.commands if block.kind == "shell" else ():
            for path in writes.findall(command) if excuse(command) is None else ():
                first = found.setdefault((block.page, path), command)
                assert first == command, f"{block.page}: {first}\n{command}"
    assert len(found) > 10


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("```sh\nls\n```", ["shell"]),
        ("a\n\n    python -m x y \\\n        z   # why\n\nb\n\n    caffe train", ["shell"] * 2),
        ("    import a\n    a.b()", ["python"]),
        ("```python\nx = 1\n```\n```\nlayer { }\n```", ["python", "other"]),
        ("- item\n\n    python -m x", []),
        ("    python -m caffe.convert: net: wrong", ["other"]),
    ],
)
def test_blocks_are_found(text, kinds, tmp_path, monkeypatch):
    monkeypatch.setattr(printed, "ROOT", tmp_path)
    (tmp_path / "a.md").write_text(text)
    found = printed.blocks(tmp_path / "a.md")
    assert [block.kind for block in found] == kinds
    if "why" in text:
        assert found[0].commands == ["python -m x y z"]


def test_a_command_that_fails_is_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    printed.run("python -m netgen sf1 > net.prototxt")
    assert Path("net.prototxt").read_text().startswith("# Made by: python -m netgen sf1\n")
    with pytest.raises(AssertionError, match=r"(?s)none\.prototxt.*ends with status 1: netgen: er"):
        printed.run("python -m netgen summary none.prototxt")
