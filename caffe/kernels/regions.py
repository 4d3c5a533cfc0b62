"""Regions of images: which pixels they cover, their largest values, and values between pixels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch

PIXELS_AT_ONCE = 2**24  # values that are gathered at a time
FAR = 1e6  # positions beyond are taken for this one


class Windows(NamedTuple):
    """The windows of R regions along one axis: (R, P) first positions and ends, int64."""

    start: torch.Tensor
    end: torch.Tensor

    def shifted(self, by: torch.Tensor) -> Windows:
        """The windows moved by (R) positions."""
        return Windows(self.start + by.long()[:, None], self.end + by.long()[:, None])

    def of(self, regions: torch.Tensor) -> Windows:
        """The windows of some of the regions."""
        return Windows(self.start[regions], self.end[regions])

    def clipped(self, extent: int) -> Windows:
        """The windows inside 0 .. extent."""
        return Windows(self.start.clamp(0, extent), self.end.clamp(0, extent))

    @property
    def empty(self) -> torch.Tensor:
        """(R, P), which windows hold nothing."""
        return self.end <= self.start

    def positions(self, width: int) -> torch.Tensor:
        """The positions in windows of at most `width`, (R, P * width); the last one is repeated."""
        steps = torch.arange(width, device=self.start.device)
        places = self.start[..., None] + steps
        last = torch.maximum(self.end - 1, self.start)
        return torch.minimum(places, last[..., None]).flatten(1)


def half_away(x: torch.Tensor) -> torch.Tensor:
    """x rounded as C's round() does: halves go away from zero. NaN becomes 0."""
    x = torch.nan_to_num(x).clamp(-FAR, FAR)
    whole = x.trunc()
    return whole + torch.where((x - whole).abs() >= 0.5, x.sign(), torch.zeros_like(x))


def windows(start: torch.Tensor, size: torch.Tensor, count: int) -> Windows:
    """`count` overlapping windows that cover `size` positions from `start` on: (R) floats each.

    The bounds are rounded outwards, after an addition in floating point, as R-FCN does.
    """
    steps = torch.arange(count, device=start.device, dtype=start.dtype)
    each = (size / count)[:, None]
    first = (steps * each + start[:, None]).floor()
    end = ((steps + 1) * each + start[:, None]).ceil()
    return Windows(first.long(), end.long())


def as_rows(x: torch.Tensor) -> torch.Tensor:
    """Images (N, C, H, W) as (N * H * W, C): one row a pixel."""
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])


