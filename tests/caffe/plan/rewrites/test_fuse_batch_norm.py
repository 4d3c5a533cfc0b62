"""fuse_batch_norm: BatchNorm on batch statistics, Scale and ReLU in one."""

from __future__ import annotations

import pytest
from nets import GEOMETRIES, acted, conv, geometry, image, losses, misfits, names, norm

import caffe


@pytest.fixture(params=[False, True], ids=["kept", "recompute"])
def recompute(request: pytest.FixtureRequest) -> None:
    caffe.set_recompute(request.param)


@pytest.mark.parametrize("shape", GEOMETRIES)
def test_convolutions_with_batch_norm_train_alike(
    shape: str, pair, same_passes, recompute: None
) -> None:
    before, layer = geometry(shape, bias=False)
    nets = pair(before + layer + norm("bn", "z") + losses("z"))
    assert "bn+bn_s+bn_r" in names(nets[1])
    assert acted(nets[1], "fuse_batch_norm") == 1
    same_passes(nets, backward=True)


@pytest.mark.parametrize(
    ("body", "node", "reason"),
    [
        (
            'layer { name: "a" type: "BatchNorm" bottom: "y" top: "y" }',
            "a",
            "is not followed by one Scale of its channels alone",
        ),
        (
            norm("a", "y").replace("scale_param {", "scale_param { axis: 2 num_axes: 1"),
            "a",
            "is not followed by one Scale of its channels alone",
        ),
        (
            norm("a", "y").replace('"Scale"', '"Scale" propagate_down: false'),
            "a",
            "passes no gradient on",
        ),
    ],
)
def test_where_it_does_not_fit(body: str, node: str, reason: str, pair, same_passes) -> None:
    nets = pair(image(2, 3, 9, 10) + conv("c", "x", "y") + body + losses("y"))
    assert acted(nets[1], "fuse_batch_norm") == 0
    assert misfits(nets[1], "fuse_batch_norm") == {node: reason}
    same_passes(nets, backward=True)


def test_a_bottom_without_gradient(pair, same_passes) -> None:
    nets = pair(image(2, 3, 9, 10) + norm("a", "x", "y") + losses("y"))
    assert misfits(nets[1], "fuse_batch_norm") == {"a": "passes no gradient on"}
    same_passes(nets, backward=True)
