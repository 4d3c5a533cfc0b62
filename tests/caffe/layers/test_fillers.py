"""Fillers: what they leave in a blob, by the moments of many values or by the values themselves."""

from __future__ import annotations

import math

import pytest
import torch
from google.protobuf import text_format

import caffe
from caffe.layers.fillers import fill
from caffe.proto import caffe_pb2 as pb

pytestmark = pytest.mark.usefixtures("fresh")

SHAPE = (50, 40, 5, 5)  # 50000 values; fan in 40 * 25 = 1000, fan out 50 * 25 = 1250


def _filled(text: str, shape: tuple[int, ...] = SHAPE) -> torch.Tensor:
    values = torch.full(shape, math.nan)
    fill(values, text_format.Parse(text, pb.FillerParameter()))
    return values


def test_the_default_is_zero() -> None:
    assert not _filled("").any()


def test_constant() -> None:
    assert (_filled("value: 0.25") == 0.25).all()


def test_a_constant_may_be_anything() -> None:
    assert _filled("value: nan", (2,)).isnan().all()
    assert _filled("value: -inf", (2,)).isneginf().all()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('type: "gaussian" std: nan', "std is nan, expected a finite number"),
        ('type: "gaussian" mean: inf', "mean is inf, expected a finite number"),
        ('type: "uniform" max: inf', "max is inf, expected a finite number"),
        ('type: "uniform" min: nan', "min is nan, expected a finite number"),
        ('type: "uniform" min: -3e38 max: 3e38', "from -3e.38 to 3e.38 is more than float32 spans"),
    ],
)
def test_numbers_that_no_filler_can_draw(text: str, message: str) -> None:
    with pytest.raises(caffe.CaffeError, match=message):
        _filled(text, (2, 2))


def test_uniform() -> None:
    values = _filled('type: "uniform" min: -1 max: 3')
    assert float(values.min()) >= -1
    assert float(values.max()) <= 3
    assert float(values.mean()) == pytest.approx(1, abs=0.02)
    assert float(values.std()) == pytest.approx(4 / math.sqrt(12), rel=0.01)


def test_gaussian() -> None:
    values = _filled('type: "gaussian" mean: 2 std: 0.5')
    assert float(values.mean()) == pytest.approx(2, abs=0.01)
    assert float(values.std()) == pytest.approx(0.5, rel=0.01)
    assert (_filled('type: "gaussian" mean: 2 std: 0') == 2).all()


def test_sparse_gaussian() -> None:
    values = _filled('type: "gaussian" sparse: 10', (50, 1000))
    # each input keeps on average 10 of its 50 outputs
    assert float((values != 0).float().mean()) == pytest.approx(0.2, abs=0.01)
    assert float(values[values != 0].std()) == pytest.approx(1, rel=0.03)


def test_positive_unitball() -> None:
    values = _filled('type: "positive_unitball"')
    assert float(values.min()) >= 0
    assert torch.allclose(values.flatten(1).sum(1), torch.ones(50))


@pytest.mark.parametrize(
    ("norm", "fan"),
    [("", 1000), ("FAN_IN", 1000), ("FAN_OUT", 1250), ("AVERAGE", (1000 + 1250) / 2)],
)
def test_xavier_and_msra(norm: str, fan: float) -> None:
    settings = f"variance_norm: {norm}" if norm else ""
    xavier = _filled(f'type: "xavier" {settings}')
    assert float(xavier.abs().max()) == pytest.approx(math.sqrt(3 / fan), rel=1e-3)
    assert float(xavier.std()) == pytest.approx(math.sqrt(1 / fan), rel=0.02)
    msra = _filled(f'type: "msra" {settings}')
    assert float(msra.std()) == pytest.approx(math.sqrt(2 / fan), rel=0.02)


def test_fans_are_those_of_the_blob_whatever_the_layer() -> None:
    # a Deconvolution's weight is (in, out, k, k): what Caffe calls fan in is out * k * k there
    values = _filled('type: "xavier"', (8, 100, 2, 2))
    assert float(values.abs().max()) == pytest.approx(math.sqrt(3 / 400), rel=0.02)
    assert float(_filled('type: "xavier"', (3,)).abs().max()) <= math.sqrt(3)


def test_bilinear() -> None:
    # size 4: f = 2, centre 0.75; 1 - |i / 2 - 0.75| = 0.25 0.75 0.75 0.25
    line = torch.tensor([0.25, 0.75, 0.75, 0.25])
    values = _filled('type: "bilinear"', (2, 3, 4, 4))
    assert torch.equal(values, torch.outer(line, line).expand(2, 3, 4, 4))
    odd = torch.tensor([1 / 2, 1, 1 / 2])  # size 3: f = 2, centre 0.5
    assert torch.allclose(_filled('type: "bilinear"', (1, 1, 3, 3))[0, 0], torch.outer(odd, odd))


def test_nothing_to_fill() -> None:
    assert _filled('type: "xavier"', (0, 3)).shape == (0, 3)


@pytest.mark.parametrize(
    ("text", "shape", "message"),
    [
        ('type: "gausian"', SHAPE, "unknown filler type 'gausian'; expected one of bilinear, "),
        ('type: "uniform" min: 2 max: 1', SHAPE, "filler uniform: min 2 exceeds max 1"),
        ('type: "gaussian" std: -1', SHAPE, "filler gaussian: std is -1, expected at least 0"),
        ('type: "gaussian" sparse: 51', SHAPE, "sparse is 51, expected at most the 50 outputs"),
        ('type: "xavier" sparse: 3', SHAPE, "filler xavier: sparse is only supported by gaussian"),
        ('type: "bilinear"', (1, 1, 3, 4), "4 axes with a square kernel"),
        ('type: "bilinear"', (3, 3), "4 axes with a square kernel"),
    ],
)
def test_what_cannot_be_filled(text: str, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(caffe.CaffeError, match=message):
        _filled(text, shape)


def test_fillers_of_forks() -> None:
    rows = _filled('type: "gaussian_unitball"', (5, 2, 3)).flatten(1)
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(5))
    assert _filled('type: "identity"', (3, 3)).tolist() == torch.eye(3).tolist()
    values = _filled('type: "diagonal" diag_val: 8', (3, 2, 2, 2))
    assert values[0, 0].unique().tolist() == [2]  # 8 over the kernel of 4
    assert values[1, 1].unique().tolist() == [0.25]
    assert not values[2].any()
    assert not values[0, 1].any()
    same = _filled('type: "bilinear_upsampling"', (1, 1, 4, 4))
    assert torch.equal(same, _filled('type: "bilinear"', (1, 1, 4, 4)))


@pytest.mark.parametrize("text", ['type: "identity"', 'type: "diagonal"'])
def test_fillers_of_forks_need_axes(text: str) -> None:
    with pytest.raises(caffe.CaffeError, match="the blob's shape"):
        _filled(text, (3,))
