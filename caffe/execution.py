"""How nets compute: the precision of their arithmetic, and what training keeps in memory."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from caffe.errors import CaffeError

PRECISIONS = ("fp32", "tf32", "bf16")


@dataclass
class _Settings:
    precision: str = "fp32"
    recompute: bool = False


_settings = _Settings()


def set_precision(name: str) -> None:
    """The arithmetic of all nets from now on: 'fp32' (the default, Caffe's), 'tf32' or 'bf16'.

    bf16: convolutions and inner products multiply bfloat16 numbers and sum in float32, and plans
    (`net.observed = False`, the caffe command) keep activations in bfloat16. Weights, their
    gradients and history, BatchNorm's statistics, softmax and losses stay float32, and so do
    `.data` and `.diff`. tf32: convolutions and products on NVIDIA GPUs round their factors to 10
    bits; elsewhere it is fp32. Raises CaffeError for another name.
    """
    if name not in PRECISIONS:
        raise CaffeError(f"precision {name!r} is unknown; expected one of {', '.join(PRECISIONS)}")
    _settings.precision = name
    use_tf32()


def precision() -> str:
    """The name that set_precision was given last, or 'fp32'."""
    return _settings.precision


def use_tf32() -> None:
    """Let cuDNN and cuBLAS round to TF32, which they would, only where it was asked for."""
    allowed = _settings.precision == "tf32"
    torch.backends.cudnn.allow_tf32 = allowed
    torch.backends.cuda.matmul.allow_tf32 = allowed


def set_recompute(on: bool) -> None:
    """Whether plans that train make convolutions' outputs again in the backward pass.

    That takes about a quarter more time, and a good part less memory.
    """
    _settings.recompute = bool(on)


def recompute() -> bool:
    """What set_recompute was given last, or False."""
    return _settings.recompute
