"""bench.start: which commands it starts, and its table."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bench import start


def test_all_commands_are_among_them() -> None:
    found = start.starts()
    for name in ("caffe --help", "data_tools.folder --help", "eval_tools.live --help"):
        assert found[name] == ["-m", name.split()[0], "--help"]
    program, option = found["examples/faster_rcnn.py --help"]
    assert (Path(program), option) == (start.ROOT / "examples" / "faster_rcnn.py", "--help")
    assert "examples/regions.py --help" not in found
    assert {"netgen sf5", "data_tools.inspect LMDB", "eval_tools.curves LOG"} <= found.keys()


def test_the_table(capsys) -> None:
    start.main(["--rounds", "1", "caffe_patches"])
    head, row = capsys.readouterr().out.splitlines()
    assert head.split() == ["least", "median"]
    assert re.fullmatch(r" *(\d+\.\d\d) +\1  caffe_patches --help", row)
    with pytest.raises(SystemExit):
        start.main(["no_such_command"])
    assert "no command has no_such_command in its name" in capsys.readouterr().err
