"""How nets compute: precision, recomputation, determinism."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass, replace
from functools import cache

from boundary.late import torch
from caffe.errors import CaffeError
from caffe.process.log import WARNING
from caffe.process.ranks import announce

PRECISIONS = ("fp32", "tf32", "bf16")


@dataclass(frozen=True)
class Settings:
    """The values of the set_ functions below; the defaults are Caffe's behaviour."""

    precision: str = "fp32"
    recompute: bool = False
    deterministic: bool = False


_current = Settings()


def settings() -> Settings:
    """The current settings, for another process to take()."""
    return _current


def take(new: Settings) -> None:
    """Apply the settings() of another process."""
    set_precision(new.precision)
    set_recompute(new.recompute)
    set_deterministic(new.deterministic)


def set_precision(name: str) -> None:
    """Choose the arithmetic of all nets: 'fp32' (the default, as in Caffe), 'tf32' or 'bf16'.

    bf16: convolutions and inner products multiply bfloat16 numbers and sum in float32, and plans
    (`net.observed = False`, the caffe command) keep activations in bfloat16. Weights, their
    gradients and history, BatchNorm's statistics, softmax and losses stay float32, and so do
    `.data` and `.diff`. tf32: convolutions and matrix products on NVIDIA GPUs round their factors
    to 10 bits of mantissa; elsewhere it equals fp32. Modules (`to_module`) and converted nets stay
    float32 in every case. Raises CaffeError for any other name.
    """
    if name not in PRECISIONS:
        raise CaffeError(f"precision {name!r} is unknown; expected one of {', '.join(PRECISIONS)}")
    _change(precision=name)
    use_tf32()


def precision() -> str:
    """The current precision: 'fp32', 'tf32' or 'bf16'."""
    return _current.precision


def use_tf32() -> None:
    """Allow cuDNN and cuBLAS to round to TF32 only with precision 'tf32'; cuDNN does by default."""
    allowed = _current.precision == "tf32"
    torch.backends.cudnn.allow_tf32 = allowed
    torch.backends.cuda.matmul.allow_tf32 = allowed


def set_recompute(on: bool) -> None:
    """Whether training plans recompute the outputs of convolutions in the backward pass.

    This takes about a quarter more time and much less memory; gradients are the same up to
    rounding.
    """
    _change(recompute=bool(on))


def recompute() -> bool:
    """Whether recomputation is on; see set_recompute."""
    return _current.recompute


def set_deterministic(on: bool) -> None:
    """Whether a GPU must repeat its results exactly, at some cost. The CPU always does."""
    _change(deterministic=bool(on))
    if on:
        # cuBLAS reads this variable on its first use.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        # PyTorch warns because the result is random where two values meet in one place; in plans
        # they never do.
        warnings.filterwarnings("ignore", "max_unpooling2d", UserWarning)
    # The call below loads PyTorch's compiler, so it is made only when something changes.
    if bool(on) != torch.are_deterministic_algorithms_enabled():
        torch.use_deterministic_algorithms(bool(on), warn_only=True)
    use_fastest_kernels()


def use_fastest_kernels() -> None:
    """Let cuDNN time its algorithms and take the fastest, unless runs must repeat exactly."""
    torch.backends.cudnn.benchmark = not _current.deterministic
    torch.backends.cudnn.deterministic = _current.deterministic


@cache
def warn_of_slow_bfloat16() -> None:
    """Say once if this processor multiplies bfloat16 numbers without instructions for it.

    Convolutions of 16 to 128 channels then take about ten times as long as in fp32.
    """
    known = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    if known is not None and not known():
        message = "precision bf16: this processor has no instructions for it; fp32 is much faster"
        announce("execution.py:1", message, WARNING)


def _change(**values: object) -> None:
    global _current
    _current = replace(_current, **values)
