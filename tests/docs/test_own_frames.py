"""docs/own_frames.md, from top to bottom: every command runs, in the page's order."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import printed
import pytest
from PIL import Image

from caffe.process.log import quiet

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "own_frames.md"
# What makes the walk short. The results are poor, the files are whole.
SHORTER = {
    "--count 400": "--count 24",
    "--every 10": "--every 4",
    "--width-multiplier 0.25": "--width-multiplier 0.02",
    "--max-iter 800 --test-interval 200 --snapshot 200": "--max-iter 2 --test-interval 2 "
    "--snapshot 2",
    "mine_iter_800": "mine_iter_2",
}
CVAT = """<?xml version="1.0" encoding="utf-8"?>
<annotations><version>1.1</version>
{}
</annotations>"""
IMAGE = """<image id="{n}" name="{name}" width="320" height="180">
<polygon label="{label}" points="10,10;300,10;300,170;10,170" z_order="0"></polygon></image>"""


def commands() -> list[str]:
    """The page's shell commands, shortened."""
    text = PAGE.read_text()
    assert all(long in text for long in SHORTER), "the page says other numbers than this test"
    found = [c for block in printed.blocks(PAGE) if block.kind == "shell" for c in block.commands]
    for long, short in SHORTER.items():
        found = [command.replace(long, short) for command in found]
    return found


def program() -> str:
    """The page's program."""
    (found,) = [block.text for block in printed.blocks(PAGE) if block.kind == "python"]
    return found


def _annotate(pairs: Path) -> str:
    """What CVAT exports for the pictures of a folder: one shape on each, of two labels."""
    files = sorted((pairs / "rgb").iterdir())
    images = [
        IMAGE.format(n=n, name=file.name, label=("wall", "floor")[n % 2])
        for n, file in enumerate(files)
    ]
    return CVAT.format("\n".join(images))


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder in which the whole page was walked; the working directory, too."""
    folder = tmp_path_factory.mktemp("walk")
    with pytest.MonkeyPatch.context() as patch, quiet():
        patch.chdir(folder)
        for command in commands():
            if "annotations.xml" in command:
                (folder / "annotations.xml").write_text(_annotate(folder / "pairs"))
            if "--label recording/label" in command:
                command += " --force"  # this is the other way to lmdb/mine
            (_serves if "eval_tools.live" in command else printed.run)(command)
        yield folder


def _serves(command: str) -> None:
    """The page of eval_tools.live is served until Ctrl-C."""
    words = [sys.executable, *shlex.split(command)[1:], "--port", "0"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        words, text=True, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as server:
        try:
            assert server.stdout is not None
            assert any("http://127.0.0.1:" in line for line in server.stdout)
        finally:
            server.send_signal(signal.SIGINT)
            server.wait(30)


def test_labels_and_pictures_have_the_frames_size(walk: Path) -> None:
    labels = [file for file in (walk / "labels").iterdir() if re.fullmatch(r"\d+\.png", file.name)]
    assert len(labels) == 24
    for file in (labels[0], walk / "labels" / "00000000_overlay.png"):
        assert cv2.imread(str(file)).shape == (180, 320, 3)


def test_the_video_has_every_frame(walk: Path) -> None:
    film = cv2.VideoCapture(str(walk / "labels.mp4"))
    count = 0
    while film.read()[0]:
        count += 1
    assert count == 24


def test_the_packed_model_knows_its_classes_and_figures(walk: Path) -> None:
    with zipfile.ZipFile(walk / "mine.fusenet") as archive:
        facts = json.loads(archive.read("model.json"))
    assert facts["classes"][1:3] == ["wall", "floor"]
    assert facts["figures"]
    assert (walk / "report.html").stat().st_size > 10_000


def test_the_program_labels_as_predict_does(walk: Path) -> None:
    found: dict[str, Any] = {}
    exec(compile(program(), str(PAGE), "exec"), found)
    told = np.array(Image.open(walk / "labels" / "00000003.png"))
    assert np.array_equal(found["labels"], told)
    assert (walk / "overlay.png").exists()


def test_the_onnx_file_says_what_it_is(walk: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(str(walk / "mine.onnx"))
    assert "classes" in session.get_modelmeta().custom_metadata_map
