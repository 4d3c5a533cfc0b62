"""Operations that plans use in place of layers, to save time and keep fewer activations.

A gradient holds an activation either as a tensor (`Kept`) or as a `Recomputed`, which computes it
again. A BatchNorm-Scale-ReLU attaches a Recomputed to its result, so that a convolution and the
normalisation behind it keep a single activation between them. With recomputation on, convolutions
attach one, too, and then only the input of a block is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch

from caffe.kernels import finite, winograd
from caffe.kernels.geometry import Geometry
from caffe.kernels.later import Later, Target, target
from caffe.kernels.processor import has_amx, has_avx512, has_slow_mkl
from caffe.kernels.winograd import F2, F4, Filtering

Task = Literal["forward", "data", "weight"]

# Convolutions of at most FEW input channels are always recomputed: they take less work than the
# layers behind them, and their results, at full resolution, are among the largest.
FEW = 4


class Recomputed:
    """An activation that get() computes again when first called and holds until drop().

    held: whether another thread may still read what get() returned.
    """

    held = False

    def __init__(self, make: Callable[[], torch.Tensor]) -> None:
        self._make = make
        self._value: torch.Tensor | None = None

    def get(self) -> torch.Tensor:
        if self._value is None:
            self._value = self._make()
        return self._value

    def drop(self) -> None:
        self._value = None


class Kept(Recomputed):
    """An activation that was kept."""

    def __init__(self, value: torch.Tensor) -> None:
        super().__init__(lambda: value)
        self._value = value

    def drop(self) -> None:
        """Nothing to do: it cannot be computed again."""


def handle(x: torch.Tensor) -> Recomputed:
    """A handle that yields x in the backward pass."""
    return getattr(x, "recomputed", None) or Kept(x.detach())


def attach(y: torch.Tensor, make: Callable[[], torch.Tensor]) -> torch.Tensor:
    """Give y a handle, so that operations on y compute it again by `make` instead of keeping it."""
    y.recomputed = Recomputed(make)
    return y


# -- convolution ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Convolving:
    """A 2-D convolution, or its transpose, in a given precision and memory layout."""

    geometry: Geometry
    transposed: bool
    dtype: torch.dtype = torch.float32
    channels_last: bool = True

    def convert(self, x: torch.Tensor) -> torch.Tensor:
        """x converted to the number type and memory layout of the computation."""
        if (  # as most are; to ask is faster than to convert to what they are
            self.channels_last
            and x.dtype == self.dtype
            and x.shape[1] > 1
            and x.is_contiguous(memory_format=torch.channels_last)
        ):
            return x
        if not self.channels_last:
            x, (_, c, h, w) = x.to(self.dtype).contiguous(), x.shape
            return x.as_strided(x.shape, (c * h * w, h * w, w, 1))
        x = x.to(self.dtype).contiguous(memory_format=torch.channels_last)
        if x.shape[1] == 1:  # PyTorch would take it for the other layout and return that
            x = x.as_strided(x.shape, (x.stride(0), 1, x.stride(2), x.stride(3)))
        return x

    def filtering(self, task: Task, x: torch.Tensor, weight: torch.Tensor) -> Filtering | None:
        """Winograd's algorithm for a task on images like x, or None if it would not be faster.

        The choice depends on types, shapes and processor alone, so that runs repeat bitwise.
        """
        g = self.geometry
        plain = (
            tuple(weight.shape[2:]) == (3, 3)
            and (*g.stride, *g.pad, *g.dilation, g.group) == (1, 1, 1, 1, 1, 1, 1)
            and x.device.type == "cpu"
        )
        few, many = sorted(weight.shape[:2])
        rows, columns = F4.tiles(*x.shape[2:])
        tiles = x.shape[0] * rows * columns
        if not plain:
            return None
        choose = choose_bf16 if self.dtype == torch.bfloat16 else choose_fp32
        return choose(task, few, many, tiles)

    def filters(
        self, filtering: Filtering, weight: torch.Tensor, back: bool = False
    ) -> torch.Tensor:
        """The filters for winograd.convolve; back: for the gradient of x. In float32 the next call
        overwrites them.
        """
        turned = self.transposed != back
        filters = winograd.transform_weight(filtering, weight, turned, self.dtype)
        return filters if turned else filters.transpose(1, 2)

    def forward(
        self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
    ) -> torch.Tensor:
        """The convolution of x, which convert() returned; weight and bias are float32."""
        bias = None if bias is None else bias.to(self.dtype)
        filtering = self.filtering("forward", x, weight)
        if filtering is not None:
            return winograd.convolve(filtering, x, self.filters(filtering, weight), bias)
        g = self.geometry
        return torch.ops.aten.convolution(
            x, self.convert(weight), bias, g.stride, g.pad, g.dilation, self.transposed, (0, 0),
            g.group,
        )  # fmt: skip

    def backward(
        self, grad: torch.Tensor, x: Recomputed, weight: torch.Tensor, wanted: Sequence[bool]
    ) -> list[torch.Tensor | None]:
        """The gradients of x, weight and bias; None for those not wanted."""
        grads = self._short_backward(grad, x, weight, wanted)
        if grad.device.type == "cpu" and not self._are_sound(grads):
            return self._plain_backward(grad, x, weight, wanted)
        return grads

    def split_backward(
        self, grad: torch.Tensor, x: Recomputed, weight: torch.Tensor, wanted: Sequence[bool]
    ) -> tuple[torch.Tensor | None, Callable[[], list[torch.Tensor | None]]]:
        """The same, of x now; the function, which any thread may call, gives those of weight and
        bias behind None.
        """
        grad, x = self.convert(grad), Kept(self.convert(x.get()))
        first = self._short_backward(grad, x, weight, [wanted[0], False, False])
        rest = [False, *wanted[1:]]
        if first[0] is None:
            return None, lambda: self.backward(grad, x, weight, rest)
        if grad.device.type == "cpu" and not self._are_sound(first):
            first = self._plain_backward(grad, x, weight, wanted)
            return first[0], lambda: [None, *first[1:]]
        return first[0], lambda: self._short_backward(grad, x, weight, rest)

    def _plain_backward(
        self, grad: torch.Tensor, x: Recomputed, weight: torch.Tensor, wanted: Sequence[bool]
    ) -> list[torch.Tensor | None]:
        """The same in the layers' layout, for values that are not finite: oneDNN multiplies NaN by
        the padding in one layout, not in the other.
        """
        plain, grads = replace(self, channels_last=False), [None, None, None]
        plain.direct_backward(grads, list(wanted), plain.convert(grad), x, weight)
        return grads

    def _are_sound(self, grads: Sequence[torch.Tensor | None]) -> bool:
        """Whether gradients stem from a finite gradient; x and weight are known to be finite."""
        if grads[0] is not None:
            return finite.first_finite(grads[0], self.geometry.group)
        return grads[1] is None or finite.all_finite(grads[1])

    def _short_backward(
        self, grad: torch.Tensor, x: Recomputed, weight: torch.Tensor, wanted: Sequence[bool]
    ) -> list[torch.Tensor | None]:
        """The same, for finite values."""
        grad, left = self.convert(grad), list(wanted)
        grads: list[torch.Tensor | None] = [None, None, None]
        filtering = self.filtering("data", grad, weight)
        if wanted[0] and filtering is not None:
            filters = self.filters(filtering, weight, back=True)
            grads[0], left[0] = winograd.convolve(filtering, grad, filters), False
        filtering = self.filtering("weight", grad, weight)
        if wanted[1] and filtering is not None:
            pair = self.convert(x.get()), grad
            pair = pair[::-1] if self.transposed else pair
            grads[1], left[1] = winograd.weight_gradient(filtering, *pair), False
        if wanted[2] and not left[1]:
            grads[2], left[2] = grad.sum((0, 2, 3), dtype=torch.float32), False
        if any(left):
            self.direct_backward(grads, left, grad, x, weight)
        return grads

    def direct_backward(
        self,
        grads: list[torch.Tensor | None],
        wanted: list[bool],
        grad: torch.Tensor,
        x: Recomputed,
        weight: torch.Tensor,
    ) -> None:
        """Fill in the wanted gradients in `grads` by PyTorch's convolution."""
        g = self.geometry
        if wanted[0]:
            weight = self.convert(weight)
        else:  # only its shape and layout are used
            layout = torch.channels_last if self.channels_last else torch.contiguous_format
            weight = torch.empty_like(weight, dtype=self.dtype, memory_format=layout)
        found = torch.ops.aten.convolution_backward(
            grad, self.convert(x.get()), weight, [grad.shape[1]], g.stride, g.pad,
            g.dilation, self.transposed, (0, 0), g.group, wanted,
        )  # fmt: skip
        for i, value in enumerate(found):
            if wanted[i]:
                grads[i] = value.float() if i else value


