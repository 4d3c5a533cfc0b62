"""Pooling of regions of interest that are turned."""

from __future__ import annotations

import torch

from caffe.kernels.regions import Windows, alike, as_rows, half_away, largest, take
from caffe.layers.base import Shape, Tensors, register, with_gradient_of
from caffe.layers.roi import Pooled

DEGREE = 3.1415926 / 180  # crpn's


@register("RotateROIPooling")
class RotateROIPooling(Pooled):
    """ROIPooling of regions that are turned.

    Bottoms: images (N, C, H, W); regions (R, 6), which have an angle in degrees behind the corners.
    Top: (R, C, pooled_h, pooled_w). Each pixel of a region is turned about its centre and rounded;
    values below 0 give 0 (crpn's rotate_roi_pooling_layer.cu).
    """

    fork = "crpn"
    judge = "recorded"
    reads = ("rotate_roi_pooling_param",)
    numbers = 6

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        image, region = self.regions(bottom)
        x = bottom[0]
        _, channels, high, wide = x.shape
        first, last = (half_away(v) for v in self.padded(region, 0))
        turned = _Turned(first, last, region[:, 4] * DEGREE)
        tall, broad = self.bins(first, last)
        self._check_size(tall, broad)
        rows = as_rows(x)
        at = image.new_empty((len(image), channels, self.rows, self.columns))
        for part, h, w in alike(tall, broad, channels):
            line = tall.of(part).positions(h).to(x.dtype)
            column = broad.of(part).positions(w).to(x.dtype)
            line, column = turned.pixels(part, line[:, :, None], column[:, None])
            outside = (line < 0) | (line >= high) | (column < 0) | (column >= wide)
            pixel = (image[part].view(-1, 1, 1) * high + line) * wide + column
            pixel = pixel.masked_fill(outside, len(rows))
            padded = torch.cat([rows.detach(), rows.new_zeros(1, channels)])
            best, where = largest(padded, pixel, (h, w))
            at[part] = where.masked_fill(~(best > 0), -1)
        down = take(rows, turned.reached(at, self, x.shape))
        return with_gradient_of(take(rows.detach(), at), down)

    def _check_size(self, tall: Windows, broad: Windows) -> None:
        """Refuse regions far larger than any image: their pixels are looked at one by one."""
        if len(tall.start):
            h, w = ((axis.end - axis.start).amax().item() for axis in (tall, broad))
            pixels = h * w * self.rows * self.columns
            self.check(pixels <= 2**26, f"a region of {pixels} pixels is out of range")


class _Turned:
    """Regions with whole corners (R, 2) and angles (R): their pixels turned about their centres."""

    def __init__(self, first: torch.Tensor, last: torch.Tensor, angle: torch.Tensor) -> None:
        self.first, self.size = first, (last - first + 1).clamp(min=1)
        self.last = last
        self.centre = (first + self.size * 0.5).trunc()
        self.cos, self.sin = angle.cos(), angle.sin()

    def pixels(
        self, part: torch.Tensor, line: torch.Tensor, column: torch.Tensor, back: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Turned and rounded positions, int64, of pixels (r, ...) of the regions `part`."""
        shape = (-1,) + (1,) * (line.dim() - 1)
        sin = -self.sin if back else self.sin
        x, y, cos, sin = (
            v[part].view(shape) for v in (self.centre[:, 0], self.centre[:, 1], self.cos, sin)
        )
        dx, dy = column - x, line - y
        return (
            (half_away(dy * cos - dx * sin) + y).long(),
            (half_away(dx * cos + dy * sin) + x).long(),
        )

    def reached(self, at: torch.Tensor, layer: RotateROIPooling, shape: Shape) -> torch.Tensor:
        """`at` (R, C, P, Q), the pixels that gave the values, or -1 where crpn's backward pass does
        not look for the value: it turns a pixel back with a rounding of its own.
        """
        _, _, high, wide = shape
        pixel = at.clamp(min=0) % (high * wide)
        line, column = (pixel // wide).to(self.cos), (pixel % wide).to(self.cos)
        every = torch.arange(len(at), device=at.device)
        y, x = self.pixels(every, line, column, back=True)
        seen = self._inside(every, line, column)
        for axis, back, count in ((1, y, layer.rows), (0, x, layer.columns)):
            start = self.first[:, axis].view(-1, 1, 1, 1)
            each = (self.size[:, axis] / count).view(-1, 1, 1, 1)
            steps = torch.arange(count, device=at.device)
            steps = steps[:, None] if axis else steps
            least = ((back - start) / each).floor().clamp(0, count)
            most = ((back - start + 1) / each).ceil().clamp(0, count)
            seen = seen & (steps >= least) & (steps < most)
        return at.masked_fill(~seen, -1)

    def _inside(
        self, every: torch.Tensor, line: torch.Tensor, column: torch.Tensor
    ) -> torch.Tensor:
        """Whether pixels lie inside the turned regions, grown by one pixel."""
        (left, top), (right, bottom) = (self.first - 1).T, (self.last + 1).T
        columns = torch.stack([left, right, right, left], 1)
        lines = torch.stack([top, top, bottom, bottom], 1)
        y, x = self.pixels(every, lines, columns)
        signs = []
        for i in range(4):
            y0, x0, y1, x1 = (
                v.view(-1, 1, 1, 1).to(line)
                for v in (y[:, i], x[:, i], y[:, (i + 1) % 4], x[:, (i + 1) % 4])
            )
            signs.append((x1 - x0) * (line - y0) - (y1 - y0) * (column - x0))
        sides = torch.stack(signs)
        return (sides > 0).all(0) | (sides < 0).all(0)
