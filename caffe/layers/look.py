"""Look: how drawings show the layers of a type."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Look:
    """family: of `python -m netgen draw`, which gives the box its colour and the legend its line.
    stripe: "norm", "activation" or "dropout": not a box but a stripe on the box before; empty: a
    box. open: no stripes are put on it, because it hands blobs on rather than computes.
    mask: the bottom that is a pooling mask; -1: none. color: the box's in caffe.draw, as pycaffe's.
    """

    family: str = "Other"
    stripe: str = ""
    open: bool = False
    mask: int = -1
    color: str = "#6495ED"


NORM = Look(stripe="norm")
ACTIVATION = Look(stripe="activation")
SOURCE = Look("Data", open=True)
OUTPUT = Look("Output")
