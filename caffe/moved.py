"""Lets users' scripts import modules that moved under their former names."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

# former module -> the modules that hold its names now
MOVED = {
    "caffe.augment": ("caffe.data.augment",),
    "caffe.cli": ("caffe.commands.cli",),
    "caffe.dataset": ("caffe.data.dataset",),
    "caffe.db": ("caffe.formats.db",),
    "caffe.deploy": ("caffe.plan.prepared",),
    "caffe.device": ("caffe.process.device", "caffe.process.seeds", "caffe.process.ranks"),
    "caffe.distributed": ("caffe.process.peers",),
    "caffe.execution": ("caffe.process.execution", "caffe.process.memory"),
    "caffe.files": ("caffe.formats.files",),
    "caffe.fillers": ("caffe.layers.fillers",),
    "caffe.flags": ("caffe.commands.flags",),
    "caffe.fused": ("caffe.kernels.fused",),
    "caffe.launch": ("caffe.train.launch",),
    "caffe.learning_rate": ("caffe.solver.learning_rate",),
    "caffe.module": ("caffe.export.module",),
    "caffe.nccl": ("caffe.train.allreduce",),
    "caffe.onnx_graph": ("caffe.export.onnx", "caffe.formats.onnx"),
    "caffe.prototext": ("caffe.formats.prototext",),
    "caffe.resume": ("caffe.solver.resume",),
    "caffe.script": ("caffe.commands.script",),
    "caffe.signals": ("caffe.process.signals",),
    "caffe.snapshots": ("caffe.solver.snapshots",),
    "caffe.state_dict": ("caffe.export.state_dict",),
    "caffe.sync_bn": ("caffe.kernels.sync_bn",),
    "caffe.training": ("caffe.train.training",),
    "caffe.updates": ("caffe.solver.updates",),
    "caffe.upgrade": ("caffe.formats.upgrade",),
    "caffe.winograd": ("caffe.kernels.winograd",),
    "caffe.wire": ("caffe.formats.wire",),
}


class _Moved:
    """Finds former modules and loads them with the public names of the new ones.

    It implements importlib's finder and loader without the base classes of importlib.abc: these
    import tempfile and more, a twentieth of the time that `python -m netgen NET` takes.
    """

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return ModuleSpec(name, self) if name in MOVED else None

    def create_module(self, spec: ModuleSpec) -> None:
        """None: the import system creates the module."""

    def exec_module(self, module: ModuleType) -> None:
        homes = MOVED[module.__name__]
        message = f"{module.__name__} is now {' and '.join(homes)}"
        warnings.warn(message, DeprecationWarning, stacklevel=2)
        for home in homes:
            found = vars(importlib.import_module(home))
            vars(module).update({k: v for k, v in found.items() if not k.startswith("_")})


def install() -> None:
    """Allow imports of the former names; loads no module before one is imported."""
    if not any(isinstance(finder, _Moved) for finder in sys.meta_path):
        sys.meta_path.append(_Moved())
