"""Refines class probabilities with a fully connected CRF on a frame's colours.

The model and its mean-field inference are those of Kraehenbuehl and Koltun, "Efficient inference in
fully connected CRFs with Gaussian edge potentials", NIPS 2011: different labels cost more between
pixels that are near each other, and even more if their colours are alike. The bilateral filter uses
the permutohedral lattice of Adams, Baek and Davis, "Fast high-dimensional filtering using the
permutohedral lattice", Eurographics 2010.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class Crf:
    """Strengths and standard deviations, with the defaults of the paper's authors.

    Distances are in pixels of a frame 500 wide, as theirs, and scale with the frame. Colour is
    0..255.
    """

    near_weight: float = 3.0
    near_distance: float = 3.0
    alike_weight: float = 10.0
    alike_distance: float = 80.0
    alike_color: float = 13.0
    iterations: int = 5
    reference_width: int = 500


def refine(probabilities: np.ndarray, color: np.ndarray, crf: Crf | None = None) -> np.ndarray:
    """Mean-field marginals of the CRF: float32 (classes, H, W), summing to 1 over the classes.

    Args:
        probabilities: (classes, H, W), the net's, summing to 1.
        color: (H, W, 3) uint8.
    """
    crf = crf or Crf()
    classes, height, width = probabilities.shape
    scale = width / crf.reference_width
    near = _features(height, width, crf.near_distance * scale)
    alike = np.concatenate(
        [
            _features(height, width, crf.alike_distance * scale),
            color.reshape(-1, 3).astype(np.float64) / crf.alike_color,
        ],
        axis=1,
    )
    filters = [(crf.near_weight, _Normalised(near)), (crf.alike_weight, _Normalised(alike))]
    flat = torch.from_numpy(np.ascontiguousarray(probabilities, np.float32))
    unary = flat.reshape(classes, -1).t().clamp_min(1e-8).log().contiguous()
    marginals = unary.softmax(1)
    for _ in range(crf.iterations):
        logits = unary.clone()
        for weight, smooth in filters:
            logits += weight * smooth(marginals)
        marginals = logits.softmax(1)
    return marginals.t().reshape(classes, height, width).numpy()


def _features(height: int, width: int, distance: float) -> np.ndarray:
    """(pixels, 2): each pixel's position in units of the standard deviation."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x.ravel(), y.ravel()], 1) / distance


class _Normalised:
    """A Gaussian filter that is divided by the root of its own response before and after, as in the
    paper's code, so that pixels with few neighbours weigh as much as others."""

    def __init__(self, features: np.ndarray) -> None:
        self._lattice = Lattice(features)
        ones = torch.ones(len(features), 1)
        self._scale = self._lattice.filter(ones).clamp_min(1e-20).rsqrt()

    def __call__(self, values: torch.Tensor) -> torch.Tensor:
        return self._lattice.filter(values * self._scale) * self._scale


class Lattice:
    """Gaussian filtering of points in d dimensions on the permutohedral lattice.

    Args:
        features: (points, d), in units of the standard deviation.
    """

    def __init__(self, features: np.ndarray) -> None:
        keys, weights = _simplices(features)
        points, vertices = weights.shape
        # Encodes a key's coordinates as digits of one number, with room for neighbours.
        low = keys.min((0, 1)) - vertices
        base = keys.max((0, 1)) + vertices + 1 - low
        if np.prod(base.astype(np.float64)) >= 2**63:
            raise ValueError("the features are too far apart for 64-bit keys")
        digits = np.cumprod(np.concatenate([[1], base[:-1]]))
        codes = ((keys - low) * digits).sum(-1)
        known, index = np.unique(codes, return_inverse=True)
        # Filtering multiplies by sparse matrices of three kinds: from points to vertices (splat),
        # between neighbouring vertices along each direction in turn (blur), and back (slice).
        count = len(known)
        point = np.repeat(np.arange(points), vertices)
        self._slice = _sparse(point, index.ravel(), weights.ravel(), (points, count))
        self._splat = _sparse(index.ravel(), point, weights.ravel(), (count, points))
        self._blur = [_blur(known, step) for step in _steps(digits, vertices)]

    def filter(self, values: torch.Tensor) -> torch.Tensor:
        """Gaussian-weighted sums of (points, channels), up to a constant factor."""
        lattice = torch.sparse.mm(self._splat, values)
        for blur in self._blur:
            lattice = torch.sparse.mm(blur, lattice)
        return torch.sparse.mm(self._slice, lattice)


