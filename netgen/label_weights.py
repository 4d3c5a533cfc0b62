"""Loss weights of the labels: published ones, those of a file, or none."""

from __future__ import annotations

import math
import re

from boundary.reading import read_lines
from caffe.errors import CaffeError
from netgen.datasets import Dataset


def choose(
    what: str | tuple[float, ...] | None, dataset: Dataset | None, classes: int
) -> tuple[float, ...] | None:
    """The weights that `what` stands for, one for each label, label 0 first; None for no weights.

    what: "paper", "none", the path of a file, the weights themselves, or None for the authors'
    choice for the data set.
    dataset: None for a user's own data.

    Raises CaffeError where there are no published weights or the file does not fit.
    """
    if isinstance(what, tuple):
        return what
    if what is None:
        what = "paper" if dataset and dataset.weights_by_default else "none"
    if what == "none":
        return None
    if what != "paper":
        return read(what, classes)
    if dataset is None or dataset.weights is None:
        name = dataset.name if dataset else "a data set of your own"
        raise CaffeError(f"no label weights were published for {name}: give a file of weights")
    return dataset.weights


def read(path: str, classes: int) -> tuple[float, ...]:
    """The weights in a text file, as `numbers`, one for each label.

    Raises CaffeError, with the line, for anything that is not a number from 0 up, and unless there
    are classes + 1 of them.
    """
    weights = numbers(path)
    if len(weights) != classes + 1:
        raise CaffeError(
            f"label weights {path}: {len(weights)} numbers for {classes} classes; expected "
            f"{classes + 1}, one a label with the ignored label 0 first"
        )
    return weights


def is_file(what: str | tuple[float, ...] | None) -> bool:
    """Whether `what`, as in `choose`, names a file."""
    return isinstance(what, str) and what not in ("none", "paper")


def numbers(path: str) -> tuple[float, ...]:
    """The weights in a text file: numbers separated by white space, commas or semicolons,
    label 0's first. `#` starts a comment.

    Raises CaffeError, with the line, for anything that is not a number from 0 up.
    """
    weights = []
    for number, line in enumerate(read_lines(path, CaffeError), 1):
        for word in re.split(r"[\s,;]+", line.split("#")[0]):
            if not word:
                continue
            try:
                weight = float(word)
            except ValueError:
                weight = -1
            if not (math.isfinite(weight) and weight >= 0):
                raise CaffeError(
                    f"label weights {path}:{number}: {word!r} is not a number from 0 up"
                )
            weights.append(weight)
    return tuple(weights)
