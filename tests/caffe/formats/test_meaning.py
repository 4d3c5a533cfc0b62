"""What a layer means where forks use one name in two ways and its parameters leave it open."""

from __future__ import annotations

import pytest

import caffe
from caffe.errors import CaffeError
from caffe.formats import files, meaning
from caffe.formats.meaning import MEANINGS
from caffe.formats.prototext import parse
from caffe.layers.base import REGISTRY
from caffe.proto import caffe_pb2 as pb

INPUT = 'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: [2, 3, 4, 4] } } }'
BN = 'layer { name: "b" type: "BN" bottom: "x" top: "b" }'
FROZEN = BN.replace("top", "bn_param { frozen: true } top")


@pytest.fixture(autouse=True)
def no_fork(monkeypatch):
    monkeypatch.setenv(meaning.VARIABLE, "")


def blobs(tmp_path, text: str) -> int:
    """The number of BN's parameter blobs: two in SegNet's, four in TSN's."""
    path = tmp_path / "n.prototxt"
    path.write_text(text)
    return len(caffe.Net(str(path), caffe.TEST).params["b"])


def test_a_comment_settles_it(tmp_path) -> None:
    assert blobs(tmp_path, INPUT + BN) == 4
    assert blobs(tmp_path, f"# The net of a road.\n  #fork: segnet \r\n{INPUT}{BN}") == 2
    assert blobs(tmp_path, f'# another fork: SegNet\n{INPUT}{BN} name: "# fork: SegNet"') == 4


def test_the_user_settles_it_unless_a_comment_does(tmp_path, monkeypatch) -> None:
    caffe.set_fork("SegNet")
    assert blobs(tmp_path, INPUT + BN) == 2
    assert blobs(tmp_path, f"# fork: TSN\n{INPUT}{BN}") == 4
    caffe.set_fork("")
    assert blobs(tmp_path, INPUT + BN) == 4
    monkeypatch.setenv("CAFFE_FORK", "ENet")
    assert blobs(tmp_path, INPUT + BN) == 2


def test_parameters_win(tmp_path) -> None:
    caffe.set_fork("SegNet")
    assert blobs(tmp_path, INPUT + FROZEN) == 4


def test_unknown_forks_are_refused_or_passed_over(tmp_path, monkeypatch, capfd) -> None:
    with pytest.raises(CaffeError, match=r"^set_fork: unknown fork 'SegNot'; expected one of SSD"):
        caffe.set_fork("SegNot")
    path = tmp_path / "n.prototxt"
    path.write_text("# fork: mine\n" + INPUT)  # a stranger's words, perhaps
    files.read_net(path)
    assert "n.prototxt: the comment '# fork:': unknown fork 'mine'" in capfd.readouterr().err
    path.write_text(INPUT)
    monkeypatch.setenv("CAFFE_FORK", "other")
    with pytest.raises(CaffeError, match=r"^CAFFE_FORK: unknown fork 'other'"):
        files.read_net(path)


def test_every_meaning_is_a_text_of_its_type() -> None:
    for types in MEANINGS.values():
        for kind, text in types.items():
            layer = parse(text.encode(), pb.LayerParameter, kind)
            assert {field.name for field, _ in layer.ListFields()} <= set(REGISTRY[kind].reads)