def _sparse(
    rows: np.ndarray, columns: np.ndarray, values: np.ndarray, shape: tuple[int, int]
) -> torch.Tensor:
    indices = torch.from_numpy(np.stack([rows, columns]))
    values = torch.from_numpy(values.astype(np.float32))
    return torch.sparse_coo_tensor(indices, values, shape, check_invariants=False).coalesce()


def _blur(known: np.ndarray, step: int) -> torch.Tensor:
    """Half of each vertex, and a quarter of each existing neighbour one step before and after."""
    vertex = np.arange(len(known))
    place = np.minimum(np.searchsorted(known, known + step), len(known) - 1)
    found = known[place] == known + step
    here, there = vertex[found], place[found]
    rows = np.concatenate([vertex, here, there])
    columns = np.concatenate([vertex, there, here])
    values = np.repeat([0.5, 0.25], [len(vertex), 2 * len(here)])
    return _sparse(rows, columns, values, (len(known), len(known)))


def _steps(digits: np.ndarray, vertices: int) -> list[int]:
    """The change of a code by a step along each of the lattice's directions: +1 in all coordinates
    except -d in one. The last coordinate is not stored; it is the negative sum of the others."""
    every = int(digits.sum())
    return [every - vertices * int(digit) for digit in digits] + [every]


def _simplices(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The simplex of each point: vertex keys (points, d + 1, d) and barycentric weights."""
    points, d = features.shape
    # Scales by the standard deviation that blur and interpolation together have along each axis.
    axis = np.arange(d)
    scaled = features * (d + 1) * np.sqrt(2 / 3) / np.sqrt((axis + 1) * (axis + 2))
    # Maps to the plane of zero sum in d + 1 dimensions, by an orthogonal (triangular) basis.
    after = np.concatenate([np.cumsum(scaled[:, ::-1], 1)[:, ::-1], np.zeros((points, 1))], 1)
    elevated = after.copy()
    elevated[:, 1:] -= (axis + 1) * scaled
    # The nearest lattice point of remainder 0, and the order of the differences to it.
    nearest = np.rint(elevated / (d + 1)).astype(np.int64)
    excess = nearest.sum(1, keepdims=True)
    left = elevated - nearest * (d + 1)
    order = np.argsort(-left, 1, kind="stable")
    rank = np.empty_like(order)
    np.put_along_axis(rank, order, np.broadcast_to(np.arange(d + 1), order.shape), 1)
    rank += excess
    wrap = (rank < 0).astype(np.int64) - (rank > d)
    nearest += wrap
    rank += wrap * (d + 1)
    left = (elevated - nearest * (d + 1)) / (d + 1)
    # The barycentric coordinates are the successive differences in order of rank.
    ordered = np.empty_like(left)
    np.put_along_axis(ordered, rank, left, 1)
    weights = np.empty((points, d + 1))
    weights[:, 1:] = (ordered[:, :-1] - ordered[:, 1:])[:, ::-1]
    weights[:, 0] = 1 + ordered[:, -1] - ordered[:, 0]
    remainder = np.arange(d + 1)
    canonical = remainder[:, None] - (d + 1) * (remainder[:, None] > d - rank[:, None, :-1])
    keys = nearest[:, None, :-1] * (d + 1) + canonical
    return keys, weights
