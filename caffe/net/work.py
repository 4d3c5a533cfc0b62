"""How much a pass of a net computes, and whether several threads are worth their meetings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from math import prod
from typing import Any, TypeVar

from caffe.errors import CaffeError
from caffe.graph.wiring import Wiring
from caffe.layers import Layer
from caffe.process import threads
from caffe.process.device import current_device
from caffe.process.waiting import waiting

# A core does so many multiply-adds in less than 0.1 ms, the time in which threads that sleep are
# woken for a few operations.
LITTLE = 2_000_000
# PyTorch's own operations do not share out tensors up to this size either.
GRAIN = 32_768

Shape = tuple[int, ...]
Method = TypeVar("Method", bound=Callable[..., Any])


class Work:
    """What a pass over a net's layers computes, for the shapes that its sources have."""

    def __init__(self, wiring: Wiring) -> None:
        self._wiring = wiring
        self._sources = [i for _, bottoms, tops in wiring if not bottoms for i in tops]
        self._little: dict[tuple[Shape, ...], bool] = {}

    def is_little(self) -> bool:
        """Whether one thread computes a pass as fast as several do.

        It depends on the net and its shapes only, so that the same net sums in the same order.
        """
        shapes = tuple(self._wiring.blobs[i].shape for i in self._sources)
        if shapes not in self._little:
            self._little[shapes] = self._find(shapes)
        return self._little[shapes]

    @contextmanager
    def sharing(self) -> Iterator[None]:
        """Within the block, operations run on as many threads as are worth it for this net.

        Threads meet at the end of each operation. A net of microseconds is no faster by them, and
        beside other processes it waits at each meeting until the other threads get a core: it runs
        on one. For others, how long threads wait for each other follows from whether there are free
        cores.
        """
        if current_device().type != "cpu":
            yield
        elif self.is_little():
            with threads.alone():
                yield
        else:
            waiting.look()
            yield

    def _find(self, sources: Sequence[Shape]) -> bool:
        shapes, macs = dict(zip(self._sources, sources, strict=True)), 0
        for layer, bottoms, tops in self._wiring:
            if bottoms:
                if not layer.pure or type(layer).infer_shapes is Layer.infer_shapes:
                    return False  # a user's own layer may do more than its shapes tell
                given = [shapes[i] for i in bottoms]
                try:
                    made = layer.infer_shapes(given)
                    macs += layer.macs(given)
                except (CaffeError, RuntimeError, IndexError, ValueError):
                    return False  # the pass itself says what does not fit
                shapes.update(zip(tops, map(tuple, made), strict=True))
            if macs > LITTLE or any(prod(shapes[i]) > GRAIN for i in tops):
                return False
        return True


def shared_out(method: Method) -> Method:
    """Have a method of a Net run in its `work.sharing()`."""

    @wraps(method)
    def run(net: Any, *arguments: Any, **options: Any) -> Any:
        with net.work.sharing():
            return method(net, *arguments, **options)

    return run  # type: ignore[return-value]
