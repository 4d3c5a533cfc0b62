"""Peaks of heat maps by hand."""

import numpy as np
import torch
from cases import Case, make_layer


def peaks(maps: np.ndarray, text: str) -> np.ndarray:
    """The top of a Nms layer on maps (N, C, H, W)."""
    layer = make_layer("Nms", Case(f"nms_param {{ {text} }}", [maps.shape]))
    return layer.forward([torch.from_numpy(maps)], []).numpy()


def test_a_peak_lies_at_the_centre_of_mass_around_it():
    maps = np.zeros((1, 1, 9, 12), np.float32)
    maps[0, 0, 4, 5], maps[0, 0, 4, 6] = 3, 1
    top = peaks(maps, "threshold: 0.5 max_peaks: 2 num_parts: 1")
    # (3 * 5 + 1 * 6) / 4 = 5.25
    np.testing.assert_allclose(top[0, 0], [[1, 0, 0], [5.25, 4, 3], [0, 0, 0]])


def test_row_and_column_0_do_not_pull_and_far_values_do_not():
    maps = np.zeros((1, 1, 12, 12), np.float32)
    maps[0, 0, 2, 2], maps[0, 0, 0, 2], maps[0, 0, 2, 0], maps[0, 0, 2, 6] = 4, 1, 1, 1
    maps[0, 0, 4, 2] = -5
    top = peaks(maps, "threshold: 3 max_peaks: 1 num_parts: 1")
    np.testing.assert_allclose(top[0, 0, 1], [2, 2, 4])


def test_peaks_beyond_max_peaks_are_counted_only():
    maps = np.zeros((1, 2, 20, 20), np.float32)
    maps[0, 1, 3, 3], maps[0, 1, 3, 12], maps[0, 1, 12, 3] = 1, 2, 3
    top = peaks(maps, "threshold: 0.5 max_peaks: 2 num_parts: 2")
    assert not top[0, 0].any()
    np.testing.assert_allclose(top[0, 1], [[3, 0, 0], [3, 3, 1], [12, 3, 2]])


def test_the_border_and_plateaus_have_no_peaks():
    maps = np.zeros((1, 1, 8, 8), np.float32)
    maps[0, 0, 0, 4], maps[0, 0, 4, 7], maps[0, 0, 4, 3:5] = 9, 9, 2
    assert not peaks(maps, "threshold: 0.5 max_peaks: 2 num_parts: 1").any()
