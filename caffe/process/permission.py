"""Whether nets may run Python code: set by the user, and the same in all processes of a run."""

from __future__ import annotations

import os

# The setting is this variable, so that processes started by this one have it, too.
VARIABLE = "CAFFE_ALLOW_PYTHON"
_YES = ("", "1", "true", "t", "yes", "y", "on")


def set_allow_python(on: bool) -> None:
    """Whether nets may have layers whose prototxt names Python code (default: yes).

    It holds for nets made from now on, here and in processes started later. The environment
    variable CAFFE_ALLOW_PYTHON=0 starts with no.
    """
    os.environ[VARIABLE] = "1" if on else "0"


def allow_python() -> bool:
    """Whether nets may have layers of type Python; a value that means neither forbids them."""
    return os.environ.get(VARIABLE, "").strip().lower() in _YES


def refusal(module: str) -> str:
    """Why a net may not have this module imported; an empty text if it may."""
    if allow_python():
        return ""
    return (
        "Python layers are not allowed here (-allow_python, CAFFE_ALLOW_PYTHON, "
        f"caffe.set_allow_python), so module {module!r} is not imported"
    )
