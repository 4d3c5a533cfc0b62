"""Where and how the engine runs: CPU or GPU, random seed, rank among several solvers."""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch

from caffe.errors import CaffeError


@dataclass
class _State:
    mode: str = "CPU"
    device_id: int = 0
    seed: int | None = None
    solver_count: int = 1
    solver_rank: int = 0
    multiprocess: bool = False


_state = _State()


def current_device() -> torch.device:
    """The torch device of the current mode."""
    if _state.mode == "GPU":
        return torch.device("cuda", _state.device_id)
    return torch.device("cpu")


def set_mode_cpu() -> None:
    _state.mode = "CPU"


def set_mode_gpu() -> None:
    """Run on the GPU of set_device (default 0). Raises CaffeError where there is none."""
    check_gpu(_state.device_id)
    # Caffe computes in full float32; cuDNN and cuBLAS would round to TF32.
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    _state.mode = "GPU"


def set_device(device_id: int) -> None:
    """Choose the GPU. Raises CaffeError where it does not exist."""
    check_gpu(device_id)
    _state.device_id = device_id


def check_gpu(device_id: int) -> None:
    if not torch.cuda.is_available():
        raise CaffeError(
            f"GPU {device_id} was asked for, but PyTorch sees no CUDA device "
            f"(torch {torch.__version__}); run without -gpu, or install a CUDA build and driver"
        )
    count = torch.cuda.device_count()
    if not 0 <= device_id < count:
        raise CaffeError(f"GPU {device_id} does not exist: this machine has GPUs 0 to {count - 1}")


def set_random_seed(seed: int) -> None:
    """Seed every random number of the engine: fillers, dropout, data augmentation, shuffling."""
    _state.seed = int(seed)
    torch.manual_seed(_state.seed % 2**64)


def process_seed() -> int:
    """The seed that set_random_seed gave, or one drawn from the system and kept from then on."""
    if _state.seed is None:
        _state.seed = random.SystemRandom().randrange(2**32)
    return _state.seed


def solver_count() -> int:
    return _state.solver_count


def set_solver_count(count: int) -> None:
    _state.solver_count = int(count)


def solver_rank() -> int:
    return _state.solver_rank


def set_solver_rank(rank: int) -> None:
    _state.solver_rank = int(rank)


def set_multiprocess(on: bool) -> None:
    _state.multiprocess = bool(on)


def root_solver() -> bool:
    """True in the one process that logs, tests and saves."""
    return _state.solver_rank == 0
