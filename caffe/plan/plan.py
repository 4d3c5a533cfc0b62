"""Plan: how a net runs when nobody looks at the blobs between its inputs and outputs.

The layer loop of `Net` keeps every blob, as pycaffe's users expect. A plan computes the same
outputs and parameter gradients with less time and memory: the layers become nodes over values,
rewrites (caffe/rewrites.py) replace what can be done together, one graph of autograd spans the
whole net, and a value is forgotten when the last node that takes it has run. Only the net's output
blobs are filled.

On the CPU, and in bf16 everywhere, 4-D values are kept channels-last, as convolutions prefer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import torch

from caffe.blob import Blob
from caffe.errors import CaffeError
from caffe.graph.wiring import Wiring
from caffe.layers.activation import Dropout, ReLU
from caffe.layers.base import Layer, Tensors
from caffe.layers.common import Concat, Eltwise, Slice, Split
from caffe.layers.pooling import Pooling
from caffe.layers.vision import Convolution, Deconvolution
from caffe.process import execution
from caffe.process.device import current_device
from caffe.proto import caffe_pb2 as pb

if TYPE_CHECKING:
    from caffe.net import Net

Operation = Callable[[Tensors, Tensors], Sequence[torch.Tensor]]


# Layers that neither sum much nor take logarithms: what they do to bfloat16 numbers stays as good.
ANY_PRECISION = (ReLU, Dropout, Pooling, Eltwise, Concat, Slice, Split)


class Circumstances(NamedTuple):
    """What a plan is made for; for others it is made anew."""

    settings: execution.Settings
    device: torch.device


def circumstances() -> Circumstances:
    return Circumstances(execution.settings(), current_device())


@dataclass
class Node:
    """One operation: values in, values out (numbers of values), and the blobs that it reads."""

    layers: list[Layer]
    bottom: list[int]
    top: list[int]
    run: Operation
    wants: list[bool]  # which bottoms get a gradient
    blobs: list[Blob] = field(default_factory=list)
    reduced: bool = False  # whether it takes bfloat16; else its bottoms are made float32

    @property
    def layer(self) -> Layer:
        return self.layers[0]

    @property
    def name(self) -> str:
        """The layers' names, joined by +."""
        return "+".join(layer.name for layer in self.layers)

    def is_a(self, *classes: type[Layer]) -> bool:
        """Whether this is still one single layer, of one of these types."""
        return len(self.layers) == 1 and isinstance(self.layer, classes)


def can_plan(wiring: Wiring) -> bool:
    """Whether a plan can stand for the net: sources take nothing, the others are pure functions.

    A user's Python layer, say, works on blobs, and gets the layer loop.
    """
    return all(layer.num_bottoms == 0 if layer.source else layer.pure for layer in wiring.layers)


class Clock:
    """What each node of a plan takes, in seconds: `spent["forward"]` and `["backward"]`.

    A node's backward lasts from when its gradient is complete to when the next one's is.
    """

    def __init__(self, plan: Plan, now: Callable[[], float]) -> None:
        self.plan, self.now = plan, now
        self.names = [node.name for node in plan.nodes]
        self.spent = {way: [0.0] * len(self.names) for way in ("forward", "backward")}
        self._at: int | None = None
        self._last = now()

    def run(self) -> None:
        """Pass forth and back once."""
        self.plan.clock, self._at, self._last = self, None, self.now()
        try:
            self.plan.forward()
            self._last = self.now()
            self.plan.backward()
        finally:
            self.plan.clock = None

    def forward(self, k: int, tops: Sequence[torch.Tensor]) -> None:
        """Node k has run, the one after the last."""
        self._charge("forward", k)
        for top in tops:
            if top.requires_grad:
                top.register_hook(lambda _, k=k: self.backward(k))

    def backward(self, k: int | None) -> None:
        """The gradient of node k's tops is there; None: all are done."""
        if self._at is not None:
            self._charge("backward", self._at)
        self._at, self._last = k, self.now()

    def _charge(self, way: str, k: int) -> None:
        now = self.now()
        self.spent[way][k] += now - self._last
        self._last = now


