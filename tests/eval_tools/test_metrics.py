"""The confusion matrix and its figures: worked examples, drawn data, limits."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from eval_tools import metrics
from eval_tools.metrics import ConfusionMatrix, figures

# Truth and prediction of twelve pixels; label 0 is ignored (the last two pixels):
#              predicted 1  2  3
#   truth 1              3  1  0      t = 4
#   truth 2              0  2  1      t = 3
#   truth 3              1  0  2      t = 3
#   p                    4  3  3      N = 10
TRUTH = np.array([1, 1, 1, 1, 2, 2, 2, 3, 3, 3, 0, 0])
GUESS = np.array([1, 1, 1, 2, 2, 2, 3, 3, 3, 1, 1, 3])


def test_worked_example_of_three_classes():
    matrix = ConfusionMatrix(3).update(TRUTH, GUESS)
    assert matrix.counts[1:, 1:].tolist() == [[3, 1, 0], [0, 2, 1], [1, 0, 2]]
    assert matrix.counts[0].sum() == 0
    assert matrix.pixels == 10
    assert matrix.global_accuracy == pytest.approx(7 / 10)
    assert matrix.class_accuracy == pytest.approx([3 / 4, 2 / 3, 2 / 3])
    assert matrix.mean_accuracy == pytest.approx((3 / 4 + 2 / 3 + 2 / 3) / 3)
    # n_ii / (t_i + p_i - n_ii): 3 / (4 + 4 - 3), 2 / (3 + 3 - 2), 2 / (3 + 3 - 2)
    assert matrix.iou == pytest.approx([3 / 5, 2 / 4, 2 / 4])
    assert matrix.mean_iou == pytest.approx((0.6 + 0.5 + 0.5) / 3)
    assert matrix.frequency_weighted_iou == pytest.approx((4 * 0.6 + 3 * 0.5 + 3 * 0.5) / 10)
    assert matrix.absent == []


def test_a_labelled_pixel_predicted_as_ignored_is_wrong():
    # truth 1 1 2 2, predicted 1 0 2 2: class 1 has 1 of 2, and no false positive anywhere.
    matrix = ConfusionMatrix(2).update([1, 1, 2, 2], [1, 0, 2, 2])
    assert matrix.global_accuracy == 3 / 4
    assert matrix.class_accuracy.tolist() == [1 / 2, 1]
    assert matrix.iou.tolist() == [1 / 2, 1]


def test_classes_absent_from_the_truth_leave_the_means_and_are_named():
    # Class "lamp" is predicted once but never true: it makes "wall" worse, not the mean's count.
    matrix = ConfusionMatrix(3, names=["wall", "lamp", "bed"]).update([1, 1, 3], [1, 2, 3])
    assert matrix.absent == ["lamp"]
    assert np.isnan(matrix.iou[1])
    assert np.isnan(matrix.class_accuracy[1])
    assert matrix.mean_iou == pytest.approx((1 / 2 + 1) / 2)
    assert matrix.mean_accuracy == pytest.approx((1 / 2 + 1) / 2)
    assert matrix.frequency_weighted_iou == pytest.approx((2 * 0.5 + 1 * 1) / 3)


@pytest.mark.parametrize("pixels", [0, 5])
def test_nothing_labelled_gives_nan_and_names_every_class(pixels):
    matrix = ConfusionMatrix(2).update(np.zeros(pixels, np.uint8), np.ones(pixels, np.uint8))
    assert matrix.pixels == 0
    assert matrix.absent == ["1", "2"]
    for value in (matrix.global_accuracy, matrix.mean_accuracy, matrix.mean_iou):
        assert np.isnan(value)
    assert np.isnan(matrix.frequency_weighted_iou)


@pytest.mark.parametrize("ignore", [None, 255, -1, 2])
def test_other_conventions_of_the_ignored_label(ignore):
    # Without 0 ignored the scored labels are 0, 1, 2.
    truth = [0, 1, 1, 2, 2 if ignore is None else ignore]
    matrix = ConfusionMatrix(3, ignore_label=ignore).update(truth, [0, 1, 0, 2, 0])
    assert matrix.counts.shape == (3, 3)
    expected = {None: 3 / 5, 255: 3 / 4, -1: 3 / 4, 2: 2 / 3}[ignore]
    assert matrix.global_accuracy == pytest.approx(expected)
    assert matrix.absent == (["2"] if ignore == 2 else [])


def draw(seed, classes, shape=(3, 40, 50)):
    """Label maps with 0 = ignored, two classes never true, and mostly right predictions."""
    random = np.random.default_rng(seed)
    truth = random.integers(0, classes + 1, shape)
    truth[np.isin(truth, [2, classes])] = 0
    wrong = random.random(shape) < 0.4
    return truth, np.where(wrong, random.integers(0, classes + 1, shape), truth)


@pytest.mark.parametrize("classes", [3, 13, 40])
def test_equals_scikit_learn(classes):
    sklearn = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
    truth, guess = draw(classes, classes)
    matrix = ConfusionMatrix(classes).update(truth, guess)
    keep = truth > 0
    truth, guess = truth[keep], guess[keep]
    labels = np.arange(classes + 1)
    assert np.array_equal(matrix.counts, sklearn.confusion_matrix(truth, guess, labels=labels))
    there = np.unique(truth)
    assert matrix.global_accuracy == pytest.approx(sklearn.accuracy_score(truth, guess))
    recall = sklearn.recall_score(truth, guess, labels=there, average="macro")
    assert matrix.mean_accuracy == pytest.approx(recall)
    iou = sklearn.jaccard_score(truth, guess, labels=there, average=None)
    assert matrix.iou[there - 1] == pytest.approx(iou)
    assert matrix.mean_iou == pytest.approx(iou.mean())
    weighted = sklearn.jaccard_score(truth, guess, labels=there, average="weighted")
    assert matrix.frequency_weighted_iou == pytest.approx(weighted)


@pytest.mark.parametrize("ignore", [0, None, 255])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.float32])
def test_tensors_count_as_arrays_do(dtype, ignore):
    truth, guess = draw(1, 13)
    expected = ConfusionMatrix(14, ignore_label=ignore).update(truth, guess).counts
    matrix = ConfusionMatrix(14, ignore_label=ignore)
    matrix.update(torch.tensor(truth, dtype=dtype), torch.tensor(guess, dtype=dtype))
    assert np.array_equal(matrix.counts, expected)
    matrix.update(truth.astype(np.uint8), torch.tensor(guess, dtype=dtype))
    assert np.array_equal(matrix.counts, 2 * expected)


@pytest.mark.parametrize("ignore", [0, None, 255])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.float32])
def test_the_count_on_a_gpu(dtype, ignore):
    truth, guess = draw(1, 13)
    expected = ConfusionMatrix(14, ignore_label=ignore).update(truth, guess).counts
    tensors = [torch.tensor(x, dtype=dtype) for x in (truth, guess)]
    if torch.cuda.is_available():
        matrix = ConfusionMatrix(14, ignore_label=ignore).update(truth, tensors[1].cuda())
        assert np.array_equal(matrix.counts, expected)
    # Without a GPU the same operations are at least tried on the CPU.
    values = len(expected)
    assert np.array_equal(metrics._count_tensors(*tensors, values, ignore), expected)
    for bad, message in ((values, f"predicted label {values} outside"), (1.5, "not whole")):
        wrong = tensors[1].float().clone()
        wrong[truth == 5] = bad
        with pytest.raises(ValueError, match=message):
            metrics._count_tensors(tensors[0], wrong, values, ignore)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.int64, np.float32])
def test_every_integer_type_and_caffes_floats(dtype):
    truth, guess = draw(2, 40)
    expected = ConfusionMatrix(40).update(truth, guess).counts
    found = ConfusionMatrix(40).update(truth.astype(dtype), guess.astype(dtype)).counts
    assert np.array_equal(found, expected)


def test_merged_parts_equal_the_whole():
    truth, guess = draw(3, 13)
    whole = ConfusionMatrix(13).update(truth, guess)
    parts = ConfusionMatrix(13)
    for t, g in zip(truth, guess, strict=True):
        parts.merge(ConfusionMatrix(13).update(t, g))
    assert np.array_equal(parts.counts, whole.counts)
    with pytest.raises(ValueError, match=r"\(13, 0\) and \(12, 0\)"):
        whole.merge(ConfusionMatrix(12))


def test_figures_of_many_sums_at_once():
    one, two = (ConfusionMatrix(13).update(*draw(seed, 13)) for seed in (4, 5))
    stacked = [np.stack([getattr(m, k) for m in (one, two)]) for k in ("hits", "truths")]
    found = figures(*stacked, np.stack([one.predictions, two.predictions]))
    assert found["mean_iou"] == pytest.approx([one.mean_iou, two.mean_iou])
    assert found["global_accuracy"] == pytest.approx([one.global_accuracy, two.global_accuracy])


@pytest.mark.parametrize("wrap", [np.array, torch.tensor])
@pytest.mark.parametrize(
    ("truth", "guess", "message"),
    [
        ([1, 4], [1, 1], r"true label 4 outside 0\.\.3"),
        ([1, -2], [1, 1], r"true label -2 outside 0\.\.3"),
        ([1, 2], [1, 9], r"predicted label 9 outside 0\.\.3"),
        ([1.0, 2.5], [1.0, 2.0], "true labels are not whole numbers"),
        ([1, 2], [1, 2, 3], r"truth has shape \(2,\), prediction \(3,\)"),
    ],
)
def test_what_cannot_be_counted_is_refused(wrap, truth, guess, message):
    matrix = ConfusionMatrix(3)
    with pytest.raises(ValueError, match=message):
        matrix.update(wrap(truth), wrap(guess))
    assert matrix.pixels == 0


@pytest.mark.parametrize("wrap", [np.array, torch.tensor])
def test_predictions_under_ignored_truth_are_never_looked_at(wrap):
    matrix = ConfusionMatrix(3).update(wrap([1, 0]), wrap([1, 200]))
    assert (matrix.pixels, matrix.global_accuracy) == (1, 1.0)


def test_impossible_matrices_are_refused():
    with pytest.raises(ValueError, match="classes is 0"):
        ConfusionMatrix(0)
    with pytest.raises(ValueError, match="2 names for 3 classes"):
        ConfusionMatrix(3, names=["a", "b"])


def test_torch_is_not_loaded_for_arrays():
    code = (
        "import sys, eval_tools.metrics as m; m.ConfusionMatrix(3).update([1], [1]);"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
