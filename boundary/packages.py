"""Ends a command with one line where another package named caffe hides this project's.

Python puts the working directory before all installed packages for `python -m`, so that a caffe/
with an __init__.py there, as BVLC's python/ has it, is imported in place of the one beside this.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path


def check_caffe() -> None:
    """Raise ImportError, or for `python -m` SystemExit, unless caffe is the package beside this."""
    spec = importlib.util.find_spec("caffe")
    own = Path(__file__).resolve().parents[1] / "caffe" / "__init__.py"
    if spec is None or (spec.origin is not None and Path(spec.origin).resolve() == own):
        return
    found = Path(spec.origin).parent if spec.origin else next(iter(spec.submodule_search_locations))
    text = f"{found} hides the package caffe of {own.parents[1]}: start from another folder"
    if sys.argv[:1] == ["-m"]:
        raise SystemExit(f"netgen: error: {text}")
    raise ImportError(text)


check_caffe()
