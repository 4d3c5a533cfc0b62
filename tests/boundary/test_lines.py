"""lines: what fits a terminal's width, and where longer lines are broken."""

from __future__ import annotations

import pytest

from boundary.lines import fit, fold

PARTS = [(0, "120/4000"), (2, "3%"), (1, "loss 0.4321"), (3, ""), (4, "98 images/s")]


@pytest.mark.parametrize(
    ("width", "line"),
    [
        (38, "120/4000  3%  loss 0.4321  98 images/s"),
        (37, "120/4000  3%  loss 0.4321"),
        (24, "120/4000  loss 0.4321"),
        (20, "120/4000"),
        (7, ""),
    ],
)
def test_a_line_loses_its_least_important_parts(width: int, line: str) -> None:
    assert fit(PARTS, width) == line


def test_lines_are_broken_between_parts() -> None:
    assert fold("test: ", ["a 1", "b 2", "c 3"], None) == ["test: a 1  b 2  c 3"]
    assert fold("test: ", ["a 1", "b 2", "c 3"], 14) == ["test: a 1  b 2", "    c 3"]
    assert fold("net  ", ["one", "two", "three"], 15, ", ", 5) == ["net  one, two,", "     three"]


def test_the_mark_at_a_break_needs_its_column() -> None:
    assert fold("", ["12345", "67890"], 12, "; ") == ["12345; 67890"]
    assert fold("", ["12345", "67890", "x"], 12, "; ") == ["12345;", "    67890; x"]


def test_a_part_wider_than_a_line_is_broken_at_spaces_alone() -> None:
    told = ["stopped early by one", "a/very/long/path/of/a/file"]
    assert fold("at 9: ", told, 16, ", ") == [
        "at 9: stopped",
        "    early by",
        "    one,",
        "    a/very/long/path/of/a/file",
    ]


def test_the_indent_leaves_room_on_a_narrow_terminal() -> None:
    assert fold("parameters  ", ["1 learned", "2 frozen"], 15, ", ", 12)[-1] == "     2 frozen"


def test_a_word_that_does_not_fit_behind_the_head_gets_a_line_of_its_own() -> None:
    assert fold("saved at 60: ", ["run/sf5.caffemodel"], 24) == [
        "saved at 60:",
        "    run/sf5.caffemodel",
    ]
    # Behind a column of heads it would have no more room.
    assert fold("net         ", ["x" * 20], 24, ", ", 12)[0].startswith("net         xx")


def test_names_cannot_act_on_the_terminal() -> None:
    for width in (None, 40):
        assert fold("net ", ["a\nb", "\x1b[2Jc"], width) == ["net a b   [2Jc"]
