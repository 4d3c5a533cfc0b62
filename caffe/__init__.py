"""pycaffe's API, executed by PyTorch.

`import caffe` is cheap: the engine (and torch) is loaded when one of its names is first used, so
that net_spec and the protobuf messages can be had without it.
"""

from __future__ import annotations

import boundary.interrupts  # when `python -m` starts a command; before all others

# isort: split
import importlib
from typing import Any

from caffe.moved import install as _install

__version__ = "0.1.0"

_install()

TRAIN = 0
TEST = 1

# name -> module that defines it; loaded on first use.
_LAZY = {
    "CaffeError": "caffe.errors",
    "Net": "caffe.net.net",
    "Layer": "caffe.layers.python_layer",
    "layer_type_list": "caffe.layers",
    "register": "caffe.layers",
    **dict.fromkeys(("set_mode_cpu", "set_mode_gpu", "set_device"), "caffe.process.device"),
    "set_random_seed": "caffe.process.seeds",
    "set_allow_python": "caffe.process.permission",
    "set_crop_alignment": "caffe.process.alignment",
    "set_fork": "caffe.formats.meaning",
    **dict.fromkeys(
        ("set_precision", "set_recompute", "set_deterministic"), "caffe.process.execution"
    ),
    "set_engine": "caffe.engines.setting",
    **dict.fromkeys(
        ("solver_count", "set_solver_count", "solver_rank", "set_solver_rank"),
        "caffe.process.ranks",
    ),
    **dict.fromkeys(("set_multiprocess", "set_sync_bn"), "caffe.process.ranks"),
    "init_log": "caffe.process.log",
    "set_verbosity": "caffe.process.log",
    "log": "caffe.process.log",
    "set_logging": "caffe.process.log",
    **dict.fromkeys(
        ("SGDSolver", "NesterovSolver", "AdaGradSolver", "RMSPropSolver", "AdaDeltaSolver"),
        "caffe.solver.solver",
    ),
    "AdamSolver": "caffe.solver.solver",
    "get_solver": "caffe.solver.solver",
    "latest_snapshot": "caffe.solver.snapshots",
    "NCCL": "caffe.train.allreduce",
    "has_nccl": "caffe.train.allreduce",
    "Timer": "caffe.timer",
    "Classifier": "caffe.classifier",
    "Detector": "caffe.detector",
    "layers": "caffe.net_spec",
    "params": "caffe.net_spec",
    "NetSpec": "caffe.net_spec",
    "to_proto": "caffe.net_spec",
    "to_module": "caffe.export.module",
}
_MODULES = (
    "classifier",
    "convert",
    "coord_map",
    "data",
    "detector",
    "draw",
    "io",
    "net_spec",
    "proto",
)


def __getattr__(name: str) -> Any:
    if name not in _LAZY and name not in _MODULES:
        raise AttributeError(f"module 'caffe' has no attribute {name!r}")
    with boundary.interrupts.loading():
        module = importlib.import_module(_LAZY.get(name, f"caffe.{name}"))
    value = getattr(module, name) if name in _LAZY else module
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY, *_MODULES})
