"""MALIS on images that can be worked out by hand."""

import itertools

import numpy as np

from caffe.layers.malis import _ends, _malis


def loss(net_of, ties, truth, segments):
    text = 'layer { name: "l" type: "MalisLoss" bottom: "a" bottom: "t" bottom: "s" top: "y" }'
    net = net_of(text, a=ties.shape, t=ties.shape, s=segments.shape)
    for name, values in (("a", ties), ("t", truth), ("s", segments)):
        net.blobs[name].data[...] = values
    net.forward()
    net.backward()
    return float(net.blobs["y"].data), net.blobs["a"].diff.copy()


def test_three_pixels_in_a_row(net_of):
    """Segments 1 1 2. Of the one pair of segment 1 the tie is 0.25, so that 0.75 is missing; its
    square counts a half. The two pairs of different segments are tied by min(0.25, 0.6) = 0.25
    and 0.6. But for these pairs the true tie of 1 within the segment counts: max(0.25, 1) = 1, so
    both have 0.6: a half of 0.36. True ties: 1 0 (the last has no neighbour).
    """
    ties = np.array([[[0.25, 0.6, 0.9]]], np.float32)
    truth = np.array([[[1, 0, 0]]], np.float32)
    value, gradient = loss(net_of, ties, truth, np.array([[[1, 1, 2]]], np.float32))
    np.testing.assert_allclose(value, 0.5 * 0.75**2 + 0.5 * 0.6**2, rtol=1e-6)
    # minus half of what is missing; too much is missing less than nothing
    np.testing.assert_allclose(gradient[0, 0], [-0.375, 0.3, 0], rtol=1e-6)


def test_pairs_are_tied_by_the_weakest_edge_of_the_best_path():
    """All pairs of a drawn image, by trying all thresholds."""
    rng = np.random.default_rng(2)
    image = (1, 3, 3)
    steps = np.array([[0, 1, 0], [0, 0, 1]])
    ends, ties = _ends(steps, image), rng.permutation(18).reshape(2, 9) / 18
    labels = rng.integers(0, 3, 9)
    best = np.zeros((9, 9))
    for threshold in np.sort(ties.ravel()):
        reach = np.eye(9, dtype=bool)
        for edge, place in itertools.product(range(2), range(9)):
            if ends[edge, place] >= 0 and ties[edge, place] >= threshold:
                reach[place, ends[edge, place]] = reach[ends[edge, place], place] = True
        for _ in range(4):
            reach = (reach.astype(int) @ reach) > 0
        best[reach] = threshold
    for joined in (True, False):
        errors = [
            (best[a, b] - joined) ** 2
            for a, b in itertools.combinations(range(9), 2)
            if labels[a] and labels[b] and (labels[a] == labels[b]) == joined
        ]
        value, _ = _malis(ties, labels, ends, joined)
        np.testing.assert_allclose(value, np.mean(errors), rtol=1e-9)


def test_regions_are_numbered_behind_the_largest_value(net_of):
    net = net_of(
        'layer { name: "l" type: "ConnectedComponent" bottom: "x" top: "y" }', x=(1, 1, 3, 4)
    )
    net.blobs["x"].data[...] = [[2, 0, 1, 1], [0, 2, 0, 1], [1, 1, 0, 0]]
    net.forward()
    expected = [[3, 0, 4, 4], [0, 5, 0, 4], [6, 6, 0, 0]]
    assert net.blobs["y"].data[0, 0].tolist() == expected


def test_affinity_is_the_smaller_of_two_neighbours(net_of):
    text = 'layer { name: "l" type: "Affinity" bottom: "x" top: "y" affinity_param { offset: 1 } }'
    net = net_of(text, x=(1, 2, 2, 3))
    net.blobs["x"].data[0, 1] = [[4, 2, 9], [3, 8, 1]]
    net.forward()
    assert net.blobs["y"].data[0].tolist() == [[[3, 2, 0], [0] * 3], [[2, 2, 0], [0] * 3]]
    net.blobs["y"].diff[...] = [[[[1, 2, 3], [4] * 3], [[10, 20, 30], [4] * 3]]]
    net.backward()
    gradient = net.blobs["x"].diff[0]
    assert gradient[1].tolist() == [[11, 22, 0], [0] * 3]
    np.testing.assert_array_equal(gradient[0], -gradient[1])
