"""3x3 convolutions by Winograd's minimal filtering, with a fraction of the multiplications.

A tile of m x m outputs is computed from (m + 2) x (m + 2) inputs as A'((G w G') * (B' x B))A
(Winograd, 1980; Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016).
Here * multiplies element by element; for all channels and tiles together it becomes (m + 2)^2
matrix products. m = 4 (`F4`) takes a quarter of the multiplications, m = 2 (`F2`) 4/9.

F4's usual points 0, 1, -1, 2, -2 lose two to three digits in float32. We use 0, +-sqrt(1/2),
+-sqrt(2), with which the error is that of a sum in another order; Barabasz et al., "Error Analysis
and Improving the Accuracy of Winograd Convolution for Deep Neural Networks", 2020, explain why. In
bfloat16 the error of F2 is two to three times that of a direct sum, that of F4 six to nine times.

The code uses only PyTorch's tensor operations, on pieces that fit into the processor's cache.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import torch

from caffe.kernels.processor import has_slow_mkl

ROOT = math.sqrt(2)
PIECE = 3 << 20  # approximate limit of the values in a transformed piece of the input

Tensors = Sequence[torch.Tensor]


@dataclass(frozen=True)
class Filtering:
    """One of the algorithms: the side of its output tiles and its three matrices.

    outer: side of an output tile (m). filters: the matrix G. by_b and by_a_transposed multiply
    `inner` and `outer` tensors by B' and A and write `inner` results; by_a multiplies `inner`
    tensors by A', writes `outer` results and overwrites its inputs.
    """

    outer: int
    filters: tuple[tuple[float, ...], ...]
    by_b: Callable[[Tensors, Tensors], None]
    by_a: Callable[[Tensors, Tensors], None]
    by_a_transposed: Callable[[Tensors, Tensors], None]

    @property
    def inner(self) -> int:
        """Side of an input tile, m + 2."""
        return self.outer + 2

    @property
    def products(self) -> int:
        """The number of matrix products, (m + 2)^2."""
        return self.inner**2

    def both_ways(self, flipped: bool) -> torch.Tensor:
        """The (products, 9) matrix that maps a filter to G w G', columns before rows as for inputs.

        flipped: the filter is turned by 180 degrees first.
        """
        g = torch.tensor(self.filters, dtype=torch.float64)
        g = g.flip(1) if flipped else g
        return torch.einsum("ia,jb->jiab", g, g).reshape(self.products, 9).float()

    def tiles(self, height: int, width: int) -> tuple[int, int]:
        """(rows, columns) of tiles that cover an image."""
        return -(-height // self.outer), -(-width // self.outer)


def transform_weight(
    how: Filtering,
    weight: torch.Tensor,
    flipped: bool = False,
    dtype: torch.dtype = torch.float32,
) -> torch.Tensor:
    """G w G' of every filter: (K, C, 3, 3), float32 -> (products, K, C) of `dtype`.

    flipped: turn the filters by 180 degrees first. In float32 the result lies in scratch memory
    that this thread's next call overwrites.
    """
    k, c = weight.shape[:2]
    numbers = weight.reshape(k * c, 9).t()
    if dtype != weight.dtype:
        return torch.mm(how.both_ways(flipped), numbers).to(dtype).view(how.products, k, c)
    filters = _buffer("filters", (how.products, k * c), weight)
    torch.mm(how.both_ways(flipped), numbers, out=filters)
    return filters.view(how.products, k, c)


def convolve(
    how: Filtering,
    x: torch.Tensor,
    filters: torch.Tensor,
    bias: torch.Tensor | None = None,
    relu: bool = False,
    gain: torch.Tensor | None = None,
) -> torch.Tensor:
    """Convolution with padding 1 and stride 1: (N, C, H, W) -> (N, K, H, W), channels-last.

    NaN and infinity spread over a tile, or, from a filter, over a channel.

    The result is multiplied by gain (K), increased by bias (K) and rectified, each if asked for.

    filters: transform_weight's result, transposed to (products, C, K); any strides.
    """
    n, _, h, w = x.shape
    k = filters.shape[2]
    y = x.new_empty(n, h, w, k)
    for piece in _pieces(how, x):
        v = _transform_input(how, x, piece)
        half = _buffer("half", (how.inner, *piece.tiles, how.outer, k), x)
        _multiply(how, v, filters, half)
        _transform_output(how, half, y, piece, (gain, bias, relu))
    return y.permute(0, 3, 1, 2)


def weight_gradient(how: Filtering, x: torch.Tensor, grad: torch.Tensor) -> torch.Tensor:
    """The gradient of the filters, float32: x (N, C, H, W), grad (N, K, H, W) -> (K, C, 3, 3)."""
    c, k = x.shape[1], grad.shape[1]
    total, linear = _buffer("total", (how.products, k, c), x), _linear(x)
    for i, piece in enumerate(_pieces(how, x)):
        v = _transform_input(how, x, piece)
        m = _transform_gradient(how, grad, piece)
        if linear is not None:
            for one, a, b in zip(total, m, v, strict=True):
                made = linear(a.t(), b.t(), None, "none", [], "")
                one.add_(made) if i else one.copy_(made)
        elif i:
            total.baddbmm_(m.transpose(1, 2), v)
        else:
            torch.bmm(m.transpose(1, 2), v, out=total)
    columns = total.view(how.products, k * c).t().float()
    return torch.mm(columns, how.both_ways(False)).view(k, c, 3, 3)


# -- products ---------------------------------------------------------------------------------


def _multiply(how: Filtering, v: torch.Tensor, filters: torch.Tensor, half: torch.Tensor) -> None:
    """Multiply tiles v (products, tiles, C) by filters (products, C, K), and the products by A'.

    half: (inner, n, rows, columns, outer, K), which is written.
    """
    inner, k, linear = how.inner, filters.shape[2], _linear(v)
    if linear is None:
        products = _buffer("products", (how.products, v.shape[1], k), v)
        torch.bmm(v, filters, out=products)
        products = products.view(inner, inner, *half.shape[1:4], k)
        how.by_a(products.unbind(0), half.unbind(4))
        return
    for j, part in enumerate(half):
        column = range(j, how.products, inner)
        made = [linear(v[i], filters[i].t(), None, "none", [], "") for i in column]
        how.by_a([one.view(*part.shape[:3], k) for one in made], part.unbind(3))


def _linear(x: torch.Tensor) -> Callable[..., torch.Tensor] | None:
    """oneDNN's product of a matrix with a transposed one, where it is faster than MKL's."""
    return _onednn_linear() if x.dtype == torch.float32 and has_slow_mkl() else None


@cache
def _onednn_linear() -> Callable[..., torch.Tensor] | None:
    found = getattr(torch.ops.mkldnn, "_linear_pointwise", None)  # not in every PyTorch
    return found.default if found and torch.backends.mkldnn.is_available() else None


# -- pieces -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Piece:
    """A range of images and rows of tiles that are computed at once."""

    images: slice
    rows: slice
    columns: int

    @property
    def tiles(self) -> tuple[int, int, int]:
        """The numbers of images, rows of tiles and columns of tiles."""
        images, rows = self.images, self.rows
        return images.stop - images.start, rows.stop - rows.start, self.columns


def _pieces(how: Filtering, x: torch.Tensor) -> Iterator[_Piece]:
    """Divide x into pieces that fit the cache, by its shape alone so that runs repeat bitwise."""
    n, c, h, w = x.shape
    rows, columns = how.tiles(h, w)
    fit = max(1, PIECE // (columns * how.products * c))  # rows of tiles that fit
    if fit >= rows:
        step = fit // rows
        for i in range(0, n, step):
            yield _Piece(slice(i, min(i + step, n)), slice(0, rows), columns)
        return
    parts = -(-rows // fit)
    step = -(-rows // parts)
    for i in range(n):
        for r in range(0, rows, step):
            yield _Piece(slice(i, i + 1), slice(r, min(r + step, rows)), columns)


_local = threading.local()


def _buffer(name: str, shape: Sequence[int], like: torch.Tensor) -> torch.Tensor:
    """Scratch memory, kept per thread; fresh pages in each call would cost as much as the work."""
    count = math.prod(shape)
    table = _local.__dict__.setdefault("buffers", {})
    key = (name, like.dtype)
    if key not in table or table[key].numel() < count:
        table[key] = torch.empty(count, dtype=like.dtype)
    return table[key][:count].view(shape)


# -- transformations --------------------------------------------------------------------------


def _padded(how: Filtering, x: torch.Tensor, piece: _Piece, margin: int) -> torch.Tensor:
    """The part of x (N, C, H, W) under a piece, padded with zeros: (n, height, width, C).

    margin: the padding, 1 for inputs of the convolution and 0 for outputs.
    """
    n, count, columns = piece.tiles
    h, w = x.shape[2:]
    first = piece.rows.start * how.outer - margin
    height, width = count * how.outer + 2 * margin, columns * how.outer + 2 * margin
    top, bottom = max(0, -first), min(height, h - first)
    part = x.permute(0, 2, 3, 1)[piece.images, first + top : first + bottom]
    if (top, bottom, margin) == (0, height, 0) and width == w:
        return part
    out = _buffer("padded", (n, height, width, x.shape[1]), x)
    out[:, :top].zero_()
    out[:, bottom:].zero_()
    out[:, top:bottom, :margin].zero_()
    out[:, top:bottom, margin + w :].zero_()
    out[:, top:bottom, margin : margin + w].copy_(part)
    return out


def _transform_input(how: Filtering, x: torch.Tensor, piece: _Piece) -> torch.Tensor:
    """B' x B for the tiles of a piece: (products, tiles, C)."""
    n, count, columns = piece.tiles
    c, m, inner = x.shape[1], how.outer, how.inner
    part = _padded(how, x, piece, 1)
    half = _buffer("half", (inner, n, count, columns * m + 2, c), x)
    how.by_b([part[:, i : i + m * (count - 1) + 1 : m] for i in range(inner)], half)
    out = _buffer("input", (inner, inner, n, count, columns, c), x)
    how.by_b([half[:, :, :, j : j + m * (columns - 1) + 1 : m] for j in range(inner)], out)
    return out.view(how.products, n * count * columns, c)


