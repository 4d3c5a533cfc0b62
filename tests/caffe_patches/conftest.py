"""A miniature of Caffe's tree: text of our own that has every anchor of the insertions."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from caffe_patches import checkout, insertions
from caffe_patches.checkout import Pin

# Braces in comments and literals must not be taken for the block's.
BODY = """  // a brace that opens nothing: {
  const char* text = "} \\" }";  /* } */
  if (depth) { nested('}'); }
"""


class Miniature:
    """The tree in root, and the pin that its files fulfil."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.pin = Pin(commit="0" * 40, files={})
        loaded = [i for part in insertions.PARTS for i in insertions.load(part)]
        for path in dict.fromkeys(insertion.file for insertion in loaded):
            text = _text(path, [i for i in loaded if i.file == path])
            self.write(path, text.encode())
            self.pin.files[path] = hashlib.sha256(text.encode()).hexdigest()
        (root / "python/caffe/io.py").chmod(0o755)

    def write(self, path: str, data: bytes) -> None:
        """Makes a file of the tree."""
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_bytes(data)

    def edit(self, path: str, old: str, new: str) -> None:
        """Replaces text that is in the file exactly once."""
        text = (self.root / path).read_text()
        assert text.count(old) == 1
        (self.root / path).write_text(text.replace(old, new))

    def snapshot(self) -> dict[str, tuple[bytes, int]]:
        """Every file: bytes and permissions."""
        return {
            path.relative_to(self.root).as_posix(): (path.read_bytes(), path.stat().st_mode)
            for path in sorted(self.root.rglob("*"))
            if path.is_file()
        }

    def run(self, *arguments: str, prelude: str = "") -> subprocess.CompletedProcess[str]:
        """The command in a process of its own, after the prelude's statements."""
        program = f"""
import os, signal, sys
from caffe_patches import checkout, cli
checkout.load_pin = lambda: checkout.Pin({self.pin.commit!r}, {json.dumps(self.pin.files)})
{prelude}
sys.exit(cli.main({[arguments[0], str(self.root), *arguments[1:]]!r}))
"""
        return subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )


@pytest.fixture
def miniature(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Miniature:
    tree = Miniature(tmp_path / "caffe")
    monkeypatch.setattr(checkout, "load_pin", lambda: tree.pin)
    return tree


def _text(path: str, wanted: list[insertions.Insertion]) -> str:
    """A file that holds each of its anchors once, and as a part of another word once more."""
    lines = [f"first line of {path}\n"]
    for anchor, place in {insertion.anchor: insertion.place for insertion in wanted}.items():
        if place in ("start", "end"):
            lines.append(f"{anchor}(arguments)\n    : more(of, it) {{\n{BODY}}}\n")
        else:
            lines.append(f"a line with {anchor} in it\n")
        if anchor[-1].isalnum():
            lines.append(f"no{anchor}er\n")
    return "".join(lines)
