"""Batches, resizing, views and the best class."""

import numpy as np
import pytest

from data_tools.cli import DataError
from eval_tools.inference import (
    Options,
    batches,
    first_highest,
    probabilities,
    resize_maps,
    segment,
)
from eval_tools.records import Record


class Painted:
    """Stands in for Network: the scores of a frame are its colour planes and depth, as they are."""

    name, values, scene, scenes = "painted", 4, None, 0

    def __init__(self, size=(4, 6)):
        self.size, self.seen = size, []

    def scores(self, color, depth):
        self.seen.append(depth[0].shape)
        maps = [
            np.concatenate([c.transpose(2, 0, 1), d[None]])
            for c, d in zip(color, depth, strict=True)
        ]
        return np.stack(maps).astype(np.float32) / 25


def frame(seed, shape=(4, 6)):
    random = np.random.default_rng(seed)
    color = random.integers(0, 255, (*shape, 3), dtype=np.uint8)
    return Record(str(seed), color, random.integers(0, 255, shape, dtype=np.uint8))


def planes(record):
    return np.concatenate([record.color.transpose(2, 0, 1), record.depth[None]])


def test_batches_are_full_of_one_size_and_in_order():
    sizes = [(4, 6)] * 5 + [(3, 3)] * 2 + [(4, 6)]
    frames = [frame(i, size) for i, size in enumerate(sizes)]
    assert [[r.key for r in b] for b in batches(frames, 3)] == [
        ["0", "1", "2"],
        ["3", "4"],
        ["5", "6"],
        ["7"],
    ]


def test_first_highest_is_argmax_and_keeps_what_is_not_a_number():
    maps = np.random.default_rng(0).integers(0, 3, (7, 20, 30)).astype(np.float32)
    index, best = first_highest(maps)
    assert np.array_equal(index, maps.argmax(0))
    assert np.array_equal(best, maps.max(0))
    maps[3, 0, 0] = np.nan
    assert np.isnan(first_highest(maps)[1][0, 0])


def test_the_label_is_the_highest_score_and_confidence_its_probability():
    record = frame(0)
    plain = segment(Painted(), [record], Options())[0]
    found = segment(Painted(), [record], Options(), confidence=True)[0]
    assert np.array_equal(found.label, planes(record).argmax(0))
    assert np.array_equal(found.label, plain.label)
    assert plain.confidence is None
    scores = planes(record) / 25
    softmax = np.exp(scores) / np.exp(scores).sum(0)
    assert found.confidence == pytest.approx(softmax.max(0), rel=1e-5)


def test_probabilities_of_a_net_that_ends_in_softmax_stay():
    raw = np.random.default_rng(0).normal(size=(4, 3, 5)).astype(np.float32)
    every = np.arange(4)
    once = probabilities(raw, every)
    assert once.sum(0) == pytest.approx(np.ones((3, 5)), abs=1e-6)
    assert probabilities(once, every) == pytest.approx(once, abs=1e-6)
    some = probabilities(raw, np.array([1, 3]))
    assert probabilities(once, np.array([1, 3])) == pytest.approx(some, abs=1e-6)


def test_resizing_has_pixel_centres_at_halves():
    # Twice as wide: new centres lie at 1/4 and 3/4 between the old ones, the ends stay.
    found = resize_maps(np.array([[[0, 4, 8]]], np.float32), (6, 1))
    assert found[0, 0].tolist() == [0, 1, 3, 5, 7, 8]


def test_size_runs_the_net_at_its_own_size_and_labels_at_the_wanted_one():
    network = Painted(size=(4, 6))
    found = segment(network, [frame(0, (8, 12))], Options(size=(12, 8)))[0]
    assert network.seen == [(4, 6)]
    assert found.label.shape == (8, 12)


def test_views_are_averaged_as_probabilities():
    record = frame(1)
    network = Painted()
    found = segment(network, [record], Options(flip=True, scales=(1.0, 2.0)), confidence=True)[0]
    assert network.seen == [(4, 6), (4, 6), (8, 12), (8, 12)]
    assert found.label.shape == (4, 6)
    # A net that sees single pixels answers a mirrored frame mirrored: flipping changes nothing.
    flipped = segment(Painted(), [record], Options(flip=True), confidence=True)[0]
    once = segment(Painted(), [record], Options(), confidence=True)[0]
    assert np.array_equal(flipped.label, once.label)
    assert flipped.confidence == pytest.approx(once.confidence, abs=1e-6)


def test_chosen_labels_keep_their_numbers():
    record = frame(2)
    found = segment(Painted(), [record], Options(labels=(1, 3)), confidence=True)[0]
    pair = planes(record)[[1, 3]]
    assert np.array_equal(found.label, np.array([1, 3])[pair.argmax(0)])
    gap = np.abs(pair[0].astype(float) - pair[1]) / 25
    assert found.confidence == pytest.approx(1 / (1 + np.exp(-gap)), rel=1e-4)


def test_crf_keeps_the_chosen_labels():
    found = segment(Painted(), [frame(3)], Options(labels=(2, 3), crf=True))[0]
    assert set(np.unique(found.label)) <= {2, 3}


def test_scores_that_are_not_finite_are_refused():
    class Broken(Painted):
        def scores(self, color, depth):
            return super().scores(color, depth) * np.nan

    with pytest.raises(DataError, match="painted: the scores of frame 0 are not finite"):
        segment(Broken(), [frame(0)], Options())
