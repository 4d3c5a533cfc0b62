"""Batch normalisation over the batches of all processes, as if they were one batch."""

from __future__ import annotations

import torch
import torch.distributed as dist

from caffe.process.peers import finish, own_group, send


def sync_batch_norm(
    x: torch.Tensor,
    gain: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    eps: float = 1e-5,
    relu: bool = False,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """y = (x - mean) / sqrt(variance + eps) [* gain + bias] [, rectified], and the statistics.

    x: (N, C, ...) on every process; N may differ. gain, bias: (C), float32, both or neither.
    Returns y and the mean (C) and unbiased variance (C) over all processes, bitwise equal on all of
    them (Ioffe and Szegedy, 2015). The gradient of x is that of the sum of all processes' losses;
    for gain and bias it is this process's share of that gradient.
    Every process must call it the same number of times. Raises PeerLost if one has ended.
    """
    y, mean, variance = _SyncBatchNorm.apply(x, gain, bias, eps, relu)
    return y, mean, variance


class _SyncBatchNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, gain, bias, eps: float, relu: bool):
        mean, variance, count = _statistics(x)
        y = torch.native_batch_norm(x, gain, bias, mean, variance, False, 0.0, eps)[0]
        if relu:
            y.relu_()
        ctx.save_for_backward(x, gain, mean, variance, count, y if relu else None)
        ctx.eps = eps
        unbiased = variance * (count / (count - 1).clamp(min=1))
        ctx.mark_non_differentiable(mean, unbiased)
        return y, mean, unbiased

    @staticmethod
    def backward(ctx, grad, *_):
        x, gain, mean, variance, count, y = ctx.saved_tensors
        if y is not None:
            grad = torch.ops.aten.threshold_backward(grad, y, 0)
        invstd = torch.rsqrt(variance + ctx.eps)
        # Sums over this process of g * xhat and of g: the gradients of gain and bias.
        _, along, total = torch.ops.aten.native_batch_norm_backward(
            grad, x, invstd.new_ones(len(mean)), mean, variance, None, None, False, ctx.eps,
            [False, True, True],
        )  # fmt: skip
        dx = None
        if ctx.needs_input_grad[0]:
            dx = _input_gradient(grad, x, gain, mean, invstd, along, total, count)
        learns = gain is not None
        return dx, along if learns else None, total if learns else None, None, None


def _input_gradient(grad, x, gain, mean, invstd, along, total, count) -> torch.Tensor:
    """gain * invstd * (g - mean(g) - xhat * mean(g * xhat)), with means over all processes.

    along: this process's sums of g * xhat; total: its sums of g; both (C).
    """
    means = torch.stack([along, total])
    finish(send(means, own_group("sync_bn")))
    means.div_(count)
    slope = invstd if gain is None else invstd * gain
    by_x = -slope * invstd * means[0]
    constant = -slope * means[1] - by_x * mean
    shape = (1, -1, *[1] * (x.dim() - 2))
    slope, by_x, constant = (v.view(shape).to(grad.dtype) for v in (slope, by_x, constant))
    return torch.addcmul(torch.addcmul(constant, grad, slope), x, by_x)


def _statistics(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Mean and biased variance (C) over all processes, and the number of values per channel."""
    axes = [0, *range(2, x.dim())]
    values = x if x.dtype == torch.float32 else x.float()
    variance, mean = torch.var_mean(values, axes, correction=0)
    mine = torch.cat([mean, variance, mean.new_tensor([x.numel() // x.shape[1]])])
    # Each process fills its row of a table of zeros, so the sum is the same whole table on all.
    table = mine.new_zeros(dist.get_world_size(), len(mine), dtype=torch.float64)
    table[dist.get_rank()] = mine
    finish(send(table, own_group("sync_bn")))
    means, variances, counts = table.split([len(mean), len(mean), 1], dim=1)
    count = counts.sum()  # stays a tensor: a number would make the CPU wait for the GPU
    shares = counts / count
    mean = (means * shares).sum(0)
    variance = ((variances + (means - mean).square()) * shares).sum(0)
    return mean.float(), variance.float(), count.float()