def take(rows: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
    """Values of rows (pixels, C) at the pixels (R, C, P, Q); 0 where the pixel is negative."""
    order = at.permute(0, 2, 3, 1)
    found = rows.gather(0, order.reshape(-1, order.shape[3]).clamp(min=0)).view(order.shape)
    return torch.where(order >= 0, found, torch.zeros_like(found)).permute(0, 3, 1, 2)


def alike(
    height: Windows, width: Windows, channels: int
) -> Iterator[tuple[torch.Tensor, int, int]]:
    """Groups of regions whose largest windows have one size: (their numbers, that height, width).

    A group is small enough to gather all pixels of its windows for so many channels.
    """
    tall = (height.end - height.start).amax(1).clamp(min=1)
    wide = (width.end - width.start).amax(1).clamp(min=1)
    sizes, which = torch.stack([tall, wide], 1).unique(dim=0, return_inverse=True)
    bins = height.start.shape[1] * width.start.shape[1]
    for i, (h, w) in enumerate(sizes.tolist()):
        members = (which == i).nonzero().flatten()
        step = max(1, PIXELS_AT_ONCE // max(1, bins * h * w * channels))
        for part in members.split(step):
            yield part, h, w


def largest(
    rows: torch.Tensor, pixels: torch.Tensor, kernel: tuple[int, int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """The largest value of each window and its pixel, both (R, C, P, Q); the first one of equals.

    rows: (pixels, C). pixels: (R, P * kernel height, Q * kernel width), the windows side by side.
    """
    found = rows[pixels].permute(0, 3, 1, 2)  # channels stay innermost in memory
    best, at = torch.nn.functional.max_pool2d(found, kernel, kernel, return_indices=True)
    shape = at.shape
    return best, pixels.flatten(1).gather(1, at.flatten(1)).view(shape)


class Between(NamedTuple):
    """Positions between the pixels of one axis: the pixels below and above, and the share above.

    inside: where the position is no more than half a pixel outside.
    """

    low: torch.Tensor
    high: torch.Tensor
    share: torch.Tensor
    inside: torch.Tensor


def between(position: torch.Tensor, extent: int) -> Between:
    """The neighbours of float positions; those outside are moved to the border."""
    inside = (position >= -0.5) & (position <= extent - 0.5)
    moved = torch.nan_to_num(position).clamp(0, extent - 1)
    low = moved.floor()
    return Between(low.long(), (low + 1).clamp(max=extent - 1).long(), moved - low, inside)


def corners(y: Between, x: Between) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The four pixels around the points of grids (R, P) x (R, Q): their rows, columns and weights,
    each (R, P, Q, 4), in the order 00, 01, 10, 11 of (row, column). Weights of points more than
    half a pixel outside are 0.
    """
    rows = torch.stack([y.low, y.low, y.high, y.high], -1)[:, :, None]
    columns = torch.stack([x.low, x.high, x.low, x.high], -1)[:, None]
    along_y = torch.stack([1 - y.share, 1 - y.share, y.share, y.share], -1)[:, :, None]
    along_x = torch.stack([1 - x.share, x.share, 1 - x.share, x.share], -1)[:, None]
    inside = y.inside[:, :, None, None] & x.inside[:, None, :, None]
    weights = torch.where(inside, along_y * along_x, 0.0)
    return rows.expand_as(weights), columns.expand_as(weights), weights


def blend(rows: torch.Tensor, pixels: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Weighted sums (R, C, P, Q) of rows (pixels, C) at the pixels (R, P, Q, 4)."""
    regions, high, wide, each = pixels.shape
    found = torch.nn.functional.embedding_bag(
        pixels.reshape(-1, each),
        rows,
        per_sample_weights=weights.reshape(-1, each).to(rows.dtype),
        mode="sum",
    )
    return found.view(regions, high, wide, rows.shape[1]).permute(0, 3, 1, 2)


class LargestOfEach(torch.autograd.Function):
    """The largest values of windows that cover whole regions inside the images: (R, C, P, Q).

    images: (N, C, H, W). regions: (image, top, bottom, left, right), the ends not included. counts:
    windows along height and width, (P, Q). Window i of count windows over n positions is
    floor(i n / count) to ceil((i + 1) n / count).
    """

    @staticmethod
    def forward(
        ctx: Any, images: torch.Tensor, regions: Sequence[Sequence[int]], counts: tuple[int, int]
    ) -> torch.Tensor:
        # With its channels side by side PyTorch's pooling is ten times as fast.
        images = images.contiguous(memory_format=torch.channels_last)
        top = images.new_empty(len(regions), *counts, images.shape[1]).permute(0, 3, 1, 2)
        at = torch.empty_like(top, dtype=torch.long)
        for i, region in enumerate(regions):
            torch.ops.aten.adaptive_max_pool2d.out(
                part(images, region), counts, out=top[i : i + 1], indices=at[i : i + 1]
            )
        ctx.save_for_backward(images, at)
        ctx.regions = regions
        return top

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        images, at = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        down = torch.zeros_like(images)
        for i, region in enumerate(ctx.regions):
            one = slice(i, i + 1)
            found = torch.ops.aten.adaptive_max_pool2d_backward(
                gradient[one], part(images, region), at[one]
            )
            part(down, region).add_(found)
        return down, None, None


def part(images: torch.Tensor, region: Sequence[int]) -> torch.Tensor:
    """A view of one region (image, top, bottom, left, right): (1, C, height, width)."""
    image, top, bottom, left, right = region
    return images[image : image + 1, :, top:bottom, left:right]


def by_integers(size: torch.Tensor, at: Windows) -> torch.Tensor:
    """Whether all windows of R regions of `size` positions, relative to their first one, are those
    of LargestOfEach. Rounded in floating point, a few are one position larger.
    """
    count = at.start.shape[1]
    steps = torch.arange(count, device=size.device)
    first = steps * size[:, None] // count
    end = ((steps + 1) * size[:, None] + count - 1) // count
    return ((at.start == first) & (at.end == end)).all(1)