def _narrow(few: int, many: int) -> bool:
    """Whether the transforms of Winograd's algorithms cost more than the products they save."""
    return few < 64 or few * many < 128 * 64


def choose_fp32(task: Task, few: int, many: int, tiles: int) -> Filtering | None:
    """The fastest algorithm in float32, None for PyTorch's.

    few, many: the smaller and the larger of the numbers of input and output channels; tiles: the
    number of F4's tiles in the batch.
    """
    if has_slow_mkl():
        return F4 if _choose_wide(task, few * many, tiles) else None
    if task == "forward" and has_amx():
        wide, middling = few >= 256, few * many >= 128 * 256
        return F4 if (wide and tiles >= 48) or (middling and tiles >= 256) else None
    if _narrow(few, many):
        slow = task == "weight" and few >= 32 and tiles >= 256 and not has_avx512()
        return F4 if slow else None
    return F4 if tiles >= 64 or (task == "forward" and tiles >= 16 and few >= 256) else None


def _choose_wide(task: Task, area: int, tiles: int) -> bool:
    """Whether F4 is faster where oneDNN computes both its products and the direct convolution at
    the processor's full rate. area: the product of the numbers of channels.
    """
    if task == "weight":
        large = area >= 256 * 256 and tiles >= 192
        return large or (area >= 64 * 128 and tiles >= 700) or (area >= 512 * 512 and tiles >= 128)
    wide = task == "data" and area >= 256 * 512 and tiles >= 64
    return wide or (area >= 128 * 128 and tiles >= 192)


