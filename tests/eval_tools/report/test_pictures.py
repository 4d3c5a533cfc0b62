"""What a report keeps of a frame, and how large it gets."""

import zlib

import cv2
import numpy as np
import pytest

from eval_tools.inference import Segmented
from eval_tools.metrics import ConfusionMatrix
from eval_tools.records import Record
from eval_tools.report import Report
from eval_tools.report.page import MAX_BYTES
from eval_tools.report.pictures import pack


def draw(seed, shape=(480, 640)):
    """A frame of smooth regions with ragged edges, as nets make them."""
    random = np.random.default_rng(seed)
    size = shape[::-1]
    coarse = cv2.resize(random.random((9, 12)).astype("f4"), size, interpolation=cv2.INTER_CUBIC)
    truth = (coarse * 8).clip(0, 40).astype(np.uint8)
    found = ((coarse + random.normal(0, 0.01, shape)) * 8).clip(0, 40).astype(np.uint8)
    color = (coarse[..., None] * [200, 150, 250] + random.normal(0, 9, (*shape, 3))).clip(0, 255)
    return color.astype(np.uint8), (coarse * 255).clip(0, 255).astype(np.uint8), truth, found


def unpack(pictures):
    shape = pictures.size[::-1]
    return [
        np.frombuffer(zlib.decompress(part), np.uint8).reshape(shape)
        for part in (pictures.truth, pictures.prediction)
    ]


def test_labels_are_kept_to_the_pixel_where_they_fit():
    color, depth, truth, found = draw(0)
    pictures = pack(color, depth, truth, found, 1e6)
    assert (pictures.size, pictures.step, pictures.fineness) == ((640, 480), 1, 0)
    assert np.array_equal(unpack(pictures)[0], truth)
    assert np.array_equal(unpack(pictures)[1], found)
    shown = cv2.imdecode(np.frombuffer(pictures.color, np.uint8), cv2.IMREAD_COLOR)
    assert shown.shape == (480, 640, 3)
    assert np.abs(shown.astype(int) - color).mean() < 10


@pytest.mark.parametrize("budget", [60e3, 30e3])
def test_a_smaller_budget_makes_pictures_coarser(budget):
    frame = draw(0)
    pictures = pack(*frame, budget)
    assert len(pictures) == len(pictures.text().replace(" ", ""))
    assert len(pictures) <= budget
    assert pictures.fineness > 0


def test_noise_that_no_budget_holds_is_thinned_out():
    color, depth, _, _ = draw(0)
    noise = np.random.default_rng(0).integers(0, 41, (2, 480, 640)).astype(np.uint8)
    pictures = pack(color, depth, *noise, 40e3)
    assert pictures.step > 1
    step = pictures.step
    assert np.array_equal(unpack(pictures)[0], noise[0, ::step, ::step])


def test_654_frames_of_full_size_stay_under_40_megabytes():
    report, frames = Report(654), 6
    for i in range(frames):
        color, depth, truth, found = draw(i)
        matrix = ConfusionMatrix(40).update(truth, found)
        report(Record(str(i), color, depth), truth, Segmented(found), matrix)
    # Each frame leaves the others at least their share.
    assert report._left >= (654 - frames) * MAX_BYTES / 654
    assert MAX_BYTES + 654 * 2000 < 40e6  # the pictures, and what is said of each frame
