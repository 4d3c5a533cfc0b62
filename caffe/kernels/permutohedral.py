"""Gaussian filtering of scattered points in several dimensions, on a permutohedral lattice.

The points are spread to the corners of the simplex around each, the lattice is blurred along its
axes, and the values are gathered again (Adams, Baek and Davis, 2010). The arithmetic is in float32
and in the order of Kraehenbuehl and Koltun's code (2011), because rounding decides which simplex a
point lies in.
"""

from __future__ import annotations

import math

import torch

from caffe.errors import CaffeError

LARGEST = 2**62  # of the numbers that stand for lattice points
FAR = 2**20  # float32 holds no finer places beyond


class Lattice:
    """The lattice of the points `features`, (N, d), finite; it filters any number of channels."""

    def __init__(self, features: torch.Tensor) -> None:
        features = features.detach().float()
        self.count, self.axes = features.shape
        if not bool(torch.isfinite(features).all()):
            raise CaffeError("features of the lattice are not finite")
        if self.count and float(features.abs().max()) > FAR:
            raise CaffeError("features of the lattice lie too far apart for its fineness")
        # The forks' code works on four points at a time. What fills the last four up is points of
        # zeros, whose corners are in the lattice, too.
        more = -self.count % 4
        if more:
            features = torch.cat([features, features.new_zeros(more, self.axes)])
        keys, weights = _simplices(features)
        self._build(keys)
        self.weights = weights[: self.count]

    def _build(self, keys: torch.Tensor) -> None:
        """Number the lattice points and find their neighbours. keys: (N, d + 1, d)."""
        d = self.axes
        low = keys.amin((0, 1)) - d - 1
        spans = keys.amax((0, 1)) - low + d + 2
        if math.prod(spans.tolist()) > LARGEST:
            raise CaffeError("features of the lattice lie too far apart for its fineness")
        steps = torch.ones(d, dtype=torch.int64, device=keys.device)
        for axis in range(d - 1):
            steps[axis + 1] = steps[axis] * spans[axis]
        codes, places = torch.unique(((keys - low) * steps).sum(-1), return_inverse=True)
        self.places, self.size = places[: self.count], len(codes)
        self.neighbours = []
        for axis in range(d + 1):
            move = -torch.ones(d, dtype=torch.int64, device=keys.device)
            if axis < d:
                move[axis] = d
            shift = (move * steps).sum()
            self.neighbours.append([_neighbours(codes, sign * shift) for sign in (1, -1)])

    def filter(self, values: torch.Tensor) -> torch.Tensor:
        """The values (N, channels) filtered, differentiable. Points far from all others keep
        theirs.
        """
        return _Filtered.apply(values, self)

    def run(self, values: torch.Tensor, transposed: bool) -> torch.Tensor:
        """The filter or its transpose, which blurs along the axes in the other order."""
        table = values.new_zeros(self.size + 1, values.shape[1])  # the last row stays zero
        weights, places = self.weights.to(values.dtype), self.places.t().contiguous()
        for corner in range(self.axes + 1):
            table = table.index_add(0, places[corner], weights[:, corner, None] * values)
        order = -1 if transposed else 1
        for before, behind in self.neighbours[::order]:
            around = table.index_select(0, before).add_(table.index_select(0, behind))
            table = around.mul_(0.5).add_(table)
        total = torch.zeros_like(values)
        for corner in range(self.axes + 1):
            part = table.index_select(0, places[corner])
            total = torch.addcmul(total, part, weights[:, corner, None])
        return total * (1 / (1 + 2.0**-self.axes))


class _Filtered(torch.autograd.Function):
    """Lattice.filter: linear, so that its gradient needs no values of the forward pass."""

    @staticmethod
    def forward(ctx, values: torch.Tensor, lattice: Lattice):
        ctx.lattice = lattice
        return lattice.run(values, transposed=False)

    @staticmethod
    def backward(ctx, grad: torch.Tensor):
        return ctx.lattice.run(grad, transposed=True), None


def _neighbours(codes: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    """The place of each sorted code's neighbour; their number, the place of nothing, where there is
    none, and for nothing itself.
    """
    wanted, none = codes + shift, len(codes)
    place = torch.searchsorted(codes, wanted).clamp(max=none - 1)
    return torch.cat([torch.where(codes[place] == wanted, place, none), codes.new_tensor([none])])


def _simplices(features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The corners of the simplex around each point, (N, d + 1, d) of int64 (the last coordinate
    follows from the others), and the point's weight at each, (N, d + 1).
    """
    elevated = _elevated(features)
    d = features.shape[1]
    shrink = torch.tensor(1.0 / (d + 1), dtype=torch.float32, device=features.device)
    nearest = (elevated * shrink).round()  # half to even, as the processor's rounding
    origin, wrong = nearest * (d + 1), nearest.sum(1)
    rank = torch.zeros_like(origin)
    offset = elevated - origin
    for i in range(d):
        for j in range(i + 1, d + 1):
            less = (offset[:, i] < offset[:, j]).float()
            rank[:, i] += less
            rank[:, j] += 1 - less
    # A point beside the plane, whose coordinates have a sum, is brought back to it.
    rank = rank + wrong[:, None]
    move = (d + 1) * ((rank < 0).float() - (rank > d).float())
    rank, origin = rank + move, origin + move
    place = rank.long()
    weights = _barycentric((elevated - origin) * shrink, place)
    canonical = torch.tensor(
        [[i if j <= d - i else i - (d + 1) for j in range(d + 1)] for i in range(d + 1)],
        device=features.device,
    )
    keys = origin.long()[:, None, :d] + canonical[:, place[:, :d]].transpose(0, 1)
    return keys, weights


def _elevated(features: torch.Tensor) -> torch.Tensor:
    """The points on the plane of the lattice, (N, d + 1)."""
    d = features.shape[1]
    deviation = torch.tensor(math.sqrt(2.0 / 3.0) * (d + 1)).item()  # of the blur, as float32
    columns, total = [], torch.zeros_like(features[:, 0])
    for j in range(d, 0, -1):
        scale = torch.tensor(1.0 / math.sqrt((j + 1) * j) * deviation).item()
        value = features[:, j - 1] * scale
        columns.append(total - j * value)
        total = total + value
    return torch.stack([total, *reversed(columns)], 1)


def _barycentric(offset: torch.Tensor, rank: torch.Tensor) -> torch.Tensor:
    """The weights of the corners, (N, d + 1). offset: from corner 0, in units of the lattice."""
    d = rank.shape[1] - 1
    weights = offset.new_zeros(len(offset), d + 2)
    weights.scatter_add_(1, d - rank, offset)
    weights.scatter_add_(1, d + 1 - rank, -offset)
    weights[:, 0] += 1 + weights[:, d + 1]
    return weights[:, : d + 1]
