"""The nets of the zoo are those that were published."""

from __future__ import annotations

import math

import pytest

import caffe
from bench.nets import NETS, deploy_param
from caffe.graph.sketch import sketch


@pytest.mark.parametrize("name", NETS)
def test_they_have_the_published_sizes(name: str) -> None:
    """Without running statistics, which are not counted as parameters; nothing is filled."""
    layers = sketch(deploy_param(name, batch=1), caffe.TEST)
    assert not [item.layer.name for item in layers if item.problem]
    learned = [item for item in layers if item.layer.type != "BatchNorm"]
    assert sum(math.prod(s) for item in learned for s in item.params) == NETS[name].parameters
    assert sum(item.macs for item in layers) == pytest.approx(NETS[name].macs, rel=0.006)


def test_the_batch_is_the_models_own_or_another() -> None:
    for given, expected in ((None, 10), (3, 3)):
        param = deploy_param("AlexNet", given)
        assert param.name == "AlexNet"
        assert list(param.layer[0].input_param.shape[0].dim) == [expected, 3, 227, 227]
