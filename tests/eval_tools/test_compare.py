"""Intervals and the paired test, on cases whose answer is known."""

import itertools

import numpy as np
import pytest

from eval_tools.compare import CHUNK, intervals, paired
from eval_tools.metrics import figures


def draw(right, seed=0, pixels=100):
    """Frames (F, 3, 2) of two classes with that share of right pixels each."""
    random = np.random.default_rng(seed)
    frames = []
    for share in right:
        truths = random.multinomial(pixels, [0.5, 0.5])
        hits = random.binomial(truths, share)
        # What class 1 misses goes to class 2 and the other way round.
        frames.append([hits, truths, hits + (truths - hits)[::-1]])
    return np.array(frames, np.int32)


def test_interval_of_equal_frames_is_a_point():
    frames = np.repeat(draw([0.7]), 10, 0)
    value = float(figures(*frames[0])["mean_iou"])
    assert intervals(frames)["mean_iou"] == pytest.approx((value, value))


def test_interval_agrees_with_the_standard_error_of_a_mean():
    # Every frame has as many pixels, so global accuracy is the plain mean over frames and its
    # 95 % interval is about +-1.96 standard deviations / sqrt(frames).
    shares = np.random.default_rng(1).uniform(0.2, 0.9, 200)
    frames = draw(shares, pixels=1000)
    mean = frames[:, 0].sum(1) / frames[:, 1].sum(1)
    low, high = intervals(frames, samples=4 * CHUNK + 7)["global_accuracy"]
    error = 1.96 * mean.std(ddof=1) / np.sqrt(len(mean))
    assert (low, high) == pytest.approx((mean.mean() - error, mean.mean() + error), abs=0.1 * error)


def test_seeds_repeat_and_more_frames_narrow_the_interval():
    few, many = draw(np.linspace(0.3, 0.9, 10)), draw(np.linspace(0.3, 0.9, 1000))
    assert intervals(few, 100, seed=3) == intervals(few, 100, seed=3)
    width = [np.diff(intervals(frames, 300)["mean_iou"])[0] for frames in (few, many)]
    assert width[1] < width[0] / 5


def test_paired_p_is_that_of_all_swaps():
    one, two = draw([0.8, 0.7, 0.9, 0.6, 0.7], 1), draw([0.7, 0.7, 0.8, 0.6, 0.8], 2)
    two[:, 1] = one[:, 1]
    two[:, 0] = np.minimum(two[:, 0], two[:, 1])
    two[:, 2] = two[:, 0] + (two[:, 1] - two[:, 0])[:, ::-1]

    def gap(a, b):
        return figures(*a.sum(0))["mean_iou"] - figures(*b.sum(0))["mean_iou"]

    swaps = []
    for pattern in itertools.product([False, True], repeat=5):
        mask = np.array(pattern)[:, None, None]
        swaps.append(gap(np.where(mask, two, one), np.where(mask, one, two)))
    exact = np.mean(np.abs(swaps) >= abs(gap(one, two)) - 1e-12)
    found = paired(one, two, samples=4000)["mean_iou"]
    assert found.value == pytest.approx(gap(one, two))
    assert found.p == pytest.approx(exact, abs=0.03)


def test_a_model_does_not_differ_from_itself():
    frames = draw([0.5, 0.8, 0.6])
    for difference in paired(frames, frames, 50).values():
        assert (difference.value, difference.low, difference.high) == (0, 0, 0)
        assert difference.p == 1


def test_a_clear_and_steady_gain_is_significant_where_the_intervals_overlap():
    shares = np.random.default_rng(0).uniform(0.3, 0.9, 60)
    one, two = draw(shares, pixels=400), draw(shares, pixels=400)
    two = one.copy()
    gain = np.minimum(12, one[:, 1] - one[:, 0])
    two[:, 0] += gain
    two[:, 2] = two[:, 0] + (two[:, 1] - two[:, 0])[:, ::-1]
    apart = [intervals(frames)["mean_iou"] for frames in (one, two)]
    assert apart[0][1] > apart[1][0]
    difference = paired(two, one)["mean_iou"]
    assert difference.low > 0
    assert difference.p == pytest.approx(1 / 1001)


def test_other_frames_are_refused():
    with pytest.raises(ValueError, match="differ"):
        paired(draw([0.5]), draw([0.5, 0.6]))
