"""Names, colours and the choice of labels."""

import numpy as np
import pytest

from data_tools.cli import DataError
from eval_tools.labels import SCANNET_20, label_set, parse_classes


def test_names_from_dataset_json_else_numbers():
    info = {"classes": ["(ignored)", "a", "b"], "palette": [[0, 0, 0], [1, 2, 3], [4, 5, 6]]}
    labels = label_set(3, info)
    assert labels.names == ("(ignored)", "a", "b")
    assert labels.colors[2].tolist() == [4, 5, 6]
    # Of another number of classes: not this net's.
    assert label_set(4, info).names == ("(ignored)", "1", "2", "3")


def test_names_from_files_and_benchmarks(tmp_path):
    for text in ("wall\nbed\n", "void\nwall\nbed\n"):
        (tmp_path / "names.txt").write_text(text)
        assert label_set(3, {}, tmp_path / "names.txt").names[1:] == ("wall", "bed")
    (tmp_path / "t.csv").write_text("label,name,r,g,b\n1,wall,9,8,7\n2,bed,6,5,4\n")
    table = label_set(3, {}, tmp_path / "t.csv")
    assert table.names[1:] == ("wall", "bed")
    assert table.colors[1].tolist() == [9, 8, 7]
    assert label_set(41, {}, "nyuv2-40").names[5] == "chair"
    with pytest.raises(DataError, match=r"--names nyuv2-13: 14 names, .* 40 classes"):
        label_set(41, {}, "nyuv2-13")


def test_scored_labels_and_their_ranks():
    labels = label_set(41, {}, "nyuv2-40", SCANNET_20)
    assert len(labels.scored) == 20
    assert labels.scored_names[-1] == "otherfurniture"
    # 13 (blinds) does not count, so 14 (desk) comes right after 12 (counter).
    assert labels.ranks[[0, 12, 13, 14, 39, 40]].tolist() == [0, 12, 0, 13, 20, 0]
    assert np.array_equal(label_set(41, {}).ranks[:41], np.arange(41))


def test_classes_as_they_are_typed():
    assert parse_classes("scannet-20") == SCANNET_20
    assert parse_classes("1-3, 7") == (1, 2, 3, 7)
    with pytest.raises(ValueError, match="neither scannet-20 nor labels"):
        parse_classes("wall")


@pytest.mark.parametrize("text", ["3-1", "1,5-4", "1-256", "1-99999999999999"])
def test_ranges_of_classes_without_labels_are_refused(text):
    with pytest.raises(ValueError, match="names no labels below 256, the lower one first"):
        parse_classes(text)
