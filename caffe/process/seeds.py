"""Random seeds: this process's own, and the one common to processes that train together."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from caffe.process import ranks

TORCH_DEFAULT_SEED = 67280421310721
if torch.initial_seed() == TORCH_DEFAULT_SEED:
    torch.seed()  # unseeded runs differ, as Caffe's do; PyTorch always starts alike


@dataclass
class _State:
    common_seed: int | None = None


_state = _State()


def set_random_seed(seed: int, rank: int = 0) -> None:
    """Seed every random number of the engine: fillers, dropout, data augmentation, shuffling.

    rank: this solver's rank among several. Solvers draw different numbers but shuffle alike.
    """
    _state.common_seed = int(seed)
    seed_torch(int(seed) + rank)


def seed_torch(seed: int) -> None:
    """Seed CPU and GPUs like torch.manual_seed, which would load PyTorch's compiler, 90 MB."""
    torch.default_generator.manual_seed(seed % 2**64)
    torch.cuda.manual_seed_all(seed % 2**64)


def process_seed() -> int:
    """The seed of this process: the one that was set, or else one drawn from the system."""
    return torch.initial_seed()


def common_seed() -> int:
    """The seed common to all solvers of a training, so that all shuffle the records alike."""
    if _state.common_seed is not None:
        return _state.common_seed
    return process_seed() if ranks.solver_count() == 1 else 0


def share_seed(seed: int) -> None:
    """Make `seed` the common seed, unless one is set already."""
    if _state.common_seed is None:
        _state.common_seed = int(seed)
