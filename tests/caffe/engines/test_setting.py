"""caffe.set_engine: names, what is missing, and blocks."""

from __future__ import annotations

import contextlib

import pytest

import caffe
from caffe.commands import cli
from caffe.engines import NAMES, engine, using
from caffe.engines.programs import Engine


def test_torch_is_the_default_and_may_be_set_again(fakes) -> None:
    assert engine() == "torch"
    for name in ("openvino", "auto", "onnxruntime", "torch"):
        caffe.set_engine(name)
        assert engine() == name


def test_the_command_knows_the_names() -> None:
    assert cli.ENGINES == NAMES


def test_an_unknown_name_changes_nothing(fakes) -> None:
    caffe.set_engine("auto")
    with pytest.raises(caffe.CaffeError) as error:
        caffe.set_engine("tensorrt")
    assert str(error.value) == (
        "engine 'tensorrt' is unknown; expected one of auto, torch, openvino, onnxruntime"
    )
    assert engine() == "auto"


def test_an_engine_that_is_not_installed_is_named(monkeypatch) -> None:
    monkeypatch.setattr(Engine, "is_installed", lambda self: False)
    with pytest.raises(caffe.CaffeError) as error:
        caffe.set_engine("onnxruntime")
    assert str(error.value) == (
        "engine 'onnxruntime' needs the packages onnxruntime and onnx: pip install 'fusenet[cpu]'"
    )


@pytest.mark.parametrize("missing", ["openvino", "onnx"])
def test_a_package_that_is_not_there_is_noticed(missing, monkeypatch) -> None:
    from caffe.engines.programs import ENGINES

    monkeypatch.setitem(__import__("sys").modules, missing, None)
    assert not ENGINES["openvino"].is_installed()


def test_a_block_has_its_engine_and_then_the_one_before(fakes) -> None:
    caffe.set_engine("auto")
    with using("openvino"):
        assert engine() == "openvino"
    assert engine() == "auto"
    with contextlib.suppress(KeyError), using("onnxruntime"):
        raise KeyError
    assert engine() == "auto"
