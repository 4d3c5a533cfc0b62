"""The curve of a sweep: smoothing, suggestion, and what is drawn of it."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from caffe.train.rate_curve import Curve

RATES = tuple(np.geomspace(1e-6, 10, 141).tolist())  # 20 a decade


def _valley(noise: float = 0.0, bottom: float = 0.1) -> Curve:
    """Loss 4 up to 1e-4, then down by logarithm to 1 at `bottom`, then up twice as fast."""
    x = np.log10(RATES)
    fall = 3 / (np.log10(bottom) + 4)
    y = np.where(x < -4, 4, np.where(x < np.log10(bottom), 4 - fall * (x + 4), 1))
    y = y + 2 * fall * np.maximum(0, x - np.log10(bottom))
    y = y + np.random.default_rng(0).normal(0, noise, len(y))
    return Curve(4, RATES, tuple(y.tolist()))


@pytest.mark.parametrize("noise", [0, 0.3])
def test_a_tenth_of_the_lowest_is_suggested(noise: float) -> None:
    curve = _valley(noise)
    assert 0.005 < curve.suggested < 0.02  # the lowest is at 0.1, which noise moves a little
    assert 1e-4 < curve.steepest < 0.1
    assert curve.words()[0] == f"Suggestion: base_lr: {curve.suggested:.2g}"
    assert f"{curve.level:.4g} at the start" in curve.words()[1]
    assert curve.level == pytest.approx(4, abs=0.1)
    assert "still falling" not in curve.words()[1]


def test_smoothing_keeps_lines_and_does_not_lag() -> None:
    x = np.arange(141.0)
    line = Curve(300, RATES, tuple((200 - x).tolist())).smoothed
    np.testing.assert_allclose(line[25:-25], (200 - x)[25:-25], rtol=1e-6)


def test_an_explosion_does_not_reach_back() -> None:
    """The lowest stays where it is, whatever the last loss is."""
    losses = [*np.linspace(2, 1, 60), 1e30]
    curve = Curve(2, RATES[:61], tuple(losses), diverged=True)
    assert 50 < curve.lowest < 60
    assert curve.suggested == RATES[curve.lowest] / 10


def test_a_loss_that_falls_nowhere_suggests_nothing() -> None:
    flat = Curve(2, RATES, (2.0,) * 70 + tuple(np.linspace(1.98, 3, 71).tolist()))
    assert flat.suggested is None
    assert flat.steepest is None
    lowest = f"{RATES[flat.lowest]:.2g}: {min(flat.smoothed):.4g}"
    assert flat.words() == [
        f"No rate is suggested: the smoothed loss (2 at the start; lowest at {lowest}) falls by "
        "less than 2%."
    ]
    assert "^" not in "".join(flat.plot(80))


@pytest.mark.parametrize("seed", range(20))
def test_chance_suggests_nothing(seed: int) -> None:
    """A net that learns nothing, on batches that differ."""
    losses = np.random.default_rng(seed).normal(2, 0.5, 100)
    curve = Curve(2, RATES[:100], tuple(losses.tolist()))
    assert curve.suggested is None
    how = "falls no further than batches differ by chance; more -iterations"
    assert (how if curve.lowest else "is not lower at any higher rate") in curve.words()[0]


def test_a_loss_that_still_falls_asks_for_more() -> None:
    falling = Curve(3, RATES, tuple(np.linspace(3, 1, 141).tolist()))
    assert "still falling at the last rates" in falling.words()[1]


def test_the_table() -> None:
    lines = Curve(2, (0.1, 0.2), (1.5, 1.0)).csv().splitlines()
    assert lines[0] == "rate,loss,smoothed"
    assert [line.split(",")[:2] for line in lines[1:]] == [["0.1", "1.5"], ["0.2", "1"]]


@pytest.mark.parametrize("width", [80, 40, 20])
def test_the_text_fits(width: int) -> None:
    lines = _valley().plot(width)
    assert max(map(len, lines)) <= width
    assert lines[0] == "loss over rate"
    assert sum("^" in line for line in lines) == 1
    # The axis' ^ stands below the fall: the curve is above it, left of its lowest place.
    mark = next(line for line in lines if "^" in line).index("^")
    low = [line for line in lines if "*" in line][-1].index("*")
    assert mark < low


def test_the_text_names_powers_of_ten() -> None:
    assert _valley().plot(80)[-1].split() == [f"1e{n}" for n in range(-6, 2)]


@pytest.mark.parametrize(
    "curve",
    [
        _valley(),
        Curve(1, (1e-6,), (1.0,)),  # stopped after one update
        Curve(0, RATES, (0.0,) * 141),
        Curve(-5, RATES, tuple(np.linspace(-5, -9, 141).tolist())),
        Curve(1, RATES[:20], (*(1.0,) * 19, 1e38), diverged=True),
    ],
    ids=["valley", "one update", "zero", "negative", "exploded"],
)
def test_every_curve_is_drawn(curve: Curve) -> None:
    picture = cv2.imdecode(np.frombuffer(curve.png("SGD"), np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape == (600, 960, 3)
    assert max(map(len, curve.plot(60))) <= 60
    assert curve.words()
