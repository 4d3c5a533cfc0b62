"""docs/convert.md: its programs run as they stand."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import caffe
from netgen.cli import main as netgen

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "convert.md").read_text(encoding="utf-8")


def program(start: str) -> str:
    """The Python block of the page that begins with `start`."""
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    (found,) = [block for block in blocks if block.startswith(start)]
    return found


@pytest.fixture
def model(tmp_path, monkeypatch, capsys) -> Path:
    """A folder, the current one, with deploy.prototxt and net.caffemodel of a narrow SF5."""
    monkeypatch.chdir(tmp_path)
    arguments = ["sf5", "--deploy", "--classes", "5", "--width-multiplier", "0.05"]
    assert netgen(arguments) == 0
    Path("deploy.prototxt").write_text(capsys.readouterr().out)
    caffe.set_random_seed(3)
    net = caffe.Net("deploy.prototxt", caffe.TEST)
    for layer in net.layers:
        if layer.type == "BatchNorm":
            for blob, value in zip(layer.blobs, (0, 1, 1), strict=True):
                blob.data[...] = value
    net.save("net.caffemodel")
    return tmp_path


@pytest.mark.usefixtures("model")
def test_a_net_as_a_module() -> None:
    names: dict = {}
    exec(program("import torch\nimport caffe"), names)
    assert names["prob"].shape == (1, 6, 240, 320)
    assert names["module"].training
