"""Metrics, prediction, images and reports for labelled RGB-D frames."""

import boundary.interrupts  # noqa: F401  # when `python -m` starts a command of this package
