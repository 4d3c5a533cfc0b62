"""Every text file is opened with its encoding named: it must not depend on the locale."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = (
    "boundary",
    "caffe",
    "caffe_patches",
    "netgen",
    "data_tools",
    "eval_tools",
    "fusenet",
    "examples",
    "docs",
)
SOURCES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
TEMPORARY = ("NamedTemporaryFile", "TemporaryFile")


def unnamed(source: str) -> list[int]:
    """The lines that open a text file without an encoding."""
    return [
        node.lineno
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and _is_unnamed(node)
    ]


def _is_unnamed(call: ast.Call) -> bool:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    given = {keyword.arg for keyword in call.keywords}
    if "encoding" in given or None in given:
        return False
    if name in ("read_text", "write_text") and isinstance(call.func, ast.Attribute):
        # pathlib's; functions of ours take an error or a message, too.
        return len(call.args) <= (name == "write_text")
    mode = next((keyword.value for keyword in call.keywords if keyword.arg == "mode"), None)
    if name == "open" and isinstance(call.func, ast.Name):
        mode = call.args[1] if len(call.args) > 1 else mode or ast.Constant("r")
    elif name in TEMPORARY:
        mode = call.args[0] if call.args else mode or ast.Constant("w+b")
    elif name in ("open", "fdopen"):  # pathlib's open, or os.fdopen
        places = call.args[name == "fdopen" :]
        mode = places[0] if places else mode or ast.Constant("r")
        if not isinstance(mode, ast.Constant) or not set(str(mode.value)) <= set("rwaxbt+"):
            return False  # another library's, which takes a path
    else:
        return False
    return isinstance(mode, ast.Constant) and "b" not in str(mode.value)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_sources_name_the_encoding(path):
    assert unnamed(path.read_text(encoding="utf-8")) == []


def test_the_walk_finds_what_it_looks_for():
    for line in ('open("x")', 'open("x", "w")', "p.read_text()", 'p.write_text("x")', "p.open()",
                 'p.open("a", buffering=1)', 'NamedTemporaryFile("w")'):  # fmt: skip
        assert unnamed(line) == [1], line
    for line in ('open("x", "rb")', "read_text(p, Bad)", "files.write_text(p, m)",
                 "Image.open(p)", 'p.open("wb")', 'p.read_text(encoding="utf-8")',
                 "NamedTemporaryFile()"):  # fmt: skip
        assert unnamed(line) == [], line


def test_dataset_json_is_utf8_whatever_the_locale(tmp_path):
    program = """
import sys
import numpy as np
from data_tools import store
from data_tools.record import to_datum
writer = store.Writer(sys.argv[1], "plan")
writer.put(store.key(0, "k\\u00fcche"), to_datum(np.ones((5, 2, 2), np.uint8)))
writer.finish({"classes": ["(ignored)", "t\\u00fcr"]})
assert store.Reader(sys.argv[1]).info["classes"][1] == "t\\u00fcr"
"""
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONPATH": str(ROOT)}
    result = subprocess.run([sys.executable, "-c", program, str(tmp_path / "db")],
                            env=environment, capture_output=True, text=True)  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "tür".encode() in (tmp_path / "db" / "dataset.json").read_bytes()
