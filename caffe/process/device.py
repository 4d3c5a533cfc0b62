"""Where the engine computes: on the CPU, or on a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from boundary.late import torch
from caffe.errors import CaffeError
from caffe.process import execution


@dataclass
class _State:
    mode: str = "CPU"
    device_id: int = 0


_state = _State()


def current_device() -> torch.device:
    """The torch device of the current mode."""
    if _state.mode == "GPU":
        return torch.device("cuda", _state.device_id)
    return torch.device("cpu")


def set_mode_cpu() -> None:
    """Run on the CPU, the default."""
    _state.mode = "CPU"


def set_mode_gpu() -> None:
    """Run on the GPU that set_device chose (default 0). Raises CaffeError if it does not exist."""
    check_gpu(_state.device_id)
    execution.use_tf32()
    execution.use_fastest_kernels()
    _state.mode = "GPU"


def set_device(device_id: int) -> None:
    """Choose the GPU for GPU mode. Raises CaffeError if it does not exist."""
    check_gpu(device_id)
    _state.device_id = device_id


@contextmanager
def using(gpu: int | None) -> Iterator[None]:
    """Within the block, run on that GPU (None: on the CPU); then as before.

    The mode is the whole process's, so threads must not be in such blocks at the same time. Raises
    CaffeError if the GPU does not exist.
    """
    before = replace(_state)
    try:
        if gpu is None:
            set_mode_cpu()
        else:
            set_device(gpu)
            set_mode_gpu()
        yield
    finally:
        _state.mode, _state.device_id = before.mode, before.device_id


def check_gpu(device_id: int) -> None:
    """Raise CaffeError unless PyTorch sees a GPU of this number."""
    if not torch.cuda.is_available():
        raise CaffeError(
            f"GPU {device_id} was asked for, but PyTorch {torch.__version__} sees no CUDA device; "
            "use the CPU, or install a CUDA build of PyTorch and NVIDIA's driver"
        )
    count = torch.cuda.device_count()
    if not 0 <= device_id < count:
        raise CaffeError(f"GPU {device_id} does not exist: this machine has GPUs 0 to {count - 1}")
