"""Random seeds: of this process, and the one that processes which train together share."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from caffe.process import ranks

TORCH_DEFAULT_SEED = 67280421310721
if torch.initial_seed() == TORCH_DEFAULT_SEED:
    torch.seed()  # an unseeded Caffe differs from run to run; PyTorch would always start alike


@dataclass
class _State:
    common_seed: int | None = None


_state = _State()


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
    return process_seed() if ranks.solver_count() == 1 else 0


def share_seed(seed: int) -> None:
    """What common_seed is from now on, unless set_random_seed was called."""
    if _state.common_seed is None:
        _state.common_seed = int(seed)
