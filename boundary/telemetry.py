"""Loads onnxruntime and OpenVINO without what they tell their makers.

onnxruntime (from 1.29 on) sends what it runs to Microsoft, names of model files included, and keeps
a number of the machine and what it has not sent so far in the user's cache. OpenVINO tells Intel of
each import, with a number that it keeps in ~/intel. Nets are the user's own affair, so both are
loaded without it. A program that has imported them before has chosen by itself.
"""

from __future__ import annotations

import os
import sys
from types import ModuleType

from boundary.interrupts import loading

_REPORTER = "openvino_telemetry"  # a package of its own, without which OpenVINO works, too


def load_onnxruntime() -> ModuleType:
    """onnxruntime. It reports only if ORT_DISABLE_TELEMETRY=0 is in the environment.

    Raises ImportError if it is not installed.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    with loading():
        import onnxruntime
    return onnxruntime


def load_openvino() -> ModuleType:
    """OpenVINO, as if its package for reports were not installed. Raises ImportError if it is not
    installed itself.
    """
    hidden = _REPORTER not in sys.modules
    if hidden:
        sys.modules[_REPORTER] = None  # type: ignore[assignment]  # an import raises ImportError
    try:
        with loading():
            import openvino
    finally:
        if hidden:
            del sys.modules[_REPORTER]
    return openvino
