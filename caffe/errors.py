"""CaffeError, the engine's exception."""

from __future__ import annotations

from boundary.errors import InputError


class CaffeError(InputError, RuntimeError):
    """Bad input: a net, file or argument that cannot be used. The message is one clear line.

    A RuntimeError, because that is what pycaffe raises when Caffe throws.
    """
