"""The option that chooses what computes nets on the CPU: PyTorch, or another engine."""

from __future__ import annotations

import argparse

NAMES = ("auto", "torch", "openvino", "onnxruntime")  # caffe.engines.NAMES, without loading it


def add_option(group: argparse._ActionsContainer) -> None:
    """Add --engine to a command that runs a net; None: whatever computes by default."""
    group.add_argument(
        "--engine",
        metavar="|".join(NAMES),
        help="what computes the net on the CPU; auto: the fastest that is installed (default: "
        "torch)",
    )


def check(name: str | None, error: type[Exception]) -> None:
    """Raise `error` for the name of an engine that there is not."""
    if name is not None and name not in NAMES:
        raise error(f"--engine: engine {name!r} is unknown; expected one of {', '.join(NAMES)}")
