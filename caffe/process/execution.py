"""How nets compute: precision, recomputation, determinism."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass, replace

import torch

from caffe.errors import CaffeError

PRECISIONS = ("fp32", "tf32", "bf16")


@dataclass(frozen=True)
class Settings:
    """What the set_ functions here were given, or else Caffe's way."""

    precision: str = "fp32"
    recompute: bool = False
    deterministic: bool = False


_current = Settings()


def settings() -> Settings:
    """What is in force, for another process to take()."""
    return _current


def take(new: Settings) -> None:
    """Put other settings in force."""
    set_precision(new.precision)
    set_recompute(new.recompute)
    set_deterministic(new.deterministic)


def set_precision(name: str) -> None:
    """The arithmetic of all nets from now on: 'fp32' (the default, Caffe's), 'tf32' or 'bf16'.

    bf16: convolutions and inner products multiply bfloat16 numbers and sum in float32, and plans
    (`net.observed = False`, the caffe command) keep activations in bfloat16. Weights, their
    gradients and history, BatchNorm's statistics, softmax and losses stay float32, and so do
    `.data` and `.diff`. tf32: convolutions and products on NVIDIA GPUs round their factors to 10
    bits; elsewhere it is fp32. Modules (`to_module`) and converted nets are float32 all the same.
    Raises CaffeError for another name.
    """
    if name not in PRECISIONS:
        raise CaffeError(f"precision {name!r} is unknown; expected one of {', '.join(PRECISIONS)}")
    _change(precision=name)
    use_tf32()


def precision() -> str:
    """The name that set_precision was given last, or 'fp32'."""
    return _current.precision


def use_tf32() -> None:
    """Let cuDNN and cuBLAS round to TF32, which they would, only where it was asked for."""
    allowed = _current.precision == "tf32"
    torch.backends.cudnn.allow_tf32 = allowed
    torch.backends.cuda.matmul.allow_tf32 = allowed


def set_recompute(on: bool) -> None:
    """Whether plans that train make convolutions' outputs again in the backward pass.

    That takes about a quarter more time, and a good part less memory; gradients stay the same to
    rounding.
    """
    _change(recompute=bool(on))


def recompute() -> bool:
    """What set_recompute was given last, or False."""
    return _current.recompute


def set_deterministic(on: bool) -> None:
    """Whether a GPU must give the same numbers in every run, at some cost. The CPU always does."""
    _change(deterministic=bool(on))
    if on:
        # cuBLAS reads this when it is first used.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        # Only places that are written twice would be left to chance, and plans have none.
        warnings.filterwarnings("ignore", "max_unpooling2d", UserWarning)
    if bool(on) != torch.are_deterministic_algorithms_enabled():  # it loads PyTorch's compiler
        torch.use_deterministic_algorithms(bool(on), warn_only=True)
    use_fastest_kernels()


def use_fastest_kernels() -> None:
    """Let cuDNN try which of its algorithms is the fastest, unless runs must repeat."""
    torch.backends.cudnn.benchmark = not _current.deterministic
    torch.backends.cudnn.deterministic = _current.deterministic


def _change(**values: object) -> None:
    global _current
    _current = replace(_current, **values)
