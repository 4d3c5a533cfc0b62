"""Files of the reference, as they stand: it trains here, its log and snapshots have their form."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

import caffe
from caffe.commands.cli import main
from caffe.data.datum import open_database, parse_datum
from caffe.formats import files
from caffe.proto import caffe_pb2 as pb

pytestmark = pytest.mark.usefixtures("fresh")

GOLDEN = Path(__file__).parents[2] / "golden" / "interop"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the folder, as the working directory, with room for snapshots."""
    shutil.copytree(GOLDEN, tmp_path / "run")
    (tmp_path / "run" / "snap").mkdir()
    monkeypatch.chdir(tmp_path / "run")
    return tmp_path / "run"


def _form(log: str) -> list[str]:
    """A log's lines without dates, times, threads, numbers, and what other threads put in."""
    lines = []
    for line in log.splitlines():
        head = re.match(r"([IWEF])\d{4,8} \d\d:\d\d:\d\d\.\d{6} +\d+ (\S+\]) ?", line)
        if head:
            text = re.sub(r"-?\d+(\.\d+)?(e[-+]\d+)?", "N", line[head.end() :])
            line = f"{head[1]} {head[2]} {text}"
        if "Restarting data prefetching" not in line:
            lines.append(line.rstrip())
    return lines


def test_the_log_has_the_references_form(folder: Path, capsys) -> None:
    assert main(["train", "-solver", "solver.prototxt"]) == 0
    *log, waited = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"caffe train: waited \S+ s for data, \S+% of \S+ s", waited)
    mine, theirs = _form("\n".join(log)), _form((GOLDEN / "reference_train.log").read_text())
    assert mine == theirs
    assert len(mine) > 250


def test_snapshots_are_laid_out_as_the_references(folder: Path) -> None:
    assert main(["train", "-solver", "solver.prototxt"]) == 0
    for iteration in (6, 12):
        for kind in ("caffemodel", "solverstate"):
            assert (folder / "snap" / f"tiny_iter_{iteration}.{kind}.h5").is_file()
    for kind in ("caffemodel", "solverstate"):
        assert _layout(folder / "snap" / f"tiny_iter_6.{kind}.h5") == _layout(
            GOLDEN / f"tiny_iter_6.{kind}.h5"
        )
    state = files.read_solver_state(folder / "snap" / "tiny_iter_6.solverstate.h5")
    assert (state.iter, state.learned_net) == (6, "snap/tiny_iter_6.caffemodel.h5")


def _layout(path: Path) -> dict[str, object]:
    found: dict[str, object] = {}

    def note(name: str, item: h5py.Dataset | h5py.Group) -> None:
        found[name] = (item.shape, item.dtype.kind) if isinstance(item, h5py.Dataset) else None

    with h5py.File(path) as file:
        file.visititems(note)
    return found


def test_the_references_snapshot_is_resumed(folder: Path, capsys) -> None:
    for name in ("tiny_iter_6.caffemodel.h5", "tiny_iter_6.solverstate.h5"):
        shutil.copy(GOLDEN / name, folder / "snap")
    arguments = ["train", "-solver", "solver.prototxt"]
    assert main([*arguments, "-snapshot", "snap/tiny_iter_6.solverstate.h5"]) == 0
    log = capsys.readouterr().err
    rates = re.findall(r"\] Iteration (\d+), lr = (\S+)", log)
    assert rates == [("6", "0.01"), ("8", "0.01"), ("10", "0.001")]
    assert (folder / "snap" / "tiny_iter_12.solverstate.h5").is_file()


def test_the_references_snapshot_in_pycaffe(folder: Path) -> None:
    solver = caffe.get_solver("solver.prototxt")
    solver.restore(str(GOLDEN / "tiny_iter_6.solverstate.h5"))
    assert solver.iter == 6
    with (
        h5py.File(GOLDEN / "tiny_iter_6.caffemodel.h5") as weights,
        h5py.File(GOLDEN / "tiny_iter_6.solverstate.h5") as state,
    ):
        for i, blob in enumerate(solver.net.params["ip"]):
            assert np.array_equal(blob.data, weights[f"data/ip/{i}"])
            assert np.array_equal(solver._history[i].data, state[f"history/{i}"])


def test_the_mean_is_subtracted(folder: Path) -> None:
    net = caffe.Net("train.prototxt", caffe.TEST)
    net.forward()
    mean = files.read_blob("mean.binaryproto")[0]
    _, value = next(open_database("train_lmdb", pb.DataParameter.LMDB).items())
    datum = parse_datum(value, "record")
    image = caffe.io.datum_to_array(datum).astype(np.float32)
    top, left = (image.shape[1] - 8) // 2, (image.shape[2] - 8) // 2
    cut = np.s_[:, top : top + 8, left : left + 8]
    expected = (image[cut] - mean[cut]) * 0.00390625
    assert np.allclose(net.blobs["data"].data[0], expected, atol=1e-6)
