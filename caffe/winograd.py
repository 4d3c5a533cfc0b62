"""3x3 convolutions by Winograd's minimal filtering, F(4x4, 3x3): a quarter of the multiplications.

A tile of 4 x 4 outputs is computed from 6 x 6 inputs as A'((G w G') * (B' x B))A (Winograd, 1980;
Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016), where * multiplies
element by element, which for all channels and tiles together is 36 products of matrices. The usual
points 0, 1, -1, 2, -2 lose two to three digits in float32; here they are 0, +-sqrt(1/2), +-sqrt(2)
(Barabasz et al., "Error Analysis and Improving the Accuracy of Winograd Convolution for Deep Neural
Networks", 2020, on why such points are better), and the error is that of a sum in another order.

Only tensor operations of PyTorch are used, on pieces that fit into the processor's cache.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Sequence

import torch

ROOT = math.sqrt(2)
OUT, IN = 4, 6  # side of a tile, in outputs and in inputs
PIECE = 6 << 20  # numbers in a transformed piece of the input, at most about

_A, _B = 0.5, 2.0  # the squares of the points
G = torch.tensor(
    [
        [1 / (_A * _B), 0, 0],
        *([1, s * ROOT / 2, _A] for s in (1, -1)),
        *([1, s * ROOT, _B] for s in (1, -1)),
        [0, 0, 1],
    ],
    dtype=torch.float64,
)
G[1:3] /= 2 * _A * (_A - _B) * 2  # half of it: A's columns are doubled, which spares a product
G[3:5] /= 2 * _B * (_B - _A)


def transform_weight(weight: torch.Tensor, flipped: bool = False) -> torch.Tensor:
    """G w G' of every filter: (K, C, 3, 3) -> (36, K, C); `flipped`: of filters turned by 180°."""
    k, c = weight.shape[:2]
    return torch.mm(_both_ways(flipped).to(weight.dtype), weight.reshape(k * c, 9).t()).view(IN * IN, k, c)


def convolve(
    x: torch.Tensor,
    filters: torch.Tensor,
    bias: torch.Tensor | None = None,
    relu: bool = False,
) -> torch.Tensor:
    """Convolution with padding 1 and stride 1: (N, C, H, W) -> (N, K, H, W), channels-last.

    filters: (36, C, K), any strides: transform_weight's result, transposed.
    """
    n, _, h, w = x.shape
    k = filters.shape[2]
    y = x.new_empty(n, h, w, k)
    for images, rows in _pieces(x):
        tiles = _tiles_of(x, images, rows)
        v = _transform_input(x, images, rows)
        products = _buffer("products", (IN * IN, v.shape[1], k), x)
        torch.bmm(v, filters, out=products)
        _transform_output(products.view(IN, IN, *tiles, k), y, images, rows, bias, relu)
    return y.permute(0, 3, 1, 2)


def weight_gradient(x: torch.Tensor, grad: torch.Tensor) -> torch.Tensor:
    """The gradient of the filters: x (N, C, H, W), grad (N, K, H, W) -> (K, C, 3, 3)."""
    c, k = x.shape[1], grad.shape[1]
    total = _buffer("total", (IN * IN, k, c), x)
    for i, (images, rows) in enumerate(_pieces(x)):
        v = _transform_input(x, images, rows)
        m = _transform_gradient(grad, images, rows)
        if i:
            total.baddbmm_(m.transpose(1, 2), v)
        else:
            torch.bmm(m.transpose(1, 2), v, out=total)
    both = _both_ways(False).to(x.dtype)
    return torch.mm(total.view(IN * IN, k * c).t(), both).view(k, c, 3, 3)


def _both_ways(flipped: bool) -> torch.Tensor:
    """G w G' as a matrix on the nine numbers of a filter; columns before rows, as inputs are."""
    g = G.flip(1) if flipped else G
    return torch.einsum("ia,jb->jiab", g, g).reshape(IN * IN, 9)


