"""Uncertainty of metrics: bootstrap intervals over frames, and a paired test of two models.

Whole frames are drawn, because the pixels of a frame are far from independent. Frames of one room
are not independent either, so the intervals tend to be too narrow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from eval_tools.metrics import figures

CHUNK = 250  # number of resampled sets at a time, which bounds memory


@dataclass(frozen=True)
class Difference:
    """A metric of one model minus that of another, its 95 % interval and the paired test's p."""

    value: float
    low: float
    high: float
    p: float


def intervals(
    frames: np.ndarray, samples: int = 1000, seed: int = 0, level: float = 0.95
) -> dict[str, tuple[float, float]]:
    """Percentile bootstrap intervals of the four metrics (Efron and Tibshirani, 1993, chapter 13).

    Args:
        frames: (frames, 3, classes): pixels right, true and predicted, as Tally.frames.
        samples: the number of sets of frames drawn with replacement.
    Returns:
        Metric -> (low, high); NaN if the metric is undefined in all sets.
    """
    drawn = _resample(samples, seed, len(frames), lambda weights: _figures(weights, frames))
    return {name: _percentiles(values, level) for name, values in drawn.items()}


def paired(
    one: np.ndarray, two: np.ndarray, samples: int = 1000, seed: int = 0, level: float = 0.95
) -> dict[str, Difference]:
    """Differences, one minus two, of two models on the same frames.

    The interval is a bootstrap that draws the same frames for both models. p is that of a two-sided
    approximate randomisation test (Noreen, 1989): the share of random assignments of the two
    outputs to the models, frame by frame, that give a difference at least as large. The observed
    outcome counts as one of them, so p is at least 1 / (samples + 1).

    Args:
        one, two: (frames, 3, classes) of the same frames in the same order.
    Raises:
        ValueError: their shapes differ.
    """
    if one.shape != two.shape:
        raise ValueError(f"shapes {one.shape} and {two.shape} differ")

    def drawn(weights: np.ndarray) -> dict[str, np.ndarray]:
        a, b = _figures(weights, one), _figures(weights, two)
        return {name: a[name] - b[name] for name in a}

    def swapped(coins: np.ndarray) -> dict[str, np.ndarray]:
        moved = _sums(coins, two.astype(np.float64) - one)
        a, b = one.sum(0) + moved, two.sum(0) - moved
        a, b = figures(*_parts(a)), figures(*_parts(b))
        return {name: a[name] - b[name] for name in a}

    everything = np.ones((1, len(one)))
    observed = {name: float(value[0]) for name, value in drawn(everything).items()}
    spread = _resample(samples, seed, len(one), drawn)
    chance = _resample(samples, seed + 1, len(one), swapped, _coins)
    found = {}
    for name, value in observed.items():
        low, high = _percentiles(spread[name], level)
        # Differences that are equal up to rounding count as equal: swapping all frames gives one.
        extreme = np.abs(chance[name]) >= abs(value) - 1e-12
        p = (1 + np.count_nonzero(extreme)) / (1 + samples)
        found[name] = Difference(value, low, high, float(p))
    return found


def _draws(random: np.random.Generator, sets: int, frames: int) -> np.ndarray:
    """The number of times each frame is drawn into each set, with replacement: (sets, frames)."""
    return random.multinomial(frames, np.full(frames, 1 / frames), sets).astype(np.float64)


def _coins(random: np.random.Generator, sets: int, frames: int) -> np.ndarray:
    """Heads or tails for each frame in each set: (sets, frames) of 0 and 1."""
    return random.integers(0, 2, (sets, frames)).astype(np.float64)


def _resample(
    samples: int,
    seed: int,
    frames: int,
    measure: Callable[[np.ndarray], dict[str, np.ndarray]],
    draw: Callable[[np.random.Generator, int, int], np.ndarray] = _draws,
) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    parts = [measure(draw(random, sets, frames)) for sets in _chunks(samples)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _chunks(samples: int) -> Iterator[int]:
    for first in range(0, samples, CHUNK):
        yield min(CHUNK, samples - first)


def _sums(weights: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """(sets, frames) and (frames, 3, classes) -> weighted sums (sets, 3, classes)."""
    flat = weights @ frames.reshape(len(frames), -1).astype(np.float64)
    return flat.reshape(len(weights), *frames.shape[1:])


def _figures(weights: np.ndarray, frames: np.ndarray) -> dict[str, np.ndarray]:
    return figures(*_parts(_sums(weights, frames)))


def _parts(sums: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return sums[..., 0, :], sums[..., 1, :], sums[..., 2, :]


def _percentiles(values: np.ndarray, level: float) -> tuple[float, float]:
    values = values[~np.isnan(values)]
    if not len(values):
        return float("nan"), float("nan")
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
