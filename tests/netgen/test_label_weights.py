"""Label weights: the published tables, and files."""

from __future__ import annotations

import csv
import statistics
from pathlib import Path

import pytest

from caffe.errors import CaffeError
from netgen.datasets import DATASETS
from netgen.label_weights import choose, read

FACTS = Path(__file__).parents[3] / "shared" / "facts"


@pytest.mark.parametrize("name", ["nyuv2-40", "nyuv2-13", "sunrgbd-37"])
def test_published_weights_have_the_median_one(name: str) -> None:
    dataset = DATASETS[name]
    assert len(dataset.weights) == len(dataset.names) == dataset.classes + 1 == int(name[-2:]) + 1
    assert dataset.names[0] == "(ignored)"
    # weight(c) = (1 / f(c)) / median(1 / f): the median label weighs 1. For an even number of
    # labels the median is the mean of the middle two, to the tables' six digits.
    assert statistics.median(dataset.weights) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("nyuv2-40", "nyuv2_40class"),
        ("nyuv2-13", "nyuv2_13class"),
        ("sunrgbd-37", "sunrgbd_37class"),
    ],
)
def test_tables_are_the_published_ones(name: str, file: str) -> None:
    path = FACTS / f"{file}.csv"
    if not path.exists():
        pytest.skip(f"no table {path}")
    with path.open() as lines:
        rows = [(row["name"], float(row["paper_weight"])) for row in csv.DictReader(lines)]
    assert list(DATASETS[name].labels) == rows


def test_scannet_has_the_labels_of_nyuv2_and_no_weights() -> None:
    assert DATASETS["scannet-40"].names == DATASETS["nyuv2-40"].names
    assert DATASETS["scannet-40"].weights is None


def test_defaults_are_what_the_authors_trained_with() -> None:
    for name, dataset in DATASETS.items():
        weights = choose(None, dataset, dataset.classes)
        assert weights == (dataset.weights if name == "sunrgbd-37" else None)
    assert choose(None, None, 5) is None


def test_choices() -> None:
    nyuv2 = DATASETS["nyuv2-13"]
    assert choose("paper", nyuv2, 13) == nyuv2.weights
    assert choose("none", DATASETS["sunrgbd-37"], 37) is None
    for dataset in (DATASETS["scannet-40"], None):
        with pytest.raises(CaffeError, match="no label weights were published for"):
            choose("paper", dataset, 40)


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "weights.txt"
    path.write_text("# label 0\n0.5, 1e0\n 2\t3 # the rest\n\n")
    assert read(str(path), 3) == (0.5, 1, 2, 3)
    assert choose(str(path), DATASETS["nyuv2-13"], 3) == (0.5, 1, 2, 3)


def test_files_as_other_programs_save_them(tmp_path: Path) -> None:
    path = tmp_path / "weights.txt"
    for text, encoding in (("1;2.5;3;4\r\n", "utf-8-sig"), ("1\t2.5\n3, 4", "utf-16")):
        path.write_text(text, encoding=encoding, newline="")
        assert read(str(path), 3) == (1, 2.5, 3, 4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 2 3", "weights.txt: 3 numbers for 3 classes; expected 4, one a label"),
        ("1 2\n3 wall", "weights.txt:2: 'wall' is not a number from 0 up"),
        ("1 2 3 -4", "weights.txt:1: '-4' is not a number"),
        ("1 2 3 nan", "weights.txt:1: 'nan' is not a number"),
    ],
)
def test_files_that_do_not_fit(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "weights.txt"
    path.write_text(text)
    with pytest.raises(CaffeError, match=message):
        read(str(path), 3)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(CaffeError, match="none: No such file or directory"):
        read(str(tmp_path / "none"), 3)
    (tmp_path / "binary").write_bytes(b"1\n\xfc\x00")
    with pytest.raises(CaffeError, match="binary:2: not UTF-8"):
        read(str(tmp_path / "binary"), 3)
