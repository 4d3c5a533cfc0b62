"""Whether numbers are finite, and how large they can be.

Short ways through a net, such as Winograd's algorithm or a ReLU within oneDNN's convolution, give
what the layers give as long as nothing overflows; NaN and infinity they lose or spread. To look at
every value would cost time. So an operation that knows a bound of its result lets the result carry
it, and the next one needs to look only where nothing is known.
"""

from __future__ import annotations

import math

import torch

# Short ways are taken for values below this, which leaves 8 digits for sums inside them.
LIMIT = 1e30


def all_finite(*tensors: torch.Tensor) -> bool:
    """Whether all values are finite; False, too, where their sum is not."""
    return all(math.isfinite(x.detach().sum().item()) for x in tensors)


def first_finite(y: torch.Tensor, groups: int) -> bool:
    """Whether a convolution's result y (N, C, H, W) stems from a finite input.

    NaN and infinity reach all channels of a group, so that the first ones tell.
    """
    return all_finite(y[:, :: y.shape[1] // groups])


def largest(x: torch.Tensor) -> float:
    """The largest magnitude in x; NaN if x holds one, 0 if x is empty."""
    if not x.numel():
        return 0.0
    if x.dim() == 4 and x.stride(1) == 1:  # in the order of memory, with gaps or without
        x = x.permute(0, 2, 3, 1)  # PyTorch takes 15 times as long in another
    low, high = torch.aminmax(x.detach())
    return max(-low.item(), high.item())


def bound(x: torch.Tensor) -> float | None:
    """What x's magnitudes do not exceed, if it carries that."""
    return getattr(x, "bound", None)


def carry(x: torch.Tensor, limit: float | None) -> torch.Tensor:
    """x, which now carries its bound; None: it carries none.

    x must not be a blob's own tensor, whose values change from pass to pass.
    """
    x.bound = limit
    return x
