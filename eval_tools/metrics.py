"""The metrics of semantic segmentation, derived from one confusion matrix."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np


class ConfusionMatrix:
    """Counts of (true label, predicted label) pairs, and the usual metrics derived from them.

    `counts[i, j]` is the number of pixels whose truth is label i and whose prediction is label j,
    over all pixels whose truth is not `ignore_label`. With n_ij = counts[i, j], t_i = sum_j n_ij
    (pixels of class i in the truth), p_i = sum_j n_ji (pixels predicted as class i) and N = sum n:

        global_accuracy        sum_i n_ii / N
        class_accuracy[i]      n_ii / t_i                       (recall)
        mean_accuracy          mean over i of class_accuracy
        iou[i]                 n_ii / (t_i + p_i - n_ii)        (Jaccard index)
        mean_iou               mean over i of iou
        frequency_weighted_iou sum_i t_i iou[i] / N

    The four metrics over all classes are those of Long, Shelhamer and Darrell, "Fully convolutional
    networks for semantic segmentation", CVPR 2015, section 5; the first two and the IoU go back to
    the PASCAL VOC challenge (Everingham et al., IJCV 2010). FuseNet's tables (Hazirbas et al.,
    ACCV 2016) call them global, mean and IoU.

    With `ignore_label` 0, FuseNet's convention, the scored labels are 1..classes and there are
    classes + 1 values; otherwise the scored labels are 0..classes - 1. A pixel whose true label is
    ignored is not counted, whatever was predicted there. A labelled pixel that was predicted as the
    ignored label counts as wrong: it is in t_i and N, and in no p_i.

    A class without true pixels is `absent`: its metrics are NaN and the means leave it out, even if
    it was predicted (those pixels are wrong for the classes to which they belong). All metrics of
    an empty matrix are NaN.

    Args:
        classes: number of scored classes, at least 1.
        ignore_label: the label whose true pixels are left out; None to score every pixel.
        names: one name per scored class, in order of the labels; by default their numbers.
    Raises:
        ValueError: an impossible number of classes or of names.
    """

    def __init__(
        self,
        classes: int,
        ignore_label: int | None = 0,
        names: Sequence[str] | None = None,
    ) -> None:
        if classes < 1:
            raise ValueError(f"classes is {classes}, expected at least 1")
        self.classes = classes
        self.ignore_label = ignore_label
        self.first = 1 if ignore_label == 0 else 0
        self.labels = range(self.first, self.first + classes)
        self.names = list(names) if names is not None else [str(label) for label in self.labels]
        if len(self.names) != classes:
            raise ValueError(f"{len(self.names)} names for {classes} classes")
        self.values = self.first + classes
        self.counts = np.zeros((self.values, self.values), np.int64)

    def __repr__(self) -> str:
        return (
            f"ConfusionMatrix({self.classes} classes, {self.pixels} pixels, "
            f"global {self.global_accuracy:.4f}, mean {self.mean_accuracy:.4f}, "
            f"IoU {self.mean_iou:.4f})"
        )

    def update(self, truth: Any, prediction: Any) -> ConfusionMatrix:
        """Adds the pixels of two label maps of the same shape and returns the matrix.

        Both are NumPy arrays (or convertible by `numpy.asarray`) or torch tensors on any device;
        tensors on a GPU are counted there. Float labels must be integers.

        Raises:
            ValueError: shapes differ, or a label is outside the range of labels.
        """
        if _on_device(truth) or _on_device(prediction):
            count = _count_tensors
        else:
            count = _count_arrays
        self.counts += count(truth, prediction, self.values, self.ignore_label)
        return self

    def merge(self, other: ConfusionMatrix) -> ConfusionMatrix:
        """Adds another matrix's counts (of another process, group or part of the data).

        Raises:
            ValueError: the matrices differ in their classes or ignored labels.
        """
        mine, theirs = (self.classes, self.ignore_label), (other.classes, other.ignore_label)
        if mine != theirs:
            raise ValueError(f"(classes, ignore_label) differ: {mine} and {theirs}")
        self.counts += other.counts
        return self

    @property
    def pixels(self) -> int:
        """N, the number of counted pixels."""
        return int(self.counts.sum())

    @property
    def hits(self) -> np.ndarray:
        """n_ii, correctly predicted pixels of each scored class: int64, (classes,)."""
        return np.diagonal(self.counts)[self.first :].copy()

    @property
    def truths(self) -> np.ndarray:
        """t_i, pixels of each scored class in the truth: int64, (classes,)."""
        return self.counts.sum(1)[self.first :]

    @property
    def predictions(self) -> np.ndarray:
        """p_i, pixels predicted as each scored class: int64, (classes,)."""
        return self.counts.sum(0)[self.first :]

    @property
    def absent(self) -> list[str]:
        """Names of the classes without true pixels."""
        return [name for name, count in zip(self.names, self.truths, strict=True) if count == 0]

    @property
    def global_accuracy(self) -> float:
        """Share of correct pixels."""
        return float(figures(self.hits, self.truths, self.predictions)["global_accuracy"])

    @property
    def class_accuracy(self) -> np.ndarray:
        """Share of correct pixels of each class: float64, (classes,), NaN for absent classes."""
        return class_accuracy(self.hits, self.truths)

    @property
    def mean_accuracy(self) -> float:
        """Mean of `class_accuracy` over the classes that are not absent."""
        return float(figures(self.hits, self.truths, self.predictions)["mean_accuracy"])

    @property
    def iou(self) -> np.ndarray:
        """Intersection over union of each class: float64, (classes,), NaN for absent classes."""
        return class_iou(self.hits, self.truths, self.predictions)

    @property
    def mean_iou(self) -> float:
        """Mean of `iou` over the classes that are not absent."""
        return float(figures(self.hits, self.truths, self.predictions)["mean_iou"])

    @property
    def frequency_weighted_iou(self) -> float:
        """Mean of `iou`, weighted by the true pixels of each class."""
        key = "frequency_weighted_iou"
        return float(figures(self.hits, self.truths, self.predictions)[key])


def class_accuracy(hits: np.ndarray, truths: np.ndarray) -> np.ndarray:
    """n_ii / t_i along the last axis, NaN where t_i is 0."""
    return _ratio(hits, truths)


def class_iou(hits: np.ndarray, truths: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    """n_ii / (t_i + p_i - n_ii) along the last axis, NaN where t_i is 0."""
    return np.where(truths > 0, _ratio(hits, truths + predictions - hits), np.nan)


def figures(hits: np.ndarray, truths: np.ndarray, predictions: np.ndarray) -> dict[str, np.ndarray]:
    """The four metrics over all classes from n_ii, t_i and p_i, each (..., classes).

    Leading axes are kept: sums over many resampled sets of images give one value for each set.
    ConfusionMatrix defines the metrics.
    """
    accuracy = class_accuracy(hits, truths)
    iou = class_iou(hits, truths, predictions)
    total = truths.sum(-1)
    return {
        "global_accuracy": _ratio(hits.sum(-1), total),
        "mean_accuracy": _mean(accuracy),
        "mean_iou": _mean(iou),
        "frequency_weighted_iou": _ratio((truths * np.nan_to_num(iou)).sum(-1), total),
    }


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    part, whole = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    return np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=whole > 0)


def _mean(values: np.ndarray) -> np.ndarray:
    """Mean over the last axis of the values that are not NaN; NaN if there are none."""
    return _ratio(np.nansum(values, -1), np.sum(~np.isnan(values), -1))


def _on_device(value: Any) -> bool:
    """Whether it is a tensor outside the CPU's memory. On the CPU, numpy is many times faster."""
    # If value is a tensor, torch is already loaded; so torch need not be installed.
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor) and value.device.type != "cpu"


