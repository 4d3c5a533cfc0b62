"""Runs that are killed again and again lose nothing and do nothing twice."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from data_tools import build, store
from data_tools.build import Options, Output
from data_tools.record import RecordFormat
from data_tools.synth import Synth


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """What a run of killing.py's frames writes that nobody disturbs."""
    path = tmp_path_factory.mktemp("unbroken") / "db"
    source = Synth(200, (24, 18), 5)
    build.build(source, [Output(path, range(200))], RecordFormat(), {}, Options())
    return path


@pytest.mark.parametrize("workers", [1, 2])
def test_twenty_kills_leave_what_an_unbroken_run_writes(tmp_path, unbroken, workers):
    program = Path(__file__).with_name("killing.py")
    result = subprocess.run([sys.executable, program, tmp_path / "db", str(workers), "7"],
                            capture_output=True, text=True, timeout=600)  # fmt: skip
    assert result.returncode == 0, result.stderr
    told = json.loads(result.stdout.splitlines()[-1])
    counts = told["counts"]
    assert len(counts) == 20
    assert counts == sorted(counts)  # what was committed stays
    assert 0 < counts[-1] < 200
    assert len(set(counts)) > 2
    assert not told["published"]
    # The last run made what was missing, and nothing else.
    assert told["loads"] == 200 - counts[-1]
    assert list(store.Reader(tmp_path / "db")) == list(store.Reader(unbroken))
    assert store.read_info(tmp_path / "db") == store.read_info(unbroken)
    assert not (tmp_path / "db.fusenet-partial").exists()


def test_a_killed_replacement_loses_neither_the_old_lmdb_nor_the_new(tmp_path):
    program = Path(__file__).with_name("replacing.py")
    result = subprocess.run([sys.executable, program, tmp_path], capture_output=True, text=True,
                            timeout=600)  # fmt: skip
    assert result.returncode == 0, result.stderr
    told = json.loads(result.stdout.splitlines()[-1])
    assert len(told) > 4
    assert {found for found, *_ in told} == {"old", "", "new"}
    for found, later, last, left, inside in told:
        assert later == ("new" if found == "new" else "old")
        assert (last, left, inside) == ("new", ["db"], ["data.mdb", "dataset.json"])
