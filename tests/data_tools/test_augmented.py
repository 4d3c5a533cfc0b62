"""data_tools.inspect --augment draws what training sees."""

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from google.protobuf import json_format

import caffe
from caffe.process import log
from caffe.proto.caffe_pb2 import TransformationParameter
from data_tools import augmented, store
from data_tools.cli import DataError
from data_tools.record import to_datum
from netgen import augment

HEIGHT, WIDTH, COUNT = 40, 60, 7
HOW = "scale=0.75:1.5,rotate=20,depth=0.5:2,crop=48x36,brightness=0.5,hue=0.1,mirror"


@pytest.fixture
def db(tmp_path):
    """db(records, **info) writes them under numbers; a random record each by default."""

    def write(records=None, **info):
        if records is None:
            rng = np.random.default_rng(0)
            records = rng.integers(0, 200, (COUNT, 5, HEIGHT, WIDTH), np.uint8)
            records[:, 4] = 1 + records[:, 4] % 2
        writer = store.Writer(tmp_path / "db", "plan")
        for i, record in enumerate(records):
            writer.put(b"%08d_a" % i, to_datum(record))
        writer.finish({"classes": ["(ignored)", "wall", "floor"], **info})
        return "db"

    return write


def prototxt(how: str = HOW, more: str = "", source: str = "elsewhere") -> str:
    """A net whose only layer reads an LMDB, as netgen's does."""
    transform = json_format.ParseDict(augment.parse(how) if how else {}, TransformationParameter())
    return (
        'layer { name: "data" type: "Data" top: "data" include { phase: TRAIN } '
        f'data_param {{ source: "{source}" backend: LMDB batch_size: 3 shuffle: true }} '
        f"transform_param {{ {transform} {more} }} }}"
    )


@pytest.fixture
def net(tmp_path):
    def write(*args, **options) -> str:
        (tmp_path / "net.prototxt").write_text(prototxt(*args, **options))
        return "net.prototxt"

    return write


@pytest.mark.parametrize("seed", [0, 5])
@pytest.mark.parametrize("more", ["", "mean_value: 20 scale: 0.5"])
def test_records_are_those_of_the_first_epoch(db, net, tmp_path, monkeypatch, seed, more) -> None:
    """The same values in the same order as a solver with that seed gets; means and scale apart."""
    monkeypatch.chdir(tmp_path)
    path, prototxt = db(), net(more=more)
    with log.quiet():
        found = list(augmented.seen(augmented.data_layer(prototxt), path, 6, seed))
        caffe.set_random_seed(seed)
        Path("own.prototxt").write_text(Path(prototxt).read_text().replace("elsewhere", path))
        trained = caffe.Net("own.prototxt", caffe.TRAIN)
        batches = [trained.forward()["data"].copy() for _ in range(2)]
    seen = np.stack([record.seen for record in found])
    assert seen.shape == (6, 5, 36, 48)
    np.testing.assert_allclose((seen - 20) * 0.5 if more else seen, np.concatenate(batches))
    reader = store.Reader(path)
    for record in found:
        datum = caffe.proto.caffe_pb2.Datum.FromString(reader.get(record.key))
        assert datum.data == record.stored.tobytes()
    assert len({record.key for record in found}) == 6


