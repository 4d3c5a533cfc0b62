"""A training step in two streams, for times in which other programs leave too few cores.

The threads of an operation meet at its end. Where cores are contended, some of them wait there for
the one that has no core, and nothing of the step goes on. A second thread, with OpenMP threads of
its own, then computes what does not depend on what the first one does: in the forward pass nodes
whose bottoms are ready, such as those of FuseNet's other encoder, in the backward pass gradients of
parameters (caffe/kernels/later.py). On free cores it would only be in the way.

Results are those of one stream to the bit: the same operations run on the same number of threads,
and autograd goes back through them in the same order (`number`), in which it adds gradients up.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Container, Iterable, Sequence
from concurrent.futures import Executor, wait
from contextlib import suppress
from functools import cache

import torch

from caffe.layers import Layer
from caffe.plan.ir import Node, Program

ENOUGH = 0.1  # of the nodes that must have company for a second stream to be worth it


class Streams:
    """How the nodes of a training pass are divided between two threads.

    Nodes of layers that are not `concurrent` (caffe/layers/base.py) run in their order on the first
    thread; others on either, as soon as their bottoms are there.

    fit: whether that gives the second thread anything to do in the forward pass.
    """

    def __init__(self, program: Program) -> None:
        nodes = self._nodes = program.nodes
        self.count = len(nodes)
        uses = Counter(key for node in nodes for key in {blob.data_key for blob in node.blobs})
        layers = [layer for node in nodes for layer in node.layers if layer.changes_blobs]
        changed = {blob.data_key for layer in layers for blob in layer.blobs}
        fixed = {key for key in changed if uses[key] > 1}  # one layer changes what another reads
        self._apart = [_is_apart(node, fixed) for node in nodes]
        self.takers = Counter(i for node in nodes for i in node.bottom)
        self.fit = _has_numbers() and self._company() >= ENOUGH * len(nodes)

    def run(
        self, second: Executor, run: Callable[[int], None], values: dict[int, torch.Tensor]
    ) -> None:
        """Run all nodes on this thread and that of `second`. run: computes the node of that number
        from `values` and adds its tops; what no node takes any more is removed.

        Raises what run() raises; then no node runs any more.
        """
        work, future = _Work(self, run, values), None
        try:
            with suppress(RuntimeError):  # the thread has ended in between, or there can be none
                future = second.submit(work.go_on, False)
            work.go_on(True)
        finally:
            work.stop()
            if future is not None and not future.cancel():
                wait([future])
        try:
            if future is not None and not future.cancelled():
                future.result()
        finally:
            del future, work  # an error would keep all values alive with its traceback

    def over(self, k: int, left: Counter[int]) -> list[int]:
        """The values that nothing takes once node k has run. left: how many nodes are still to take
        each value, which is counted down.
        """
        node = self._nodes[k]
        left.subtract(node.bottom)
        return [i for i in {*node.bottom, *node.top} if not left[i]]

    def _company(self) -> int:
        """How many nodes the second thread would run if all took equally long."""
        todo, values, count = [*range(len(self._nodes))], set[int](), 0
        while todo:
            found = [self.next(todo, values, True)]
            todo.remove(found[0])
            other = self.next(todo, values, False)
            if other is not None:
                todo.remove(other)
                found.append(other)
                count += 1
            for k in found:
                values.update(self._nodes[k].top)
        return count

    def next(self, todo: Iterable[int], values: Container[int], first: bool) -> int | None:
        """The node that a thread may run next, of those to do, in order; None: it has to wait.
        first: the first thread.
        """
        in_order = first  # whether no node that must run before has been passed over
        for k in todo:
            apart = self._apart[k]
            if (apart or in_order) and all(i in values for i in self._nodes[k].bottom):
                return k
            in_order = in_order and apart
        return None


def _is_apart(node: Node, fixed: Container[object]) -> bool:
    """Whether a node may run on another thread, beside nodes that come before or after it.

    fixed: the data_key of each blob that has its turn among the nodes.
    """
    alone = all(blob.data_key not in fixed for blob in node.blobs)
    return alone and bool(node.layers) and all(map(_is_concurrent, node.layers))


def _is_concurrent(layer: Layer) -> bool:
    """Whether a layer is `concurrent`; its class may have another forward than the one that is."""
    kinds = type(layer).__mro__
    says = next(kind for kind in kinds if "concurrent" in vars(kind))
    computes = next(kind for kind in kinds if "forward" in vars(kind))
    return layer.concurrent and issubclass(says, computes)


# -- the order of the backward pass --------------------------------------------------------------

_BITS = 20  # a node makes fewer functions of autograd's graph


@cache
def _has_numbers() -> bool:
    """Whether this PyTorch lets numbers be set."""
    return hasattr(torch.zeros((), requires_grad=True).view(1).grad_fn, "_set_sequence_nr")


def number(
    k: int,
    made: Sequence[torch.Tensor],
    given: Sequence[torch.Tensor],
    parameters: Sequence[torch.Tensor] = (),
) -> None:
    """Number the functions of autograd's graph that node k has made of `given` and `parameters`.

    Autograd goes back in the descending order of these numbers, which it counts in each thread by
    itself. So they get those that they would have, but for gaps, if nodes had run one by one.
    """
    stop = {x.grad_fn for x in given} | {None}
    views = {x.grad_fn for x in parameters}  # made before the node ran
    found, waiting = set(), [x.grad_fn for x in made]
    while waiting:
        function = waiting.pop()
        if function in stop or function in found or hasattr(function, "variable"):
            continue  # a `variable` is the leaf to whose gradient the function adds
        found.add(function)
        waiting += [before for before, _ in function.next_functions]
    order = sorted(found, key=lambda function: (function not in views, function._sequence_nr()))
    for i, function in enumerate(order):
        function._set_sequence_nr((k << _BITS) + i)


class _Work:
    """One forward pass of Streams, for both threads."""

    def __init__(
        self, streams: Streams, run: Callable[[int], None], values: dict[int, torch.Tensor]
    ) -> None:
        self._streams, self._run, self._values = streams, run, values
        self._todo, self._left = [*range(streams.count)], streams.takers.copy()
        self._changed, self._stopped = threading.Condition(), False

    def go_on(self, first: bool) -> None:
        """Run nodes until there are none left for this thread."""
        try:
            with torch.enable_grad():
                while (k := self._take(first)) is not None:
                    self._run(k)
                    self._finish(k)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Have no thread take another node."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def _take(self, first: bool) -> int | None:
        with self._changed:
            while self._todo and not self._stopped:
                k = self._streams.next(self._todo, self._values, first)
                if k is not None:
                    self._todo.remove(k)
                    return k
                self._changed.wait()
            return None

    def _finish(self, k: int) -> None:
        with self._changed:
            for i in self._streams.over(k, self._left):
                self._values.pop(i, None)
            self._changed.notify_all()
