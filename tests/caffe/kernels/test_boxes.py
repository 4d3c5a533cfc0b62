"""Boxes: areas, overlaps, codes, matching and suppression, by hand and by definition."""

import numpy as np
import pytest
import torch

from caffe.kernels import boxes

UNIT = torch.tensor([[0.0, 0.0, 1.0, 1.0]])


def drawn(count: int, seed: int) -> torch.Tensor:
    """Boxes within the unit square, each side at least 0.1."""
    rng = np.random.default_rng(seed)
    start, size = rng.uniform(0, 0.5, (count, 2)), rng.uniform(0.1, 0.5, (count, 2))
    return torch.tensor(np.concatenate([start, start + size], 1))


def test_area_counts_the_last_pixel_on_demand():
    box = torch.tensor([[2.0, 3.0, 5.0, 4.0]])
    assert boxes.areas(box).tolist() == [3]
    assert boxes.areas(box, plus=1).tolist() == [8]
    assert boxes.areas(torch.tensor([[5.0, 3.0, 2.0, 4.0]]), plus=1).tolist() == [0]


def test_overlap_is_intersection_over_union():
    other = torch.tensor([[0.5, 0.0, 1.5, 1.0], [1.0, 1.0, 2.0, 2.0], [3.0, 3.0, 4.0, 4.0]])
    assert boxes.overlaps(UNIT, other)[0].tolist() == pytest.approx([0.5 / 1.5, 0, 0])
    # With the last pixel: two boxes of 2 x 2 pixels that share one of them.
    assert boxes.overlaps(UNIT, other[1:2], plus=1).item() == pytest.approx(1 / 7)
    pairs = boxes.paired_overlaps(UNIT.expand(3, 4), other)
    assert pairs.tolist() == boxes.overlaps(UNIT, other)[0].tolist()


def test_a_point_overlaps_nothing():
    point = torch.tensor([[0.5, 0.5, 0.5, 0.5]])
    assert boxes.overlaps(point, point).item() == 0


def test_clip():
    wide = torch.tensor([[-1.0, 0.5, 7.0, 9.0]])
    assert boxes.clip(wide).tolist() == [[0, 0.5, 1, 1]]
    assert boxes.clip(wide, width=6, height=8).tolist() == [[0, 0.5, 6, 8]]


@pytest.mark.parametrize("code", [boxes.CORNER, boxes.CENTER_SIZE, boxes.CORNER_SIZE])
@pytest.mark.parametrize("variances", [None, torch.tensor([0.1, 0.1, 0.2, 0.2])])
def test_decode_is_the_inverse_of_encode(code, variances):
    truth, priors = drawn(20, 1), drawn(20, 2)
    codes = boxes.encode(truth, priors, variances, code)
    torch.testing.assert_close(boxes.decode(codes, priors, variances, code), truth)


def test_codes_by_hand():
    prior, box = torch.tensor([[0.2, 0.2, 0.4, 0.6]]), torch.tensor([[0.3, 0.2, 0.5, 1.0]])
    variances = torch.tensor([0.1, 0.1, 0.2, 0.2])
    corner = boxes.encode(box, prior, variances, boxes.CORNER)
    assert corner[0].tolist() == pytest.approx([1, 0, 0.5, 2])
    center = boxes.encode(box, prior, variances, boxes.CENTER_SIZE)
    assert center[0].tolist() == pytest.approx([5, 5, 0, np.log(2) / 0.2], abs=1e-5)
    sizes = boxes.encode(box, prior, None, boxes.CORNER_SIZE)
    assert sizes[0].tolist() == pytest.approx([0.5, 0, 0.5, 1])


def test_each_truth_gets_its_best_prediction_first():
    overlap = torch.tensor([[0.9, 0.6], [0.7, 0.3], [0.55, 0.52], [0.1, 0.0]])
    indices, best = boxes.match(overlap, None)
    # Truth 0 takes prediction 0; of the rest, prediction 2 overlaps truth 1 most.
    assert indices.tolist() == [0, -1, 1, -1]
    assert best.tolist() == pytest.approx([0.9, 0.7, 0.52, 0.1])
    assert boxes.match(overlap, 0.5)[0].tolist() == [0, 0, 1, -1]


def test_ignored_predictions_take_no_part():
    overlap = torch.tensor([[0.9], [0.2]])
    indices, best = boxes.match(overlap, 0.5, torch.tensor([True, False]))
    assert indices.tolist() == [boxes.IGNORED, 0]
    assert best.tolist() == pytest.approx([0, 0.2])


def by_definition(b, scores, threshold, top_k, eta) -> list[int]:
    """Each box in the order of scores against all that are kept so far."""
    ratio = boxes.overlaps(torch.tensor(b), torch.tensor(b)).numpy()
    order = sorted(range(len(b)), key=lambda i: -scores[i])
    kept: list[int] = []
    for i in order[: top_k if top_k >= 0 else None]:
        if all(ratio[i, j] <= threshold for j in kept):
            kept.append(i)
            if eta < 1 and threshold > 0.5:
                threshold *= eta
    return kept


@pytest.mark.parametrize("top_k", [-1, 0, 10])
@pytest.mark.parametrize(("threshold", "eta"), [(0.3, 1), (0.9, 0.9), (0.7, 0.5)])
def test_suppress_follows_the_definition(threshold, eta, top_k):
    b = drawn(60, 3).numpy()
    scores = np.random.default_rng(4).integers(0, 20, 60) / 20  # with ties
    kept = boxes.suppress(b, scores, threshold, top_k=top_k, eta=eta)
    assert kept.tolist() == by_definition(b, scores, threshold, top_k, eta)


def test_suppress_nothing():
    assert boxes.suppress(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), 0.5).size == 0
