"""Winograd's filtering computes convolutions and their gradients, to rounding."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest
import torch
import torch.nn.functional as F

from caffe.kernels import winograd
from caffe.kernels.winograd import F2, F4, Filtering

# Samples, inputs, outputs, height, width. 15 x 20 and 30 x 41 are no multiples of tiles' sides.
SHAPES = [
    (2, 8, 6, 15, 20),
    (1, 5, 8, 30, 41),
    (3, 4, 4, 8, 12),
    (2, 3, 4, 1, 1),
    (2, 4, 3, 1, 37),
    (1, 4, 4, 5, 2),
]
BOTH = pytest.mark.parametrize("how", [F2, F4], ids=["F2", "F4"])


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(3)


@pytest.fixture(autouse=True, params=[False, True], ids=["MKL", "oneDNN"])
def _products(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Matrix products by either library, whichever is faster on this processor."""
    monkeypatch.setattr(winograd, "has_slow_mkl", lambda: request.param)


@pytest.fixture(params=[None, 1, 20_000], ids=["whole", "rows", "some rows"])
def piece(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything in one piece, a piece for each row of tiles, or something between."""
    if request.param:
        monkeypatch.setattr(winograd, "PIECE", request.param)


def image(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape).to(dtype).contiguous(memory_format=torch.channels_last)


def filters(k: int, c: int) -> torch.Tensor:
    return torch.randn(k, c, 3, 3) / (9 * c) ** 0.5


def error(found: torch.Tensor, exact: torch.Tensor) -> float:
    """The distance as a part of the whole."""
    assert found.shape == exact.shape
    return float((found.double() - exact).norm() / exact.norm())


def forward(
    how: Filtering,
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    relu: bool = False,
) -> torch.Tensor:
    made = winograd.transform_weight(how, weight, dtype=x.dtype).transpose(1, 2)
    return winograd.convolve(how, x, made, bias, relu)


def data_gradient(how: Filtering, grad: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Also the forward pass of a transposed convolution."""
    made = winograd.transform_weight(how, weight, True, grad.dtype)
    return winograd.convolve(how, grad, made)


@BOTH
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_float32_to_rounding(how: Filtering, shape: tuple[int, ...], piece: None) -> None:
    n, c, k, h, w = shape
    x, grad, weight, bias = image(n, c, h, w), image(n, k, h, w), filters(k, c), torch.randn(k)
    exact_x, exact_w = x.double().requires_grad_(), weight.double().requires_grad_()
    y = F.conv2d(exact_x, exact_w, bias.double(), padding=1)
    dx, dw = torch.autograd.grad(y, [exact_x, exact_w], grad.double())
    # A few units in the last place of float32, 6e-8; a direct sum's error is 1e-7 to 4e-7.
    bound = 1e-6 if how is F2 else 2e-6
    assert error(forward(how, x, weight, bias), y.detach()) < bound
    assert error(forward(how, x, weight, bias, relu=True), y.detach().relu()) < bound
    assert error(data_gradient(how, grad, weight), dx) < bound
    assert error(winograd.weight_gradient(how, x, grad), dw) < bound


@BOTH
def test_transposed_convolution(how: Filtering) -> None:
    """Its forward pass is the data gradient of the other; image and gradient swap roles."""
    x, grad, weight = image(2, 6, 9, 14), image(2, 4, 9, 14), filters(6, 4)
    exact_x, exact_w = x.double().requires_grad_(), weight.double().requires_grad_()
    y = F.conv_transpose2d(exact_x, exact_w, padding=1)
    dx, dw = torch.autograd.grad(y, [exact_x, exact_w], grad.double())
    assert error(data_gradient(how, x, weight), y.detach()) < 2e-6
    assert error(forward(how, grad, weight), dx) < 2e-6
    assert error(winograd.weight_gradient(how, grad, x), dw) < 2e-6


@BOTH
def test_float32_beside_a_direct_sum(how: Filtering) -> None:
    """At a real layer's size the error is a small multiple of what PyTorch's own sum has."""
    x, weight = image(1, 128, 30, 40), filters(128, 128)
    exact = F.conv2d(x.double(), weight.double(), padding=1)
    direct = error(F.conv2d(x, weight, padding=1), exact)
    assert error(forward(how, x, weight), exact) < 5 * max(direct, 2e-7)


@pytest.mark.parametrize(("how", "bound"), [(F2, 0.012), (F4, 0.035)], ids=["F2", "F4"])
def test_bfloat16(how: Filtering, bound: float, piece: None) -> None:
    """A number is rounded by up to 1/256, on average (root mean square) by some 1/600."""
    kind = torch.bfloat16
    x, grad = image(2, 16, 15, 20, dtype=kind), image(2, 24, 15, 20, dtype=kind)
    weight = filters(24, 16)
    exact_x, exact_w = x.double().requires_grad_(), weight.double().requires_grad_()
    y = F.conv2d(exact_x, exact_w, padding=1)
    dx, dw = torch.autograd.grad(y, [exact_x, exact_w], grad.double())
    found = forward(how, x, weight), data_gradient(how, grad, weight)
    assert [f.dtype for f in found] == [kind, kind]
    assert error(found[0], y.detach()) < bound
    assert error(found[1], dx) < bound
    made = winograd.weight_gradient(how, x, grad)
    assert made.dtype == torch.float32
    # Pieces are added up in bfloat16: up to fifteen of them here.
    assert error(made, dw) < 2 * bound


@BOTH
def test_other_layouts_of_the_image(how: Filtering) -> None:
    x, weight = image(2, 4, 7, 9), filters(3, 4)
    y = forward(how, x, weight)
    for other in (x.contiguous(), x.transpose(2, 3).contiguous().transpose(2, 3)):
        assert torch.equal(forward(how, other, weight), y)
    assert y.is_contiguous(memory_format=torch.channels_last)


def _tasks() -> Iterator[Callable[[], torch.Tensor]]:
    """Passes of all kinds, shapes and types, each on numbers of its own."""
    for how in (F2, F4):
        for kind in (torch.float32, torch.bfloat16):
            for n, c, k, h, w in SHAPES:
                x, grad = image(n, c, h, w, dtype=kind), image(n, k, h, w, dtype=kind)
                weight = filters(k, c)
                yield lambda how=how, x=x, w=weight: forward(how, x, w)
                yield lambda how=how, g=grad, w=weight: data_gradient(how, g, w)
                yield lambda how=how, x=x, g=grad: winograd.weight_gradient(how, x, g)


def test_nothing_of_earlier_calls_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scratch memory is used again: with other shapes between, every result is the same."""
    tasks = list(_tasks())
    alone = []
    for task in tasks:
        monkeypatch.setattr(winograd, "_local", threading.local())
        alone.append(task().clone())
    for order in (range(len(tasks)), reversed(range(len(tasks)))):
        for i in order:
            for buffer in winograd._local.__dict__.get("buffers", {}).values():
                buffer.fill_(torch.nan)
            assert torch.equal(tasks[i](), alone[i]), i


def test_results_are_no_scratch_memory() -> None:
    x, grad, weight = image(2, 4, 9, 9), image(2, 4, 9, 9), filters(4, 4)
    for how in (F2, F4):
        kept = winograd.transform_weight(how, weight).transpose(1, 2)
        results = [winograd.convolve(how, x, kept), winograd.weight_gradient(how, x, grad)]
        before = [r.clone() for r in results]
        for buffer in winograd._local.buffers.values():
            buffer.fill_(torch.nan)
        assert all(torch.equal(a, b) for a, b in zip(results, before, strict=True))


def test_threads_do_not_meet() -> None:
    tasks = list(_tasks())
    alone = [task() for task in tasks]
    wrong: list[int] = []
    together = threading.Barrier(2)

    def work(order: list[int]) -> None:
        torch.set_num_threads(1)
        together.wait()
        wrong.extend(i for i in order if not torch.equal(tasks[i](), alone[i]))

    orders = list(range(len(tasks))), list(reversed(range(len(tasks))))
    threads = [threading.Thread(target=work, args=(list(order),)) for order in orders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_tiles_cover_the_image() -> None:
    assert [F4.tiles(*size) for size in ((1, 1), (4, 8), (15, 21))] == [(1, 1), (1, 2), (4, 6)]
    assert F2.tiles(15, 20) == (8, 10)


@BOTH
def test_pieces_cover_every_tile_once(how: Filtering, monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.empty(5, 7, 30, 41)
    rows, columns = how.tiles(30, 41)
    row = columns * how.products * 7
    for size in (1, row, 3 * row, rows * row, 2 * rows * row, 100 * rows * row):
        monkeypatch.setattr(winograd, "PIECE", size)
        seen = torch.zeros(5, rows, dtype=torch.int64)
        for piece in winograd._pieces(how, x):
            seen[piece.images, piece.rows] += 1
            n, count, _ = piece.tiles
            assert n * count * row <= max(size, row)
        assert bool((seen == 1).all())
