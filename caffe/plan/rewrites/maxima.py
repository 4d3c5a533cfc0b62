"""The largest values of overlapping windows, along one axis and then along the other.

PyTorch's max pooling notes the place of each maximum, too, and looks at all values of each window:
nine for 3x3. Along one axis after the other it is three and three, compared for whole images.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from caffe.layers.pooling import Windows

# Values. Below LEAST, PyTorch's pooling has done before these operations are called; up to PIECE
# at once stay in the processor's cache from one to the next.
LEAST, PIECE = 1 << 16, 1 << 20

Index = tuple[slice, ...]


class _Tap(NamedTuple):
    """One place of the windows along an axis: which windows have a value there, from `first` to
    `end`, and where in the image the first of these lies.
    """

    first: int
    end: int
    start: int


class _Along:
    """Maxima along an axis of (N, H, W, C). Raises ValueError if no place is in all windows."""

    def __init__(self, axis: int, size: int, count: int, kernel: int, stride: int, pad: int):
        self.axis, self.stride = axis, stride
        taps = []
        for k in range(kernel):
            first = max(0, -(-(pad - k) // stride))
            end = min(count, (size - 1 + pad - k) // stride + 1)
            if end > first:
                taps.append(_Tap(first, end, first * stride - pad + k))
        whole = next((tap for tap in taps if (tap.first, tap.end) == (0, count)), None)
        others = [tap for tap in taps if tap is not whole]
        if whole is None or not others:
            raise ValueError("no place is in all windows")
        others.sort(key=lambda tap: tap.first - tap.end)
        second = others[0]
        # Of the result, and of the image, as two terms of a maximum.
        self._begin = [self._index(tap, second.first, second.end) for tap in (whole, second)]
        self._into = self._windows(second.first, second.end)
        ends = [(0, second.first), (second.end, count)]
        self._copied = [
            (self._windows(*end), self._index(whole, *end)) for end in ends if end[0] < end[1]
        ]
        self._rest = [
            (self._windows(tap.first, tap.end), self._index(tap, tap.first, tap.end))
            for tap in others[1:]
        ]

    def __call__(self, x: torch.Tensor, y: torch.Tensor) -> None:
        """Write the maxima of x to y."""
        first, second = self._begin
        torch.maximum(x[first], x[second], out=y[self._into])
        for into, values in self._copied:
            y[into].copy_(x[values])
        for into, values in self._rest:
            part = y[into]
            torch.maximum(part, x[values], out=part)

    def _windows(self, first: int, end: int) -> Index:
        return (slice(None),) * self.axis + (slice(first, end),)

    def _index(self, tap: _Tap, first: int, end: int) -> Index:
        """Where the values of some windows lie."""
        start = tap.start + (first - tap.first) * self.stride
        stop = start + (end - first - 1) * self.stride + 1
        return (slice(None),) * self.axis + (slice(start, stop, self.stride),)


class Maxima:
    """Max pooling of channels-last images of one shape (N, C, H, W), some of them at a time."""

    def __init__(self, shape: Sequence[int], windows: Windows) -> None:
        """Raises ValueError for windows that do without."""
        n, c, h, w = shape
        rows, columns = windows.count((h, w))
        self._along = [
            _Along(axis, size, count, kernel, stride, pad)
            for axis, size, count, kernel, stride, pad in zip(
                (1, 2),
                (h, w),
                (rows, columns),
                windows.kernel,
                windows.stride,
                windows.pad,
                strict=True,
            )
        ]
        self._images = max(1, min(n, PIECE // (c * h * w)))
        self._half, self._whole = (self._images, rows, w, c), (n, rows, columns, c)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """The maxima; NaN where a window holds one."""
        x = x.permute(0, 2, 3, 1)
        y, half = x.new_empty(self._whole), x.new_empty(self._half)
        rows, columns = self._along
        for values, top in zip(x.split(self._images), y.split(self._images), strict=True):
            between = half[: len(values)]
            rows(values, between)
            columns(between, top)
        return y.permute(0, 3, 1, 2)


def maxima(shape: Sequence[int], windows: Windows) -> Maxima | None:
    """Max pooling for images of that shape, None where PyTorch's takes less time."""
    n, c, h, w = shape
    (height, width), (rows, columns) = windows.kernel, windows.count((h, w))
    compared = height * rows * w + width * rows * columns
    if n * c * h * w < LEAST or compared > height * width * rows * columns:
        return None
    try:
        return Maxima(shape, windows)
    except ValueError:
        return None
