"""Patterns of file names with several wildcards: files, and the names that pair them."""

from __future__ import annotations

import pytest

from data_tools import files, folder, pattern
from data_tools.cli import DataError
from data_tools.folder import Files
from eval_tools.frames import Source

SUFFIXES = (".png",)


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """Makes empty files below the working directory."""
    monkeypatch.chdir(tmp_path)

    def make(*names: str) -> None:
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()

    return make


@pytest.mark.parametrize(
    ("where", "names"),
    [
        ("in/f_*.png", ["1_a", "2_a", "2_b"]),
        ("in/*_*_*.png", ["f/1/a", "f/2/a", "f/2/b"]),
        ("in/f_?_*.png", ["1/a", "2/a", "2/b"]),
        ("in/f_[0-9]*.png", ["1_a", "2_a", "2_b"]),  # one text, as no other stands between
        ("in/f_[!1]_?.png", ["2/a", "2/b"]),
        ("./in//f_2_[a].png", ["a"]),
        ("*/f_1_a.png", ["in"]),
        ("**/f_*_b.png", ["in/2"]),
        ("in/**/f_2_*.png", ["a", "b"]),
        ("**/*_c.png", ["in/deep/er/g"]),
    ],
)
def test_what_the_wildcards_match_is_the_name(tree, where, names):
    tree("in/f_1_a.png", "in/f_2_a.png", "in/f_2_b.png", "in/deep/er/g_c.png")
    (folder.Path("in") / "f_9_folder.png").mkdir()
    found = files.find(where, SUFFIXES)
    assert list(found) == names
    assert all(path.is_file() for path in found.values())


def test_files_of_two_patterns_are_paired(tree):
    tree(*(f"{s}/{kind}/x{n}.png" for s in "ab" for kind in ("rgb", "depth") for n in (1, 10, 2)))
    files = Files("*/rgb/x*.png", "*/depth/x*.png", None, None)
    assert files.names == [f"{s}/{n}" for s in "ab" for n in (1, 2, 10)]
    # Predictions have the files' own names, which lie in several folders.
    pairs = Source("*/rgb/x*.png", "*/depth/x*.png").pairs()
    assert list(pairs) == [f"{s}/rgb/x{n}" for s in "ab" for n in (1, 2, 10)]
    assert pairs["b/rgb/x2"]["depth"].as_posix() == "b/depth/x2.png"
    assert list(Source("a/rgb/*[1-2].png", "a/depth/*[1-2].png").pairs()) == ["x1", "x2"]


def test_a_folder_whose_name_holds_brackets_is_no_pattern(tree):
    tree("run[1]/a_rgb.png", "run[1]/b_rgb.png", "run1/c_rgb.png")
    assert list(files.find("run[1]/*_rgb.png", SUFFIXES)) == ["a", "b"]
    assert pattern.folder("run[1]/*_rgb.png") == folder.Path("run[1]")
    assert sorted(files.find("run[1]", SUFFIXES)) == ["a", "b"]


@pytest.mark.parametrize("where", ["in/*_*.jpg", "no/*/x*.png", "in/[z-a]*.png", "*\0*"])
def test_patterns_that_match_nothing(tree, where):
    tree("in/a_b.png")
    with pytest.raises(DataError, match="no file matches this pattern"):
        files.find(where, SUFFIXES)


def test_a_path_without_wildcards_that_is_not_there(tree):
    with pytest.raises(DataError, match=r"in/a\[b\.png: no such folder or file"):
        files.find("in/a[b.png", SUFFIXES)