def _transform_gradient(how: Filtering, grad: torch.Tensor, piece: _Piece) -> torch.Tensor:
    """A y A' for the tiles of a piece: (products, tiles, K)."""
    n, count, columns = piece.tiles
    k, m, inner = grad.shape[1], how.outer, how.inner
    part = _padded(how, grad, piece, 0)
    half = _buffer("half", (inner, n, count, columns * m, k), grad)
    how.by_a_transposed([part[:, i::m] for i in range(m)], half)
    out = _buffer("gradient", (inner, inner, n, count, columns, k), grad)
    how.by_a_transposed([half[:, :, :, j::m] for j in range(m)], out)
    return out.view(how.products, n * count * columns, k)


def _transform_output(
    how: Filtering,
    half: torch.Tensor,
    y: torch.Tensor,
    piece: _Piece,
    after: tuple[torch.Tensor | None, torch.Tensor | None, bool],
) -> None:
    """Multiply by A, after _multiply, for the tiles of a piece; write the results into y
    (N, H, W, K), then apply gain, bias and ReLU.

    after: (gain, bias, relu). Overwrites half.
    """
    gain, bias, relu = after
    n, count, columns = piece.tiles
    h, w, k = y.shape[1:]
    m = how.outer
    half = half.view(how.inner, n, count, columns * m, k)
    top = piece.rows.start * m
    whole = columns * m == w and top + count * m <= h
    if whole:
        out = y[piece.images, top : top + count * m].view(n, count, m, w, k)
    else:
        out = _buffer("padded", (n, count, m, columns * m, k), y)
    how.by_a(half.unbind(0), out.unbind(2))
    if gain is not None:
        out.mul_(gain)
    if bias is not None:
        out.add_(bias)
    if relu:
        out.relu_()
    if not whole:
        flat = out.view(n, count * m, columns * m, k)
        y[piece.images, top : top + count * m] = flat[:, : h - top, :w]


