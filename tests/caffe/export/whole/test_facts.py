"""What is known of a net's training data: from comments, dataset.json, a packed model."""

from __future__ import annotations

import hashlib
import json

import pytest

import caffe
from boundary import packed
from caffe.export.whole.facts import DepthRule, Facts, read_facts, source_of

NET = "name: 'n'\n"
INFO = {
    "classes": ["(ignored)", "near", "far"],
    "palette": [[0, 0, 0], [1, 2, 3], [4, 5, 6]],
    "options": {"depth_range": "0.5:8 m", "float_depth": True, "fit": "pad"},
}
KNOWN = Facts(
    DepthRule("fixed", 0.5, 8),
    True,
    "pad",
    ("(ignored)", "near", "far"),
    ((0, 0, 0), (1, 2, 3), (4, 5, 6)),
)


@pytest.fixture
def net(tmp_path):
    path = tmp_path / "net.prototxt"
    path.write_text(NET)
    return path


def test_nothing_is_known_of_a_bare_net(net) -> None:
    assert read_facts(net) == Facts()


@pytest.mark.parametrize(
    ("comment", "rule", "floats"),
    [
        ("# depth_range: valid", DepthRule("valid"), False),
        ("#depth_range: authors float", DepthRule("authors"), True),
        ("# depth_range: 0.5:8 m float", DepthRule("fixed", 0.5, 8), True),
        ("# depth_range: 0:10", DepthRule("fixed", 0, 10), False),
    ],
)
def test_comments_of_a_prototxt(net, comment, rule, floats) -> None:
    net.write_text(f'# Made by: netgen\n{comment}\n# classes: ["(ignored)", "wall"]\n{NET}')
    found = read_facts(net)
    assert (found.depth, found.floats, found.classes) == (rule, floats, ("(ignored)", "wall"))


def test_a_dataset_goes_before_the_comments(net, tmp_path) -> None:
    net.write_text('# depth_range: valid\n# classes: ["(ignored)", "wall"]\n' + NET)
    folder = tmp_path / "lmdb"
    folder.mkdir()
    (folder / "dataset.json").write_text(json.dumps(INFO))
    assert read_facts(net, folder) == KNOWN
    assert read_facts(net, folder / "dataset.json") == KNOWN
    (folder / "dataset.json").write_text(json.dumps({"options": INFO["options"]}))
    assert read_facts(net, folder).classes == ("(ignored)", "wall")


def test_a_packed_model(net, tmp_path) -> None:
    (tmp_path / "w.caffemodel").write_bytes(b"weights")
    files = {"net": net, "weights": tmp_path / "w.caffemodel"}
    packed.write(tmp_path / "m.fusenet", INFO, files, caffe.CaffeError)
    assert read_facts(tmp_path / "m.fusenet") == KNOWN
    own = {name: fact["sha256"] for name, fact in source_of(*files.values()).items()}
    assert own == {
        "net": hashlib.sha256(NET.encode()).hexdigest(),
        "weights": hashlib.sha256(b"weights").hexdigest(),
    }
    inside = source_of(tmp_path / "m.fusenet", None)
    assert {name: fact["sha256"] for name, fact in inside.items()} == own
    assert inside["net"]["file"] == "m.fusenet/deploy.prototxt"


@pytest.mark.parametrize("text", ["", "none of these", "8:0.5", "-1:2", "0:inf", "nan:1", "1:2:3"])
def test_other_rules_are_refused(net, text) -> None:
    with pytest.raises(ValueError, match="expected authors, valid or MIN:MAX"):
        DepthRule.parse(text)
    if text.split() == [text]:
        net.write_text(f"# depth_range: {text}\n{NET}")
        with pytest.raises(caffe.CaffeError, match=r"net.prototxt: depth_range .*expected authors"):
            read_facts(net)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "No such file"),
        ("{}", "no options with a depth_range in it"),
        ('{"options": {"depth_range": "far"}}', "options: depth_range 'far': expected authors"),
        ('{"options": {"depth_range": 3}}', "expected"),
        ('{"options": {"depth_range": "valid", "fit": "bend"}}', "fit: expected one of"),
    ],
)
def test_a_dataset_that_says_nothing(net, tmp_path, text, message) -> None:
    path = tmp_path / "dataset.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(caffe.CaffeError, match=f"dataset.json: .*{message}"):
        read_facts(net, path)
