"""The CRF beside exact Gaussian sums, and on frames where its effect is known."""

import numpy as np
import pytest
import torch

from eval_tools.crf import Crf, Lattice, refine


def exact_kernel(features):
    distance = ((features[:, None] - features[None]) ** 2).sum(-1)
    return np.exp(-distance / 2)


@pytest.mark.parametrize(("d", "points", "spread"), [(2, 900, 4), (3, 900, 3), (5, 900, 2)])
def test_lattice_filters_as_a_gaussian_does(d, points, spread):
    random = np.random.default_rng(d)
    features = random.random((points, d)) * spread
    values = (features @ random.normal(size=(d, 2)) + np.sin(4 * features[:, :1])).astype("f4")
    lattice = Lattice(features)
    found = lattice.filter(torch.from_numpy(values)).numpy()
    found /= lattice.filter(torch.ones(points, 1)).numpy()
    kernel = exact_kernel(features)
    wanted = kernel @ values / kernel.sum(1, keepdims=True)
    # The lattice is an approximation: a twentieth of the values' own spread off, a fifth at worst.
    assert np.abs(found - wanted).mean() < 0.05 * values.std()
    assert np.abs(found - wanted).max() < 0.2 * values.std()
    assert np.corrcoef(found.ravel(), wanted.ravel())[0, 1] > 0.99


def exact_refine(probabilities, color, crf):
    """The same mean field with every pair of pixels."""
    classes, height, width = probabilities.shape
    y, x = np.mgrid[:height, :width]
    place = np.stack([x.ravel(), y.ravel()], 1) / (width / crf.reference_width)
    colors = color.reshape(-1, 3) / crf.alike_color
    kernels = []
    for features in (
        place / crf.near_distance,
        np.concatenate([place / crf.alike_distance, colors], 1),
    ):
        kernel = exact_kernel(features)
        root = 1 / np.sqrt(kernel.sum(1))
        kernels.append(kernel * root[:, None] * root)
    unary = np.log(np.maximum(probabilities.reshape(classes, -1).T, 1e-8))
    q = probabilities.reshape(classes, -1).T
    for _ in range(crf.iterations):
        logits = unary + crf.near_weight * kernels[0] @ q + crf.alike_weight * kernels[1] @ q
        q = np.exp(logits - logits.max(1, keepdims=True))
        q /= q.sum(1, keepdims=True)
    return q.T.reshape(classes, height, width)


def halves(seed, height=24, width=32):
    """Two classes side by side in two colours, 20 % of the pixels with the wrong probabilities."""
    random = np.random.default_rng(seed)
    truth = np.zeros((height, width), int)
    truth[:, 13:] = 1
    color = np.where(truth[..., None], [40, 60, 200], [90, 180, 60]) + random.normal(
        0, 4, (height, width, 3)
    )
    seen = np.where(random.random(truth.shape) < 0.2, 1 - truth, truth)
    probabilities = np.where(seen == np.arange(2)[:, None, None], 0.7, 0.3).astype(np.float32)
    return truth, np.clip(color, 0, 255).astype(np.uint8), probabilities


def test_marginals_are_close_to_those_of_every_pair_of_pixels():
    _, color, probabilities = halves(0)
    found, wanted = (f(probabilities, color, Crf()) for f in (refine, exact_refine))
    assert found.dtype == np.float32
    assert np.allclose(found.sum(0), 1, atol=1e-5)
    assert np.mean(found.argmax(0) == wanted.argmax(0)) > 0.99
    assert np.abs(found - wanted).mean() < 0.02


def test_noise_goes_and_the_edge_in_the_colours_stays():
    truth, color, probabilities = halves(1)
    assert np.mean(probabilities.argmax(0) == truth) == pytest.approx(0.8, abs=0.03)
    assert np.mean(refine(probabilities, color).argmax(0) == truth) > 0.995


def test_without_pair_terms_nothing_changes():
    _, color, probabilities = halves(2)
    found = refine(probabilities, color, Crf(near_weight=0, alike_weight=0))
    assert np.allclose(found, probabilities, atol=1e-5)
