"""Boxes as their picture is cropped, resized and mirrored, by hand; windows of samplers."""

from __future__ import annotations

import numpy as np
import pytest
from google.protobuf import text_format

import caffe
from caffe.data import boxes
from caffe.proto import caffe_pb2 as pb


def rows(*corners: tuple[float, float, float, float]) -> np.ndarray:
    """Boxes of label 1, not difficult."""
    return np.array([(1, 0, *c, 0) for c in corners], np.float32)


def corners(found: np.ndarray) -> list[list[float]]:
    return [[pytest.approx(float(v), abs=1e-6) for v in row] for row in found[:, boxes.CORNERS]]


def message(kind: type, text: str):
    return text_format.Parse(text, kind())


def test_a_crop_cuts_boxes_and_drops_those_outside():
    found = boxes.projected(
        rows((0.1, 0.1, 0.5, 0.5), (0.8, 0.1, 0.9, 0.2)), (0.25, 0, 0.75, 1), None
    )
    assert corners(found) == [[0, 0.1, 0.5, 0.5]]


def test_a_window_may_be_larger_than_the_picture():
    found = boxes.projected(rows((0, 0, 1, 1)), (-0.5, -1, 1.5, 1), None)
    assert corners(found) == [[0.25, 0.5, 0.75, 1]]


def test_emit_constraints_choose_boxes():
    both, window = rows((0.1, 0, 0.7, 1), (0.2, 0, 0.9, 1)), (0.45, 0, 1, 1)
    center = message(pb.EmitConstraint, "emit_type: CENTER")
    # The centres are at 0.4 and 0.55; of the widths 0.25 / 0.6 and 0.45 / 0.7 are within.
    assert len(boxes.projected(both, window, center)) == 1
    for least, count in ((0.4, 2), (0.5, 1), (0.7, 0)):
        overlap = message(pb.EmitConstraint, f"emit_type: MIN_OVERLAP emit_overlap: {least}")
        assert len(boxes.projected(both, window, overlap)) == count


def test_mirror():
    assert corners(boxes.mirrored(rows((0.1, 0.2, 0.4, 0.6)))) == [[0.6, 0.2, 0.9, 0.6]]


def test_padding_moves_boxes():
    p = message(pb.ResizeParameter, "height: 100 width: 100 resize_mode: FIT_LARGE_SIZE_AND_PAD")
    # A picture twice as wide as high fills the rows 25 to 75.
    found = boxes.resized(rows((0, 0, 1, 1), (0.5, 0.5, 1, 1)), p, 50, 100)
    assert corners(found) == [[0, 0.25, 1, 0.75], [0.5, 0.5, 1, 0.75]]
    found = boxes.resized(rows((0, 0, 1, 1)), p, 100, 50)
    assert corners(found) == [[0.25, 0, 0.75, 1]]


def test_new_size():
    p = message(pb.ResizeParameter, "height: 100 width: 200 resize_mode: FIT_SMALL_SIZE")
    assert boxes.new_size(p, 50, 50) == (200, 200)
    assert boxes.new_size(p, 10, 40) == (100, 400)
    p.resize_mode = pb.ResizeParameter.WARP
    assert boxes.new_size(p, 10, 40) == (100, 200)


def test_extrapolation():
    text = "height: 100 width: 100 resize_mode: FIT_SMALL_SIZE height_scale: 50 width_scale: 40"
    p = message(pb.ResizeParameter, text)
    found = boxes.extrapolated(rows((0.1, 0.1, 0.5, 0.5)), p, 10, 20, (0, 0, 0.5, 1))
    # Resized to 100 x 200, cropped to 100 x 100: 2.5 widths of 40 and 2 heights of 50.
    assert corners(found) == [[0.25, 0.2, 1.25, 1]]
    with pytest.raises(caffe.CaffeError, match="exceed the cropped picture"):
        boxes.extrapolated(rows(), p, 10, 20, (0, 0, 0.1, 1))


SAMPLER = "max_trials: 200 sampler { min_scale: 0.3 min_aspect_ratio: 0.5 max_aspect_ratio: 2 } "
TRUTH = np.array([[0.2, 0.2, 0.6, 0.7]], np.float32)


def windows(constraint: str, more: str = "") -> np.ndarray:
    """Windows of many draws."""
    sampler = message(pb.BatchSampler, SAMPLER + more + f"sample_constraint {{ {constraint} }}")
    rng = np.random.default_rng(1)
    drawn = [boxes.sampled([sampler], TRUTH, rng) for _ in range(50)]
    return np.array([window for window in drawn if window is not None])


def test_windows_lie_within_the_picture():
    found = windows("")
    assert len(found) == 50
    assert (found >= 0).all()
    assert (found <= 1 + 1e-9).all()
    sides = found[:, 2:] - found[:, :2]
    ratio = sides[:, 0] / sides[:, 1]
    assert (ratio > 0.49).all()
    assert (ratio < 2.01).all()
    assert (np.sqrt(sides.prod(1)) > 0.299).all()


@pytest.mark.parametrize(
    ("constraint", "measure"),
    [
        ("min_jaccard_overlap: 0.3", lambda w: boxes.overlaps(w, TRUTH)),
        ("min_sample_coverage: 0.3", lambda w: boxes.covered(w, TRUTH)),
        ("min_object_coverage: 0.3", lambda w: boxes.covered(TRUTH, w).T),
    ],
)
def test_windows_meet_their_constraint(constraint, measure):
    found = windows(constraint)
    assert len(found) > 10
    assert (measure(found) >= 0.3).all()
    assert len(windows(constraint.replace("min", "max").replace("0.3", "-1"))) == 0


def test_no_window_where_none_is_asked_for():
    assert len(windows("", "max_sample: 0 ")) == 0
    assert len(windows("", "use_original_image: false ")) == 0


@pytest.mark.parametrize(
    "text", ["min_scale: 0", "min_scale: 0.9 max_scale: 0.8", "max_scale: 2", "min_aspect_ratio: 3"]
)
def test_samplers_that_cannot_draw_are_refused(text):
    with pytest.raises(caffe.CaffeError, match="sampler: "):
        boxes.check_sampler(message(pb.Sampler, text))
