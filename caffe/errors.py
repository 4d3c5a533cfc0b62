"""CaffeError, the engine's exception, and one-line texts of unexpected exceptions."""

from __future__ import annotations

import os
import traceback

from boundary.errors import LONGEST, InputError, shortened


class CaffeError(InputError, RuntimeError):
    """Bad input: a net, file or argument that cannot be used. The message is one clear line.

    A RuntimeError, because that is what pycaffe raises when Caffe throws.
    """


def one_line(error: Exception) -> str:
    """An unexpected exception as one line: its class, the first line of its text, file and line."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    text = next(iter(str(error).splitlines()), "")
    end = f" ({os.path.basename(place.filename)}:{place.lineno})"
    return shortened(f"{type(error).__name__}: {text}", LONGEST - len(end)) + end
