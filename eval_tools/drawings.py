"""Images of results: label maps, overlays, legends, confusion matrices."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from boundary.late import cv2
from boundary.text import plain_math, shown
from boundary.writing import write_bytes
from data_tools.cli import DataError
from eval_tools.metrics import ConfusionMatrix

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MATRIX_FILES = (".npz", ".csv", ".png", ".svg", ".pdf")


def label_png(label: np.ndarray, colors: np.ndarray) -> bytes:
    """A palette PNG: its indices are the labels, and viewers show the colours.

    Args:
        label: uint8 (H, W).
        colors: uint8 (values, 3), RGB.
    """
    from PIL import Image  # OpenCV writes no palettes

    image = Image.fromarray(label)
    image.putpalette(colors.tobytes())
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return file.getvalue()


def png(image: np.ndarray) -> bytes:
    """A PNG of an image, uint8 (H, W) or BGR (H, W, 3)."""
    return cv2.imencode(".png", image)[1].tobytes()


def overlay(
    color: np.ndarray, label: np.ndarray, colors: np.ndarray, strength: float = 0.55
) -> np.ndarray:
    """The frame tinted by its labels, BGR uint8. Edges between labels are dark, label 0 is clear.

    Args:
        color: BGR uint8 (H, W, 3).
        label: uint8 (H, W).
        colors: uint8 (values, 3), RGB.
    """
    tint = colors[label][..., ::-1]
    mixed = cv2.addWeighted(color, 1 - strength, np.ascontiguousarray(tint), strength, 0)
    mixed[label == 0] = color[label == 0]
    edge = np.zeros(label.shape, bool)
    edge[:, 1:] |= label[:, 1:] != label[:, :-1]
    edge[1:] |= label[1:] != label[:-1]
    mixed[edge] = mixed[edge] // 3
    return mixed


def smooth(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """An image resized smoothly to (width, height), for viewing."""
    shrinks = size[0] < image.shape[1]
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)


def legend(names: Sequence[str], colors: np.ndarray, row: int = 24) -> np.ndarray:
    """An image of the classes with their colours, BGR uint8, without label 0."""
    labels = range(1, len(names))
    rows = min(len(names) - 1, 20)
    columns = -(-(len(names) - 1) // rows)
    width = 60 + 10 * max(len(name) for name in names[1:])
    image = np.full((rows * row + 8, columns * width, 3), 255, np.uint8)
    for place, label in enumerate(labels):
        x, y = place // rows * width + 8, place % rows * row + 6
        image[y : y + row - 6, x : x + 28] = colors[label][::-1]
        at = (x + 38, y + row - 11)
        cv2.putText(
            image, shown(names[label]), at, cv2.FONT_HERSHEY_SIMPLEX, 0.5, 0, 1, cv2.LINE_AA
        )
    return image


def write_matrix(path: str | Path, matrix: ConfusionMatrix) -> None:
    """Writes a confusion matrix in the format of the file's suffix.

    .npz has `counts` (truth, prediction; the ignored label first, if there is one), `names` and the
    metrics; .csv has the counts with names; .png, .svg and .pdf are drawings, with each row in
    percent.

    Raises:
        DataError: another suffix.
    """
    suffix = Path(path).suffix.lower()
    check_matrix_file(path)
    file = io.BytesIO()
    if suffix == ".npz":
        np.savez_compressed(
            file,
            counts=matrix.counts,
            names=np.array(matrix.names),
            class_accuracy=matrix.class_accuracy,
            iou=matrix.iou,
            global_accuracy=matrix.global_accuracy,
            mean_accuracy=matrix.mean_accuracy,
            mean_iou=matrix.mean_iou,
            frequency_weighted_iou=matrix.frequency_weighted_iou,
        )
    elif suffix == ".csv":
        file.write(_matrix_csv(matrix).encode())
    else:
        matrix_figure(matrix).savefig(file, format=suffix[1:], bbox_inches="tight", dpi=150)
    write_bytes(path, file.getvalue(), DataError)


def check_matrix_file(path: str | Path) -> None:
    """Raises DataError if a confusion matrix cannot be written with the file's suffix."""
    if Path(path).suffix.lower() not in MATRIX_FILES:
        raise DataError(f"{path}: a confusion matrix is written as {', '.join(MATRIX_FILES)}")


def _matrix_csv(matrix: ConfusionMatrix) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = ["(ignored)"] * matrix.first + matrix.names
    writer.writerow(["truth \\ prediction", *names])
    for name, row in zip(matrix.names, matrix.counts[matrix.first :], strict=True):
        writer.writerow([name, *row.tolist()])
    return text.getvalue()


def matrix_figure(matrix: ConfusionMatrix) -> Figure:
    """A drawing of the confusion matrix, with each row in percent of its true class."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    counts = matrix.counts[matrix.first :, matrix.first :]
    share = 100 * counts / np.maximum(matrix.truths[:, None], 1)
    share[matrix.truths == 0] = np.nan
    side = max(4.0, 0.28 * matrix.classes + 2)
    figure = Figure(figsize=(side + 1, side))
    axes = figure.add_subplot()
    blues = colormaps["Blues"].with_extremes(bad="0.92")
    image = axes.imshow(share, vmin=0, vmax=100, cmap=blues)
    ticks = range(matrix.classes)
    names = list(map(plain_math, matrix.names))
    axes.set_xticks(ticks, names, rotation=90, fontsize=7)
    axes.set_yticks(ticks, names, fontsize=7)
    axes.set_xlabel("prediction")
    axes.set_ylabel("truth")
    axes.set_title(
        f"global {100 * matrix.global_accuracy:.1f} %, mean {100 * matrix.mean_accuracy:.1f} %, "
        f"IoU {100 * matrix.mean_iou:.1f} %",
        fontsize=9,
    )
    if matrix.classes <= 45:
        for i, j in np.argwhere(np.nan_to_num(share) >= 0.5):
            dark = share[i, j] > 55
            axes.text(
                j,
                i,
                f"{share[i, j]:.0f}",
                ha="center",
                va="center",
                fontsize=5,
                color="white" if dark else "0.2",
            )
    figure.colorbar(image, ax=axes, label="% of the true class", fraction=0.046)
    return figure