def _count_arrays(truth: Any, prediction: Any, values: int, ignore: int | None) -> np.ndarray:
    truth, prediction = np.asarray(truth), np.asarray(prediction)
    _check_shapes(truth.shape, prediction.shape)
    if truth.size == 0:
        return np.zeros((values, values), np.int64)
    for name, array in (("true", truth), ("predicted", prediction)):
        if array.dtype.kind == "f" and not np.array_equal(array, np.rint(array)):
            raise ValueError(f"{name} labels are not whole numbers")
    truth, prediction = truth.ravel(), prediction.ravel()
    # Usually the ignored row is counted and then dropped, which is faster than selecting pixels.
    if ignore is not None and not (0 <= ignore < values and _within(prediction, values)):
        keep = truth != ignore
        truth, prediction = truth[keep], prediction[keep]
    for name, array in (("true", truth), ("predicted", prediction)):
        if array.size and not _within(array, values):
            _refuse(name, array.min(), array.max(), values)
    index = truth.astype(np.intp)
    index *= values
    np.add(index, prediction, out=index, casting="unsafe")
    return _drop(np.bincount(index, minlength=values * values), values, ignore)


def _count_tensors(truth: Any, prediction: Any, values: int, ignore: int | None) -> np.ndarray:
    torch = sys.modules["torch"]
    device = (prediction if _on_device(prediction) else truth).device
    truth, prediction = (torch.as_tensor(x, device=device) for x in (truth, prediction))
    _check_shapes(tuple(truth.shape), tuple(prediction.shape))
    for name, tensor in (("true", truth), ("predicted", prediction)):
        if tensor.is_floating_point() and bool((tensor != tensor.round()).any()):
            raise ValueError(f"{name} labels are not whole numbers")
    truth, prediction = truth.reshape(-1).long(), prediction.reshape(-1).long()
    if ignore is not None:
        keep = truth != ignore
        truth, prediction = truth[keep], prediction[keep]
    for name, tensor in (("true", truth), ("predicted", prediction)):
        if tensor.numel() and not _within(tensor, values):
            _refuse(name, tensor.min().item(), tensor.max().item(), values)
    counts = torch.bincount(truth * values + prediction, minlength=values * values)
    return _drop(counts.cpu().numpy(), values, ignore)


def _within(labels: Any, values: int) -> bool:
    return bool(labels.min() >= 0 and labels.max() < values)


def _drop(counts: np.ndarray, values: int, ignore: int | None) -> np.ndarray:
    """The flat counts as a matrix, without the row of the ignored label."""
    matrix = counts.reshape(values, values).astype(np.int64, copy=False)
    if ignore is not None and 0 <= ignore < values:
        matrix[ignore] = 0
    return matrix


def _check_shapes(truth: tuple[int, ...], prediction: tuple[int, ...]) -> None:
    if truth != prediction:
        raise ValueError(f"truth has shape {truth}, prediction {prediction}")


def _refuse(name: str, low: Any, high: Any, values: int) -> None:
    bad = low if low < 0 else high
    raise ValueError(f"{name} label {int(bad)} outside 0..{values - 1}")
