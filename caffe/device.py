"""Where and how the engine runs: CPU or GPU, random seed, rank among several solvers."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from caffe import execution
from caffe.errors import CaffeError
from caffe.log import INFO, emit

TORCH_DEFAULT_SEED = 67280421310721
if torch.initial_seed() == TORCH_DEFAULT_SEED:
    torch.seed()  # an unseeded Caffe differs from run to run; PyTorch would always start alike


@dataclass
class _State:
    mode: str = "CPU"
    device_id: int = 0
    common_seed: int | None = None
    solver_count: int = 1
    solver_rank: int = 0
    multiprocess: bool = False
    sync_bn: bool = False


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
    execution.use_tf32()
    execution.use_fastest_kernels()
    _state.mode = "GPU"


def set_device(device_id: int) -> None:
    """Choose the GPU. Raises CaffeError where it does not exist."""
    check_gpu(device_id)
    _state.device_id = device_id


def check_gpu(device_id: int) -> None:
    if not torch.cuda.is_available():
        raise CaffeError(
            f"GPU {device_id} was asked for, but PyTorch {torch.__version__} sees no CUDA device; "
            "use the CPU, or install a CUDA build of PyTorch and NVIDIA's driver"
        )
    count = torch.cuda.device_count()
    if not 0 <= device_id < count:
        raise CaffeError(f"GPU {device_id} does not exist: this machine has GPUs 0 to {count - 1}")


def set_random_seed(seed: int, rank: int = 0) -> None:
    """Seed every random number of the engine: fillers, dropout, data augmentation, shuffling.

    rank: of this solver among several; they draw different numbers, but shuffle alike.
    """
    _state.common_seed = int(seed)
    seed_torch(int(seed) + rank)


def seed_torch(seed: int) -> None:
    """What torch.manual_seed does for CPU and GPUs; that loads PyTorch's compiler, 90 MB."""
    torch.default_generator.manual_seed(seed % 2**64)
    torch.cuda.manual_seed_all(seed % 2**64)


def process_seed() -> int:
    """The seed of this process: what was set, or else one drawn from the system."""
    return torch.initial_seed()


def common_seed() -> int:
    """The seed that all solvers of one training share, so that they share the records out."""
    if _state.common_seed is not None:
        return _state.common_seed
    return process_seed() if _state.solver_count == 1 else 0


def share_seed(seed: int) -> None:
    """What common_seed is from now on, unless set_random_seed was called."""
    if _state.common_seed is None:
        _state.common_seed = int(seed)


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


def set_sync_bn(on: bool) -> None:
    """Whether BatchNorm, in training, takes its statistics over the batches of all processes.

    The default is Caffe's: each over its own batch.
    """
    _state.sync_bn = bool(on)


def sync_bn() -> bool:
    """Whether there are several processes, and set_sync_bn holds."""
    return _state.sync_bn and _state.solver_count > 1


def root_solver() -> bool:
    """True in the one process that logs, tests and saves."""
    return _state.solver_rank == 0


def announce(place: str, message: str, severity: int = INFO) -> None:
    """Log what only one of several solvers should say."""
    if root_solver():
        emit(place, message, severity)
