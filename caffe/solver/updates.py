"""The update rules of Caffe's six solvers: from gradients and history to changes of the weights."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from caffe.errors import CaffeError
from caffe.proto import caffe_pb2 as pb

Tensors = Sequence[torch.Tensor]


class Update:
    """An update rule: `apply` turns gradients into the values to subtract from the weights.

    histories: the number of history arrays per parameter. The history lists the first array of
    every parameter, then the second of every parameter, as Caffe's .solverstate does.
    momentum_allowed: whether the solver may set momentum; if not, setting it raises CaffeError.
    shares: fields that say what share of a running mean stays, from 0 to below 1. divides: whether
    the rule divides by sums of squares, to which delta is added. momentum_factor: by what the next
    apply() multiplies the momentum, if the rule is SGD's.
    """

    name = ""
    histories = 1
    momentum_allowed = True
    shares: tuple[str, ...] = ()
    divides = False
    momentum_factor = 1.0

    def __init__(self, param: pb.SolverParameter) -> None:
        self.param = param
        if not self.momentum_allowed and param.momentum:
            raise CaffeError(f"solver: momentum {param.momentum:g} cannot be used with {self.name}")
        for name in self.shares:
            value = getattr(param, name)
            if not 0 <= value < 1:
                raise CaffeError(f"solver: {name} is {value:g}, expected 0 <= it < 1")
        if self.divides and param.delta < 0:
            raise CaffeError(f"solver: delta is {param.delta:g}, expected at least 0")

    def apply(self, grads: Tensors, history: Tensors, rates: Sequence[float], t: int) -> None:
        """Overwrite `grads` with the values to subtract, and update `history` in place.

        history: `histories` arrays per parameter. rates: one learning rate per parameter. t: the
        number of this update, from 1.
        """
        raise AssertionError("set by the subclass")


class SGD(Update):
    """v = momentum v + rate g; unlike PyTorch's, this history contains the learning rate."""

    name = "SGD"

    def apply(self, grads: Tensors, history: Tensors, rates: Sequence[float], t: int) -> None:
        torch._foreach_mul_(grads, list(rates))
        torch._foreach_mul_(history, self.param.momentum * self.momentum_factor)
        torch._foreach_add_(history, grads)
        torch._foreach_copy_(grads, history)


class Nesterov(Update):
    """v' = momentum v + rate g; the change is (1 + momentum) v' - momentum v."""

    name = "Nesterov"

    def apply(self, grads: Tensors, history: Tensors, rates: Sequence[float], t: int) -> None:
        momentum = self.param.momentum
        for g, v, rate in zip(grads, history, rates, strict=True):
            before = v.clone()
            v.mul_(momentum).add_(g, alpha=rate)
            torch.add(v * (1 + momentum), before, alpha=-momentum, out=g)


class AdaGrad(Update):
    """h = h + g^2; the change is rate g / (sqrt(h) + delta)."""

    name = "AdaGrad"
    momentum_allowed = False
    divides = True

    def apply(self, grads: Tensors, history: Tensors, rates: Sequence[float], t: int) -> None:
        for g, h, rate in zip(grads, history, rates, strict=True):
            h.addcmul_(g, g)
            g.div_(h.sqrt().add_(self.param.delta)).mul_(rate)


class RMSProp(Update):
    """h = decay h + (1 - decay) g^2; the change is rate g / (sqrt(h) + delta)."""

    name = "RMSProp"
    momentum_allowed = False
    shares = ("rms_decay",)
    divides = True

    def apply(self, grads: Tensors, history: Tensors, rates: Sequence[float], t: int) -> None:
        decay = self.param.rms_decay
        for g, h, rate in zip(grads, history, rates, strict=True):
            h.mul_(decay).addcmul_(g, g, value=1 - decay)
            g.div_(h.sqrt().add_(self.param.delta)).mul_(rate)


class AdaDelta(Update):
    """h and h2 are running means of g^2 and d^2, where d = g sqrt((h2 + delta) / (h + delta)).

    The change is rate d (Zeiler, 2012).
    """

    name = "AdaDelta"
    histories = 2
    shares = ("momentum",)
    divides = True

    def apply(self, grads: Tensors, history: Tensors, rates: Sequence[float], t: int) -> None:
        momentum, delta, n = self.param.momentum, self.param.delta, len(grads)
        for g, h, h2, rate in zip(grads, history[:n], history[n:], rates, strict=True):
            h.mul_(momentum).addcmul_(g, g, value=1 - momentum)
            g.mul_(((h2 + delta) / (h + delta)).sqrt_())
            h2.mul_(momentum).addcmul_(g, g, value=1 - momentum)
            g.mul_(rate)


class Adam(Update):
    """Adam (Kingma and Ba, 2015); as in Caffe, the bias correction leaves out delta."""

    name = "Adam"
    histories = 2
    shares = ("momentum", "momentum2")
    divides = True

    def apply(self, grads: Tensors, history: Tensors, rates: Sequence[float], t: int) -> None:
        beta1, beta2, n = self.param.momentum, self.param.momentum2, len(grads)
        correction = math.sqrt(1 - beta2**t) / (1 - beta1**t)
        for g, m, v, rate in zip(grads, history[:n], history[n:], rates, strict=True):
            m.mul_(beta1).add_(g, alpha=1 - beta1)
            v.mul_(beta2).addcmul_(g, g, value=1 - beta2)
            torch.div(m, v.sqrt().add_(self.param.delta), out=g)
            g.mul_(rate * correction)


UPDATES = {u.name: u for u in (SGD, Nesterov, AdaGrad, RMSProp, AdaDelta, Adam)}
