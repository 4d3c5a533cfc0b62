"""convert_imageset: the records that the reference's tool writes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from caffe.formats import db
from caffe.proto import caffe_pb2 as pb
from caffe.tools.convert_imageset import main

INTEROP = Path(__file__).parents[2] / "golden" / "interop"


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of three pictures, 4x5, and a list of them."""
    folder = tmp_path / "img"
    (folder / "sub").mkdir(parents=True)
    colours = np.random.default_rng(0).integers(0, 255, (4, 5, 3), np.uint8)
    cv2.imwrite(str(folder / "c.png"), colours)
    cv2.imwrite(str(folder / "sub" / "a b.bmp"), colours[::-1])
    cv2.imwrite(str(folder / "j.jpeg"), colours)
    (tmp_path / "list.txt").write_text("c.png 3\nsub/a b.bmp -1\r\nj.jpeg 0\n\n")
    return tmp_path


def convert(root: Path, *flags: str) -> dict[str, pb.Datum]:
    """The records made of the pictures."""
    out = root / f"lmdb{len(list(root.iterdir()))}"
    assert main([*flags, f"{root}/img/", f"{root}/list.txt", str(out)]) == 0
    database = db.Database.open(out, "leveldb" if "leveldb" in flags else "lmdb")
    return {key.decode(): pb.Datum.FromString(value) for key, value in database.items()}


def pixels(root: Path, name: str, flags: int = cv2.IMREAD_COLOR) -> np.ndarray:
    return cv2.imread(str(root / "img" / name), flags)


def test_records_equal_the_references(tmp_path: Path) -> None:
    out = str(tmp_path / "lmdb")
    command = [sys.executable, "-m", "caffe.tools.convert_imageset"]
    command += [f"{INTEROP}/img/", f"{INTEROP}/list.txt", out]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == ""
    assert "convert_imageset.cpp:89] A total of 6 images." in done.stderr
    assert "convert_imageset.cpp:153] Processed 6 files." in done.stderr
    ours, reference = (db.Database.open(p) for p in (out, INTEROP / "train_lmdb"))
    assert list(ours.items()) == list(reference.items())


def test_colour_records(pictures: Path) -> None:
    records = convert(pictures)
    assert list(records) == ["00000000_c.png", "00000001_sub/a b.bmp", "00000002_j.jpeg"]
    assert [datum.label for datum in records.values()] == [3, -1, 0]
    datum = records["00000000_c.png"]
    assert (datum.channels, datum.height, datum.width) == (3, 4, 5)
    assert datum.data == pixels(pictures, "c.png").transpose(2, 0, 1).tobytes()
    assert datum.HasField("encoded")
    assert not datum.encoded


def test_gray_and_resize(pictures: Path) -> None:
    datum = convert(pictures, "-gray", "-resize_height=8", "-resize_width", "6")["00000000_c.png"]
    expected = cv2.resize(pixels(pictures, "c.png", cv2.IMREAD_GRAYSCALE), (6, 8))
    assert (datum.channels, datum.height, datum.width) == (1, 8, 6)
    assert datum.data == expected.tobytes()


def test_one_size_alone_does_not_resize(pictures: Path) -> None:
    datum = convert(pictures, "-resize_height=8")["00000000_c.png"]
    assert (datum.height, datum.width) == (4, 5)


def test_encoded_files_are_stored_as_they_are(pictures: Path) -> None:
    records = convert(pictures, "-encoded")
    for key, datum in records.items():
        assert datum.encoded
        assert datum.data == (pictures / "img" / key[9:]).read_bytes()
        assert not datum.HasField("channels")


def test_encode_type(pictures: Path) -> None:
    """Files that have the type already are stored unchanged; .jpeg counts as jpg."""
    records = convert(pictures, "-encode_type=png")
    assert records["00000000_c.png"].data == (pictures / "img" / "c.png").read_bytes()
    bitmap = records["00000001_sub/a b.bmp"]
    decoded = cv2.imdecode(np.frombuffer(bitmap.data, np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(decoded, pixels(pictures, "sub/a b.bmp"))
    assert bitmap.data[:4] == b"\x89PNG"
    records = convert(pictures, "-encode_type=jpg")
    assert records["00000002_j.jpeg"].data == (pictures / "img" / "j.jpeg").read_bytes()


def test_shuffle_keeps_pictures_with_their_labels(pictures: Path) -> None:
    lines = "".join(f"c.png {label}\n" for label in range(50))
    (pictures / "list.txt").write_text(lines)
    labels = [datum.label for datum in convert(pictures, "-shuffle").values()]
    assert sorted(labels) == list(range(50))
    assert labels != list(range(50))  # one order in 50! is the sorted one


def test_leveldb(pictures: Path) -> None:
    pytest.importorskip("plyvel", reason="LevelDB needs the extra package plyvel")
    assert convert(pictures, "-backend", "leveldb") == convert(pictures)


def test_unreadable_pictures_are_logged_and_left_out(pictures: Path, capfd) -> None:
    (pictures / "img" / "c.png").write_bytes(b"no picture")
    with (pictures / "list.txt").open("a") as file:
        file.write("none.png 4\n")
    assert list(convert(pictures)) == ["00000001_sub/a b.bmp", "00000002_j.jpeg"]
    errors = [line for line in capfd.readouterr().err.splitlines() if line[0] == "E"]
    assert len(errors) == 2
    said = f"io.cpp:80] Could not open or find file {pictures}/img/c.png: not a picture that can"
    assert said in errors[0]


@pytest.mark.parametrize(
    ("text", "flags", "error"),
    [
        (
            "c.png 1\nj.jpeg one\n",
            (),
            "list.txt:2: label 'one' is no integer; expected: path label",
        ),
        ("c.png\n", (), "list.txt:1: label 'c.png' is no integer"),
        ("7\n", (), "list.txt:1: no path; expected"),
        ("\n", (), "list.txt: lists no pictures"),
        ("none.png 1\n", (), "list.txt: none of its 1 pictures could be read"),
        ("c.png 1\n", ("-encode_type=xyz",), "c.png: cannot be encoded as 'xyz'"),
        ("c.png 1\n", ("-backend=sql",), "backend 'sql'; expected lmdb or leveldb"),
    ],
)
def test_bad_input(pictures: Path, capfd, text: str, flags: tuple[str, ...], error: str) -> None:
    (pictures / "list.txt").write_text(text)
    out = pictures / "out"
    assert main([*flags, f"{pictures}/img/", f"{pictures}/list.txt", str(out)]) == 1
    last = capfd.readouterr().err.splitlines()[-1]
    assert last.startswith("convert_imageset: ")
    assert error in last
    assert not out.exists()


def test_check_size(pictures: Path, capfd) -> None:
    cv2.imwrite(str(pictures / "img" / "j.jpeg"), np.zeros((2, 2, 3), np.uint8))
    arguments = ["-check_size", f"{pictures}/img/", f"{pictures}/list.txt", f"{pictures}/out"]
    assert main(arguments) == 1
    assert "j.jpeg: 3x2x2; expected 3x4x5 as the first" in capfd.readouterr().err


def test_usage(capfd) -> None:
    assert main(["one", "two"]) == 2
    assert "expected ROOTFOLDER/ LISTFILE DB_NAME, got 2 arguments" in capfd.readouterr().err
    assert main(["-grey", "a", "b", "c"]) == 2
    assert capfd.readouterr().err == "ERROR: unknown command line flag 'grey'\n"
