"""Anchors and blocks in source texts."""

import pytest

from caffe_patches import anchors
from caffe_patches.errors import PatchError


def test_an_anchor_is_whole_words():
    text = "message V1LossParameter { }\nmessage LossParameter { }\nmessage LossParameters { }\n"
    assert text[anchors.find_once(text, "message LossParameter") :].startswith(" { }\nmessage L")


@pytest.mark.parametrize(("text", "times"), [("nothing", 0), ("Init Init", 2), ("Initial", 0)])
def test_an_anchor_is_there_once(text, times):
    with pytest.raises(PatchError, match=f"is there {times} times, expected once"):
        anchors.find_once(text, "Init")


def test_an_anchor_may_end_in_a_sign():
    assert anchors.find_once("DEBUG_DIR\nDEBUG ?= 0\n", "DEBUG ?=") == 18


def test_lines_of_an_offset():
    text = "one\ntwo\nthree"
    assert anchors.line_start(text, 5) == 4
    assert anchors.line_end(text, 5) == 8
    assert anchors.line_start(text, 2) == 0
    assert anchors.line_end(text, 9) == len(text)


@pytest.mark.parametrize(
    "inner",
    ["", "a { b } c", "// }\n", "/* } \n } */", '"}"', r'"\"}"', "'}'", "don't /* ' */ { }"],
)
def test_a_block_ends_at_its_own_brace(inner):
    text = f"f() {{{inner}}} }} {{ }}"
    opening, closing = anchors.block(text, 0)
    assert (opening, closing) == (4, 5 + len(inner))


@pytest.mark.parametrize("text", ["f();", "f() { {", "f() { // }\n"])
def test_no_block(text):
    with pytest.raises(PatchError, match="followed by no block"):
        anchors.block(text, 0)