def test_an_epoch_is_shown_once(db, net, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = list(augmented.seen(augmented.data_layer(net()), db(), 100, 0))
    assert len({record.key for record in found}) == len(found) == COUNT


def test_the_sheet_shows_both(db, net, command, tmp_path) -> None:
    """A record of one colour, whose left half is labelled; doubled, all of it is."""
    record = np.zeros((5, HEIGHT, WIDTH), np.uint8)
    record[:3] = np.array([10, 20, 30])[:, None, None]
    record[3], record[4, :, : WIDTH // 2] = 100, 1
    palette = [[0, 0, 0], [200, 100, 50], [1, 1, 1]]
    path = db([record], palette=palette, options={"depth_range": "0:10"})
    done = command("inspect", path, "--augment", net("depth=2:2,crop=30x20"), "out.png")
    assert done.stdout == (
        "out.png: the first 1 records of the first epoch, as stored and as layer data of "
        "net.prototxt gives them in training with random_seed: 0 in the solver\n"
    )
    sheet = cv2.imread(str(tmp_path / "out.png"))
    height = round(200 * HEIGHT / WIDTH)
    assert sheet.shape == (18 + height, 3 * 200 + 10 + 3 * 100, 3)
    middle = 18 + 30
    assert sheet[middle, 100].tolist() == [10, 20, 30]
    assert sheet[middle, 400 + 50].tolist() == [50, 100, 200]
    assert sheet[middle, 400 + 150].tolist() == [0, 0, 0]
    assert (sheet[18:, 600:610] == 255).all()
    assert sheet[middle, 610 + 50].tolist() == [10, 20, 30]
    colors = cv2.applyColorMap(np.array([[100, 200]], np.uint8), cv2.COLORMAP_VIRIDIS)[0]
    assert sheet[middle, 200 + 20].tolist() == colors[0].tolist()
    assert sheet[middle, 610 + 100 + 20].tolist() == colors[1].tolist()
    # The crop is a third lower than half of the record: the rest of its row is empty.
    assert (sheet[18 + round(100 * 20 / 30) :, 610:] == 255).all()


def test_what_changes_nothing_is_said(db, net, command, tmp_path) -> None:
    path = db()
    for how, more, silent in (("", "scale: 0.5", False), ("mirror", "", True)):
        done = command("inspect", path, "--augment", net(how, more), "--frames", "2")
        said = "warning: net.prototxt: its layer data changes no record" in done.stderr
        assert said is not silent
        assert (tmp_path / "augment.png").exists()


def test_bad_input_and_usage(db, net, command, tmp_path) -> None:
    path = db()
    prototxt = net()
    named = tmp_path / "net.png"  # a net may have such a name
    named.write_text(Path(prototxt).read_text())
    (tmp_path / "test.prototxt").write_text(Path(prototxt).read_text().replace("TRAIN", "TEST"))
    (tmp_path / "bad.prototxt").write_text(Path(prototxt).read_text().replace("0.75", "9.75"))
    for arguments, message in (
        ([path, "--augment", "none.prototxt"], "none.prototxt: No such file"),
        ([path, "--augment", "test.prototxt"], "test.prototxt: has no layer of type Data in phase"),
        ([path, "--augment", "bad.prototxt"], "min_scale 9.75 and max_scale 1.5; expected 0 <"),
        ([path, "--augment", named, named], "--augment would overwrite the net"),
    ):
        err = command("inspect", *arguments, code=1).stderr
        assert message in err
        assert err.count("\n") == 1
    for arguments, message in (
        (["--augment", prototxt, "--html", "a"], "--augment takes the place of --sheet, --html"),
        (["--augment", prototxt, "other.prototxt"], "other.prototxt does not end in .png"),
        (["--augment", prototxt, "b.png", "c.png"], "--augment takes NET and OUT.png, got 3 files"),
        (["--seed", "4"], "--seed goes with --augment"),
    ):
        assert message in command("inspect", path, *arguments, code=2).stderr


def test_records_of_other_channels(db, net, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = db([np.zeros((3, HEIGHT, WIDTH), np.uint8)])
    with pytest.raises(DataError, match="db: record 00000000_a: 3 channels, expected 5"):
        list(augmented.seen(augmented.data_layer(net("mirror")), path, 1, 0))


def test_the_report_loads_no_torch(db, tmp_path) -> None:
    code = (
        "import sys; from data_tools import inspect; inspect.main(); "
        "print('torch' in sys.modules, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / db())], capture_output=True, text=True
    )
    assert done.stderr.splitlines()[-1] == "False"