# -- pieces -----------------------------------------------------------------------------------


def _pieces(x: torch.Tensor) -> Iterator[tuple[slice, slice]]:
    """Images and rows of tiles to take at once; a function of the shape alone."""
    n, c, h, w = x.shape
    rows, columns = -(-h // OUT), -(-w // OUT)
    fit = max(1, PIECE // (columns * IN * IN * c))  # rows of tiles that fit
    if fit >= rows:
        step = fit // rows
        for i in range(0, n, step):
            yield slice(i, min(i + step, n)), slice(0, rows)
        return
    parts = -(-rows // fit)
    step = -(-rows // parts)
    for i in range(n):
        for r in range(0, rows, step):
            yield slice(i, i + 1), slice(r, min(r + step, rows))


def _tiles_of(x: torch.Tensor, images: slice, rows: slice) -> tuple[int, int, int]:
    """How many images, rows and columns of tiles a piece has."""
    return images.stop - images.start, rows.stop - rows.start, -(-x.shape[3] // OUT)


_local = threading.local()


def _buffer(name: str, shape: Sequence[int], like: torch.Tensor) -> torch.Tensor:
    """Scratch memory that is kept: fresh pages for every call would cost as much as the work."""
    count = math.prod(shape)
    table = _local.__dict__.setdefault("buffers", {})
    key = (name, like.dtype)
    if key not in table or table[key].numel() < count:
        table[key] = torch.empty(count, dtype=like.dtype)
    return table[key][:count].view(shape)


# -- transformations --------------------------------------------------------------------------


def _padded(x: torch.Tensor, images: slice, rows: slice, margin: int) -> torch.Tensor:
    """The part of x (N, C, H, W) under some rows of tiles, with zeros around: n, height, width, C.

    margin: 1 for the 6 x 6 inputs of a tile, 0 for its 4 x 4 outputs.
    """
    n, count, columns = _tiles_of(x, images, rows)
    h, w = x.shape[2:]
    first = rows.start * OUT - margin
    height, width = count * OUT + 2 * margin, columns * OUT + 2 * margin
    top, bottom = max(0, -first), min(height, h - first)
    part = x.permute(0, 2, 3, 1)[images, first + top : first + bottom]
    if (top, bottom, margin) == (0, height, 0) and width == w:
        return part
    out = _buffer("padded", (n, height, width, x.shape[1]), x)
    out[:, :top].zero_()
    out[:, bottom:].zero_()
    out[:, top:bottom, :margin].zero_()
    out[:, top:bottom, margin + w :].zero_()
    out[:, top:bottom, margin : margin + w].copy_(part)
    return out


def _transform_input(x: torch.Tensor, images: slice, rows: slice) -> torch.Tensor:
    """B' x B of the tiles of a piece: (36, tiles, C)."""
    n, count, columns = _tiles_of(x, images, rows)
    c = x.shape[1]
    part = _padded(x, images, rows, 1)
    half = _buffer("half", (IN, n, count, columns * OUT + 2, c), x)
    _apply_b([part[:, i : i + OUT * count - 3 : OUT] for i in range(IN)], half)
    out = _buffer("input", (IN, IN, n, count, columns, c), x)
    _apply_b([half[:, :, :, j : j + OUT * columns - 3 : OUT] for j in range(IN)], out)
    return out.view(IN * IN, n * count * columns, c)


def _transform_gradient(grad: torch.Tensor, images: slice, rows: slice) -> torch.Tensor:
    """A y A' of the tiles of a piece: (36, tiles, K)."""
    n, count, columns = _tiles_of(grad, images, rows)
    k = grad.shape[1]
    part = _padded(grad, images, rows, 0)
    half = _buffer("half", (IN, n, count, columns * OUT, k), grad)
    _apply_a_transposed([part[:, i::OUT] for i in range(OUT)], half)
    out = _buffer("gradient", (IN, IN, n, count, columns, k), grad)
    _apply_a_transposed([half[:, :, :, j::OUT] for j in range(OUT)], out)
    return out.view(IN * IN, n * count * columns, k)


def _transform_output(
    products: torch.Tensor,
    y: torch.Tensor,
    images: slice,
    rows: slice,
    bias: torch.Tensor | None,
    relu: bool,
) -> None:
    """A' m A of the tiles of a piece into y (N, H, W, K), plus bias; destroys the products."""
    _, _, n, count, columns, k = products.shape
    h, w = y.shape[1:3]
    half = _buffer("half", (IN, n, count, columns, OUT, k), y)
    _apply_a(products.unbind(0), half.unbind(4))
    half = half.view(IN, n, count, columns * OUT, k)
    top = rows.start * OUT
    whole = columns * OUT == w and top + count * OUT <= h
    if whole:
        out = y[images, top : top + count * OUT].view(n, count, OUT, w, k)
    else:
        out = _buffer("padded", (n, count, OUT, columns * OUT, k), y)
    _apply_a(half.unbind(0), out.unbind(2))
    if bias is not None:
        out.add_(bias)
    if relu:
        out.relu_()
    if not whole:
        flat = out.view(n, count * OUT, columns * OUT, k)
        y[images, top : top + count * OUT] = flat[:, : h - top, :w]


def _apply_b(d: Sequence[torch.Tensor], out: Sequence[torch.Tensor]) -> None:
    """Six tensors by B'."""
    d0, d1, d2, d3, d4, d5 = d
    o0, o1, o2, o3, o4, o5 = out
    torch.sub(d4, d2, alpha=2, out=o1)
    torch.sub(d3, d1, alpha=2, out=o5)
    torch.sub(o1, o5, alpha=ROOT / 2, out=o2)
    o1.add_(o5, alpha=ROOT / 2)
    torch.sub(d4, d2, alpha=0.5, out=o3)
    torch.sub(d3, d1, alpha=0.5, out=o5)
    torch.sub(o3, o5, alpha=ROOT, out=o4)
    o3.add_(o5, alpha=ROOT)
    torch.sub(d4, d2, alpha=2.5, out=o0)
    o0.add_(d0)
    torch.sub(d5, d3, alpha=2.5, out=o5)
    o5.add_(d1)


def _apply_a(m: Sequence[torch.Tensor], out: Sequence[torch.Tensor]) -> None:
    """Six tensors by A'; destroys them."""
    m0, m1, m2, m3, m4, m5 = m
    y0, y1, y2, y3 = out
    even, odd = y0, y1
    torch.add(m1, m2, out=even)
    torch.sub(m1, m2, out=odd)
    torch.add(m3, m4, out=m1)
    torch.sub(m3, m4, out=m2)
    torch.add(even, m1, alpha=2, out=y2)
    torch.add(odd, m2, alpha=4, out=m3)
    torch.add(m5, m3, alpha=ROOT / 2, out=y3)
    y1.add_(m2).mul_(ROOT)
    torch.add(m0, even, alpha=2, out=m4)
    torch.add(m4, m1, out=y0)


def _apply_a_transposed(y: Sequence[torch.Tensor], out: Sequence[torch.Tensor]) -> None:
    """Four tensors by A."""
    y0, y1, y2, y3 = y
    m0, m1, m2, m3, m4, m5 = out
    torch.add(y2, y0, alpha=2, out=m1)
    torch.add(y1, y3, alpha=0.5, out=m0)
    torch.sub(m1, m0, alpha=ROOT, out=m2)
    m1.add_(m0, alpha=ROOT)
    torch.add(y0, y2, alpha=2, out=m3)
    torch.add(y1, y3, alpha=2, out=m0)
    torch.sub(m3, m0, alpha=ROOT, out=m4)
    m3.add_(m0, alpha=ROOT)
    m0.copy_(y0)
    m5.copy_(y3)
