"""Our lines in a text: where they go, and out again."""

import pytest

from caffe_patches import insertions
from caffe_patches.checkout import OVERLAY, load_pin
from caffe_patches.errors import PatchError
from caffe_patches.insertions import PARTS, PLACES, Insertion

TEXT = "head\nvoid f(\n    int x) {\n  body;\n}\ntail\n"


def insertion(place, anchor="void f", part="shuffle", file="a.cpp", lines=("ours",)):
    return Insertion(part, file, anchor, place, tuple(lines))


@pytest.mark.parametrize(
    ("place", "before", "after"),
    [
        ("before", "head\n", "void f("),
        ("after", "void f(\n", "    int x"),
        ("start", "int x) {\n", "  body;"),
        ("end", "  body;\n", "}\ntail"),
    ],
)
def test_the_places(place, before, after):
    text = insertions.insert(TEXT, [insertion(place)])
    block = "// begin fusenet shuffle\nours\n// end fusenet shuffle\n"
    assert before + block + after in text


@pytest.mark.parametrize("file", ["x.py", "Makefile", "CMakeLists.txt", "x.cmake"])
def test_marks_are_comments_of_the_files_language(file):
    text = insertions.insert(TEXT, [insertion("after", file=file)])
    assert "# begin fusenet shuffle\nours\n# end fusenet shuffle\n" in text


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_out_again_to_the_byte(ending):
    text = TEXT.replace("\n", ending)
    parts = [insertion(place, part=part) for place in PLACES for part in PARTS]
    patched = insertions.insert(text, parts)
    assert patched.count("ours" + ending) == len(parts)
    assert patched.count("\n") == patched.count(ending)
    pristine, taken = insertions.strip(patched)
    assert pristine == text
    assert sorted(taken) == sorted((part, ("ours",)) for _ in PLACES for part in PARTS)


def test_lines_at_one_place_keep_their_order():
    first, second = insertion("after", lines=("1",)), insertion("after", part="toolchain")
    text = insertions.insert(TEXT, [first, second])
    assert text.index("\n1\n") < text.index("\nours\n")


def test_a_missing_anchor_is_named():
    with pytest.raises(PatchError, match=r"^a.cpp: anchor 'void g' is there 0 times"):
        insertions.insert(TEXT, [insertion("after", anchor="void g")])
    with pytest.raises(PatchError, match=r"^a.cpp: anchor 'tail' is followed by no block"):
        insertions.insert(TEXT, [insertion("end", anchor="tail")])


@pytest.mark.parametrize(
    "damaged",
    [
        "// begin fusenet shuffle\nours\n",
        "ours\n// end fusenet shuffle\n",
        "// begin fusenet shuffle\n// end fusenet toolchain\n",
        "// begin fusenet shuffle\n// begin fusenet shuffle\n// end fusenet shuffle\n",
    ],
)
def test_half_a_pair_of_marks_is_refused(damaged):
    with pytest.raises(PatchError, match=r"fusenet (shuffle|toolchain)"):
        insertions.strip(TEXT + damaged)


@pytest.mark.parametrize("part", PARTS)
def test_the_data(part):
    loaded = insertions.load(part)
    assert loaded
    pin = load_pin()
    for entry in loaded:
        assert entry.part == part
        assert entry.place in PLACES
        assert entry.file in pin.files
        assert entry.lines
        # Caffe's lint: 80 columns (its Makefile and proto keep to them, too).
        assert max(map(len, entry.lines)) <= 80
        assert "fusenet" not in "\n".join(entry.lines)


def test_every_pinned_file_is_touched():
    touched = {entry.file for part in PARTS for entry in insertions.load(part)}
    assert touched == set(load_pin().files)


def test_overlay_files_belong_to_one_part_and_touch_none_of_caffes():
    paths = [p.relative_to(OVERLAY).parts for p in OVERLAY.rglob("*") if p.is_file()]
    paths = [(p[0], "/".join(p[1:])) for p in paths if "__pycache__" not in p]
    assert {part for part, _ in paths} == set(PARTS)
    names = [path for _, path in paths]
    assert len(names) == len(set(names))
    assert not set(names) & set(load_pin().files)
