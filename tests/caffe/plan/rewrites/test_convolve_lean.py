"""convolve_lean: convolutions in training plans."""

from __future__ import annotations

import pytest
from nets import GEOMETRIES, acted, conv, geometry, image, losses, misfits

import caffe
from caffe.kernels import fused


@pytest.fixture(params=[False, True], ids=["kept", "recompute"])
def recompute(request: pytest.FixtureRequest) -> None:
    caffe.set_recompute(request.param)


@pytest.mark.parametrize("shape", GEOMETRIES)
def test_convolutions_train_alike(shape: str, pair, same_passes, recompute: None) -> None:
    before, layer = geometry(shape, bias=True)
    nets = pair(before + layer + losses("z"))
    assert acted(nets[1], "convolve_lean") == 2
    same_passes(nets, backward=True)


def test_other_convolutions_stay_as_they_are(pair, same_passes) -> None:
    text = image(2, 3, 9) + conv("one", "x", "y", how="kernel_size: 3") + losses("y")
    nets = pair(text)
    assert acted(nets[1], "convolve_lean") == 0
    reason = "convolves another number of axes than two behind axis 1"
    assert misfits(nets[1], "convolve_lean") == {"one": reason}
    same_passes(nets, backward=True)


def test_deploy_nets_have_none(pair) -> None:
    assert acted(pair(image(2, 3, 9, 9) + conv("c", "x", "y"), caffe.TEST)[1], "convolve_lean") == 0


def test_the_lean_kernel_runs(pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """The numbers alone do not tell: PyTorch's own convolution gives them, too."""
    net = pair(image(2, 3, 9, 9) + conv("c", "x", "y") + losses("y"))[1]
    seen: list[None] = []
    convolve = fused.convolve
    monkeypatch.setattr(fused, "convolve", lambda *given: seen.append(None) or convolve(*given))
    net.forward()
    assert len(seen) == 1