def choose_bf16(task: Task, few: int, many: int, tiles: int) -> Filtering | None:
    """The same in bfloat16; F4 only for gradients, whose rounding averages out over steps."""
    if _narrow(few, many):
        return None
    if task == "forward":
        return F2 if few * many >= 128 * 256 and tiles >= 16 else None
    if many < 256 or few < 128 or tiles < 64:
        return None
    if many == 256:
        return F4
    if task == "data":
        return F4 if tiles >= 256 else F2
    return F2 if tiles >= 256 else None


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, how: Convolving, source: Recomputed):
        ctx.save_for_backward(weight)
        ctx.how, ctx.source, ctx.dtype = how, source, x.dtype
        ctx.targets = target(weight), target(bias)
        return how.forward(how.convert(x), weight, bias)

    @staticmethod
    def backward(ctx, grad):
        (weight,), how, source = ctx.saved_tensors, ctx.how, ctx.source
        wanted, ctx.source = list(ctx.needs_input_grad[:3]), None
        later = _later(ctx.targets, wanted[1:])
        if later is None:
            grads = how.backward(grad, source, weight, wanted)
        else:
            first, rest = how.split_backward(grad, source, weight.detach(), wanted)
            grads, targets, source.held = [first, None, None], ctx.targets, True

            def add() -> None:
                with torch.no_grad():
                    for found, where in zip(rest()[1:], targets, strict=True):
                        if found is not None:
                            where.add(found)

            later.add(add)
        if grads[0] is not None:
            grads[0] = grads[0].to(ctx.dtype)
        return *grads, None, None


def _later(targets: Sequence[Target | None], wanted: Sequence[bool]) -> Later | None:
    """What computes the wanted gradients later on; None: they are wanted at once."""
    found = [where for where, want in zip(targets, wanted, strict=True) if want]
    if not found or None in found or not found[0].later.is_open:
        return None
    return found[0].later


def convolve(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    how: Convolving,
    recompute: bool,
) -> torch.Tensor:
    """The convolution of x (N, C, H, W), with gradients.

    recompute: operations on the result compute it again instead of keeping it.
    """
    source = handle(x)
    if isinstance(source, Kept):
        source = Kept(how.convert(x.detach()))
    y = _Convolution.apply(x, weight, bias, how, source)
    if recompute or x.shape[1] <= FEW:
        w, b = weight.detach(), None if bias is None else bias.detach()
        attach(y, lambda: how.forward(how.convert(source.get()), w, b))
    return y


# -- normalisation ----------------------------------------------------------------------------


