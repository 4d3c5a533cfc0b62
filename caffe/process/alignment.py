"""Where Crop layers without crop_param cut: set by the user, the same in all processes of a run."""

from __future__ import annotations

import os

# The setting is this variable, so that processes started by this one have it, too.
VARIABLE = "CAFFE_ALIGN_CROPS"
_YES = ("1", "true", "t", "yes", "y", "on")


def set_crop_alignment(on: bool) -> None:
    """Whether Crop layers without crop_param cut where the coordinates of both bottoms agree, as in
    the forks of HED, CRF-RNN and DeconvNet (default: no; they begin at 0, as in BVLC Caffe).

    It holds for nets made from now on, here and in processes started later. The environment
    variable CAFFE_ALIGN_CROPS=1 starts with yes.
    """
    os.environ[VARIABLE] = "1" if on else "0"


def crop_alignment() -> bool:
    """Whether Crop layers without crop_param cut by coordinates."""
    return os.environ.get(VARIABLE, "").strip().lower() in _YES
