"""The mean average precision of detectors, by hand."""

from __future__ import annotations

import numpy as np
import pytest

import caffe
from caffe.solver.detection import Detections, average_precision

pytestmark = pytest.mark.usefixtures("fresh")

# Five boxes in the order of their scores, of four that are there: true, false, true, true, false.
# Recalls 1/4 1/4 2/4 3/4 3/4, precisions 1 1/2 2/3 3/4 3/5.
FOUND = np.array([[0.5, 1], [0.9, 1], [0.4, 0], [0.7, 0], [0.6, 1]])[[0, 2, 3, 4, 1]]
# The first box's precision of 1 counts for 0 to 0.2, 3/4 for 0.3 to 0.7, nothing beyond.
ELEVEN = (3 * 1 + 5 * 0.75) / 11
# Up to a recall of 1/4 the precision is 1; it is 3/4 up to 3/4.
MAX_INTEGRAL = 0.25 * 1 + 0.25 * 0.75 + 0.25 * 0.75
INTEGRAL = 0.25 * (1 + 2 / 3 + 3 / 4)


@pytest.mark.parametrize(
    ("version", "expected"),
    [("11point", ELEVEN), ("MaxIntegral", MAX_INTEGRAL), ("Integral", INTEGRAL)],
)
def test_versions(version, expected):
    assert average_precision(FOUND, 4, version) == pytest.approx(expected)


def test_nothing_found_or_nothing_there():
    assert average_precision(np.zeros((0, 2)), 4, "Integral") == 0
    assert average_precision(FOUND, 0, "11point") == 0


# Two labels, of 2 and 1 boxes; of label 2 nothing is found. The fourth box counts for nothing.
ROWS = [[-1, 1, 2, -1, -1], [-1, 2, 1, -1, -1]]
ROWS += [[0, 1, 0.9, 1, 0], [0, 1, 0.8, 0, 1], [1, 1, 0.95, 0, 0], [1, 1, 0.5, 1, 0]]


def test_rows_of_several_batches_add_up():
    detections = Detections("eval")
    for _ in range(2):
        detections.add(np.array(ROWS, np.float32)[None, None])
    assert detections.truths == {1: 4, 2: 2}
    # By score: two true, two false, two true; recalls 1/4, 1/2, then 3/4 at 3/5 and 1 at 4/6.
    expected = 0.25 * (1 + 1 + 3 / 5 + 4 / 6)
    assert detections.precisions("Integral") == {1: pytest.approx(expected), 2: None}


def test_another_output_is_refused():
    with pytest.raises(caffe.CaffeError, match=r"'loss' has the shape \(\).*as DetectionEvaluate"):
        Detections("loss").add(np.zeros(()))


NET = """
layer { name: "det" type: "Parameter" top: "det"
        parameter_param { shape { dim: 1 dim: 1 dim: 2 dim: 7 } } param { lr_mult: 0 } }
layer { name: "gt" type: "Parameter" top: "gt"
        parameter_param { shape { dim: 1 dim: 1 dim: 2 dim: 8 } } param { lr_mult: 0 } }
layer { name: "s" type: "Silence" bottom: "det" bottom: "gt" include { phase: TRAIN } }
layer { name: "e" type: "DetectionEvaluate" bottom: "det" bottom: "gt" top: "detection_eval"
        include { phase: TEST } detection_evaluate_param { num_classes: 2 } }
"""


def test_the_solver_tells_the_mean_average_precision(tmp_path, capfd):
    (tmp_path / "net.prototxt").write_text(NET)
    (tmp_path / "solver.prototxt").write_text(
        f'net: "{tmp_path}/net.prototxt" lr_policy: "fixed" base_lr: 0 test_iter: 3 '
        'test_interval: 1 eval_type: "detection" ap_version: "11point" '
        "show_per_class_result: true"
    )
    solver = caffe.get_solver(str(tmp_path / "solver.prototxt"))
    box, other = [0.1, 0.1, 0.5, 0.5], [0.6, 0.6, 0.9, 0.9]
    found = [[0, 1, 0.9, *box], [0, 1, 0.8, 0, 0, 0.1, 0.1]]
    solver.net.params["det"][0].data[...] = np.array(found)[None, None]
    truth = [[0, 1, 0, *box, 0], [0, 1, 0, *other, 0]]
    solver.net.params["gt"][0].data[...] = np.array(truth)[None, None]
    capfd.readouterr()
    solver.step(1)
    log = capfd.readouterr().err
    # One of two boxes is found, first: a precision of 1 up to a recall of 0.5, six of 11 points.
    assert "class1: 0.545455" in log
    assert "Test net output #0: detection_eval = 0.545455" in log


@pytest.mark.parametrize("field", ['eval_type: "boxes"', 'ap_version: "12point"'])
def test_unknown_words_are_refused(tmp_path, field):
    (tmp_path / "net.prototxt").write_text(NET)
    path = tmp_path / "solver.prototxt"
    path.write_text(f'net: "{tmp_path}/net.prototxt" lr_policy: "fixed" base_lr: 0 {field}')
    with pytest.raises(caffe.CaffeError, match=f"unknown {field.split(':')[0]}"):
        caffe.get_solver(str(path))