class _BatchNormScaleReLU(torch.autograd.Function):
    """Normalises by the batch, scales, shifts, rectifies; keeps at most its bottom."""

    @staticmethod
    def forward(ctx, x, gain, bias, mean, variance, eps: float, relu: bool, source: Recomputed):
        y, batch_mean, invstd = torch.native_batch_norm(
            x, gain, bias, mean, variance, True, 1.0, eps
        )
        if relu:
            y.relu_()
        ctx.save_for_backward(gain, batch_mean, invstd)
        ctx.eps, ctx.source = eps, source
        ctx.mark_non_differentiable(batch_mean, invstd)
        return y, batch_mean, invstd

    @staticmethod
    def backward(ctx, grad, *_):
        gain, mean, invstd = ctx.saved_tensors
        source, result = ctx.source, ctx.result
        ctx.source = ctx.result = None
        if result is not None:  # ReLU passes the gradient where its result is positive
            y = result.get()
            if result.held:
                grad = torch.ops.aten.threshold_backward(grad, y, 0)
            else:
                grad = torch.ops.aten.threshold_backward(grad, y, 0, grad_input=y)
            result.drop()
        needs = list(ctx.needs_input_grad[:3])
        grads = torch.ops.aten.native_batch_norm_backward(
            grad, source.get(), gain, None, None, mean, invstd, True, ctx.eps, needs
        )
        source.drop()
        return (
            *(g if n else None for g, n in zip(grads, needs, strict=True)),
            None,
            None,
            None,
            None,
            None,
        )


def batch_norm_scale_relu(
    x: torch.Tensor,
    gain: torch.Tensor,
    bias: torch.Tensor,
    mean: torch.Tensor,
    variance: torch.Tensor,
    eps: float,
    relu: bool,
) -> torch.Tensor:
    """y = (x - mean) / sqrt(var + eps) * gain + bias, rectified if relu, by the batch's statistics.

    x: (N, C, ...); gain, bias: (C). mean and variance (C) are overwritten by the batch's mean and
    unbiased variance.
    """
    source = handle(x)
    y, batch_mean, invstd = _BatchNormScaleReLU.apply(
        x, gain, bias, mean, variance, eps, relu, source
    )
    g, b = gain.detach(), bias.detach()

    def make() -> torch.Tensor:
        var = invstd.double().pow(-2).sub(eps).to(invstd.dtype)
        out = torch.native_batch_norm(source.get(), g, b, batch_mean, var, False, 0.0, eps)[0]
        return out.relu_() if relu else out

    attach(y, make)
    if y.grad_fn is not None:
        y.grad_fn.result = y.recomputed if relu else None
    return y


# -- pooling ----------------------------------------------------------------------------------


class _MaxPool(torch.autograd.Function):
    """Max pooling of windows that do not overlap; keeps only the indices.

    Each input is the maximum of at most one window, so unpooling gives the gradient.
    """

    @staticmethod
    def forward(ctx, x, kernel, ceil: bool):
        y, index = torch.nn.functional.max_pool2d(
            x, kernel, kernel, ceil_mode=ceil, return_indices=True
        )
        ctx.save_for_backward(index)
        ctx.size = list(x.shape[2:])
        ctx.mark_non_differentiable(index)
        return y, index

    @staticmethod
    def backward(ctx, grad, _):
        (index,) = ctx.saved_tensors
        return torch.ops.aten.max_unpool2d(grad, index, ctx.size), None, None


def max_pool(
    x: torch.Tensor, kernel: tuple[int, int], ceil: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Maxima of adjacent windows of x (N, C, H, W), and their flat indices in the plane, int64."""
    y, index = _MaxPool.apply(x, kernel, ceil)
    return y, index


class _Unpool(torch.autograd.Function):
    """Unpooling whose gradient is channels-last as its input is; PyTorch's own gradient is not."""

    @staticmethod
    def forward(ctx, x, index, size):
        ctx.save_for_backward(index)
        return torch.ops.aten.max_unpool2d(x, index, size)

    @staticmethod
    def backward(ctx, grad):
        (index,) = ctx.saved_tensors
        n, c, h, w = index.shape
        planes = grad.permute(0, 2, 3, 1).reshape(n, -1, c)
        places = index.permute(0, 2, 3, 1).reshape(n, -1, c)
        return planes.gather(1, places).view(n, h, w, c).permute(0, 3, 1, 2), None, None


def unpool(x: torch.Tensor, index: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Put x's values at their flat indices in planes of `size` (height, width), zeros elsewhere."""
    source = handle(x)
    y = _Unpool.apply(x, index, list(size))
    return attach(y, lambda: torch.ops.aten.max_unpool2d(source.get(), index, list(size)))