class Plan:
    """The plan of one net. `train`: gradients are wanted, else only outputs.

    forward() returns the losses (weighted, scalars); after it the net's output blobs are filled.
    backward() adds to the gradients of the parameters.
    """

    def __init__(self, net: Net, train: bool) -> None:
        from caffe.plan.rewrites import rewrite

        self.net, self.train = net, train
        self.circumstances = circumstances()
        self.nodes: list[Node] = []
        self._outputs: dict[int, Blob] = {}
        self._losses: dict[int, float] = {}
        self._read_net()
        rewrite(self)
        self._last_use = {i: k for k, node in enumerate(self.nodes) for i in node.bottom}
        self._total: torch.Tensor | None = None
        self.clock: Clock | None = None  # told what runs when

    @property
    def dtype(self) -> torch.dtype:
        """What convolutions and inner products multiply."""
        return torch.bfloat16 if self.circumstances.settings.precision == "bf16" else torch.float32

    @property
    def channels_last(self) -> bool:
        return self.circumstances.device.type == "cpu" or self.dtype == torch.bfloat16

    def is_current(self) -> bool:
        """Whether this is still how the net should run."""
        return self.circumstances == circumstances()

    def _read_net(self) -> None:
        """One node a layer; a blob that is written in place becomes several values."""
        wiring = self.net.wiring
        newest: dict[int, int] = {}
        count = 0
        for i, (layer, bottoms, tops) in enumerate(wiring):
            bottom = [newest[b] for b in bottoms]
            top = list(range(count, count + len(tops)))
            count += len(top)
            newest.update(zip(tops, top, strict=True))
            run = _source(layer, wiring.top_blobs(i)) if layer.source else self.pure(layer)
            wants = list(wiring.wants[i])
            node = Node([layer], bottom, top, run, wants, list(layer.blobs))
            node.reduced = isinstance(layer, ANY_PRECISION) and not _counts(layer)
            self.nodes.append(node)
            for value, weight in zip(top, layer.loss_weights, strict=True):
                if weight:
                    self._losses[value] = weight
        for i in wiring.outputs:
            self._outputs[newest[i]] = wiring.blobs[i]

    def pure(self, layer: Layer) -> Operation:
        """The layer's own forward; what multiplies and has no rewrite does it in this dtype."""
        convolves = isinstance(layer, Convolution | Deconvolution)
        reduces = self.dtype == torch.bfloat16 and layer.multiplies

        def run(bottom: Tensors, blobs: Tensors) -> Sequence[torch.Tensor]:
            if convolves and self.channels_last:
                bottom = [channels_last(x) for x in bottom]
            with torch.autocast(self.circumstances.device.type, torch.bfloat16, enabled=reduces):
                tops = layer.forward(bottom, blobs)
            return [tops] if isinstance(tops, torch.Tensor) else tops

        return run

    # -- for rewrites ---------------------------------------------------------------------------

    def takers(self) -> Counter[int]:
        """How often each value is taken; outputs and losses count as taken once more."""
        count = Counter(i for node in self.nodes for i in node.bottom)
        count.update([*self._outputs, *self._losses])
        return count

    def maker(self, value: int) -> Node | None:
        return next((node for node in self.nodes if value in node.top), None)

    def only_taker(self, value: int, takers: Counter[int]) -> Node | None:
        """The one node that takes `value`, if no other and no output does."""
        if takers[value] != 1:
            return None
        return next((node for node in self.nodes if value in node.bottom), None)

    def rename(self, old: int, new: int) -> None:
        """Let everyone who takes value `old` take `new`."""
        for node in self.nodes:
            node.bottom = [new if i == old else i for i in node.bottom]
        for table in (self._outputs, self._losses):
            if old in table:
                table[new] = table.pop(old)

    # -- running --------------------------------------------------------------------------------

    def forward(self) -> list[torch.Tensor]:
        device = current_device()
        self._total = None  # what an earlier pass kept
        values: dict[int, torch.Tensor] = {}
        leaves: dict[int, torch.Tensor] = {}
        losses = []
        with torch.set_grad_enabled(self.train):
            for k, node in enumerate(self.nodes):
                bottom = [
                    values[i] if want else values[i].detach()
                    for i, want in zip(node.bottom, node.wants, strict=True)
                ]
                if not node.reduced:
                    bottom = [x.float() if x.dtype == torch.bfloat16 else x for x in bottom]
                tops = node.run(bottom, self._parameters(node, leaves, device))
                del bottom
                if self.clock is not None:
                    self.clock.forward(k, tops)
                for i, value in zip(node.top, tops, strict=True):
                    values[i] = value
                    if i in self._losses:
                        losses.append(self._losses[i] * value.float().sum())
                    if i in self._outputs:
                        layout = torch.contiguous_format
                        shown = value.detach().to(torch.float32, memory_format=layout)
                        self._outputs[i].assign(shown, borrowed=True)
                del tops
                for i in {*node.bottom, *node.top}:
                    if self._last_use.get(i, -1) <= k:
                        values.pop(i, None)
        self._total = sum(losses[1:], start=losses[0]) if losses else None
        return [loss.detach() for loss in losses]

    def backward(self) -> None:
        """Add the gradients of the last forward pass's losses to the parameters' `.diff`.

        Raises CaffeError if nothing is left of that pass.
        """
        total, self._total = self._total, None
        if total is None and self.train and self._losses:
            raise CaffeError(
                f"net {self.net.name!r}: backward needs a forward pass before it, each time; only "
                "an observed net can go back twice"
            )
        if total is not None and total.requires_grad:
            total.backward()
            if self.clock is not None:
                self.clock.backward(None)

    def _parameters(
        self, node: Node, leaves: dict[int, torch.Tensor], device: torch.device
    ) -> list[torch.Tensor]:
        if not self.train:
            return [b.tensor(device) for b in node.blobs]
        ready = []
        for layer in node.layers:
            for blob, want in zip(layer.blobs, layer.param_propagate_down, strict=True):
                if layer.gathers:  # writes to statistics count as changes (deploy.Watch)
                    ready.append(blob.tensor(device).detach())
                else:
                    fixed = blob.tensor(device).data
                    ready.append(self._leaf(blob, leaves, device) if want else fixed)
        return ready

    def _leaf(
        self, blob: Blob, leaves: dict[int, torch.Tensor], device: torch.device
    ) -> torch.Tensor:
        """The parameter as a leaf whose gradient is the blob's diff, one for all who share it."""
        leaf = leaves.get(blob.data_key)
        if leaf is None:
            leaf = blob.tensor(device).data.requires_grad_()
            leaf.grad = blob.diff_tensor(device).data
            hook = self.net.gradient_hook
            if hook is not None:
                leaf.register_post_accumulate_grad_hook(lambda _: hook(blob))
            leaves[blob.data_key] = leaf
        return leaf.view(blob.shape)


def channels_last(x: torch.Tensor) -> torch.Tensor:
    """x, its channels innermost in memory if it is an image."""
    return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x


def _counts(layer: Layer) -> bool:
    """Whether it computes with places, in a mask or in windows: bfloat16 counts to 256 only."""
    maximum = pb.PoolingParameter.MAX
    return isinstance(layer, Pooling) and (
        layer.num_tops == 2 or layer.layer_param.pooling_param.pool != maximum
    )


def _source(layer: Layer, tops: Sequence[Blob]) -> Operation:
    """Fills the source's own blobs, as in the layer loop, and takes the values from there."""

    def run(bottom: Tensors, blobs: Tensors) -> Sequence[torch.Tensor]:
        layer.forward_blobs([], tops, False)
        return [blob.tensor() for blob in tops]

    return run