# -- the matrices ----------------------------------------------------------------------------


def _b4(d: Tensors, out: Tensors) -> None:
    """Multiply by B' of F4."""
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


def _a4(m: Tensors, out: Tensors) -> None:
    """Multiply by A' of F4; overwrites m."""
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


def _a4_transposed(y: Tensors, out: Tensors) -> None:
    """Multiply by A of F4."""
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


def _b2(d: Tensors, out: Tensors) -> None:
    """Multiply by B' of F2."""
    torch.sub(d[0], d[2], out=out[0])
    torch.add(d[1], d[2], out=out[1])
    torch.sub(d[2], d[1], out=out[2])
    torch.sub(d[1], d[3], out=out[3])


def _a2(m: Tensors, out: Tensors) -> None:
    """Multiply by A' of F2."""
    torch.add(m[1], m[2], out=out[0])
    out[0].add_(m[0])
    torch.sub(m[1], m[2], out=out[1])
    out[1].sub_(m[3])


def _a2_transposed(y: Tensors, out: Tensors) -> None:
    """Multiply by A of F2."""
    out[0].copy_(y[0])
    torch.add(y[0], y[1], out=out[1])
    torch.sub(y[0], y[1], out=out[2])
    torch.neg(y[1], out=out[3])


def _filters4() -> tuple[tuple[float, ...], ...]:
    """G of F4 for the points 0, +-sqrt(a), +-sqrt(b) and infinity, with a = 1/2 and b = 2."""
    a, b = 0.5, 2.0
    # The rows of +-sqrt(a) are halved and A's columns there doubled, which saves a multiplication.
    by_a, by_b = 4 * a * (a - b), 2 * b * (b - a)
    return (
        (1 / (a * b), 0.0, 0.0),
        *((1 / by_a, sign * ROOT / 2 / by_a, a / by_a) for sign in (1, -1)),
        *((1 / by_b, sign * ROOT / by_b, b / by_b) for sign in (1, -1)),
        (0.0, 0.0, 1.0),
    )


F4 = Filtering(4, _filters4(), _b4, _a4, _a4_transposed)
F2 = Filtering(
    2,
    ((1.0, 0.0, 0.0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0.0, 0.0, 1.0)),
    _b2,
    _a2,
    _a2_transposed,
)
