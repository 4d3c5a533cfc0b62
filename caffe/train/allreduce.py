"""NCCL: solvers in several processes that train one set of weights.

Each process has a solver of its own and a part of the data. torch.distributed sums the gradients:
by NCCL between GPUs, by gloo between processes on the CPU. Gradients are sent in buckets while the
backward pass is still computing those of earlier layers.
"""

from __future__ import annotations

import os
import tempfile
import uuid
import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist

from caffe.blob import Blob
from caffe.errors import CaffeError
from caffe.net import Net, Parameter
from caffe.process import ranks
from caffe.process.peers import agree, finish, from_first, join, send

if TYPE_CHECKING:
    from caffe.solver import Solver

BUCKET = 25 << 20  # bytes of small gradients that are sent together
LARGE = 4 << 20  # a gradient of this many bytes or more is sent alone, without a copy


def has_nccl() -> bool:
    """Whether PyTorch can sum between GPUs on this machine."""
    return torch.cuda.is_available() and dist.is_available() and dist.is_nccl_available()


class NCCL:
    """The link from one process's solver to the others', as pycaffe's class of this name.

    solver: this process's; call set_solver_count, set_solver_rank and set_device before making it.
    uid: the value of new_uid() in one of the processes, the same for all; None under torchrun,
    whose environment variables say how to meet.

    Give it to solver.add_callback. Under layer_wise_reduce also give it to net.after_backward, or
    call overlap(), so that gradients are sent while earlier layers are still computing theirs.
    Raises CaffeError if GPUs are in use and PyTorch has no NCCL, or if the other processes do not
    come; later, PeerLost if one of them is gone.
    """

    def __init__(self, solver: Solver, uid: bytes | str | None) -> None:
        self._solver = weakref.ref(solver)  # the solver holds this object in its callbacks
        self.count = ranks.solver_count()
        ranks.set_multiprocess(True)
        join(None if uid is None else os.fsdecode(uid), ranks.solver_rank(), self.count)
        params = _written(solver.net)
        self._owned: dict[int, list[Blob]] = {}
        for param in params:
            index = solver.net.wiring.layers.index(param.layer)
            self._owned.setdefault(index, []).append(param.blob)
        self._early = solver.param.layer_wise_reduce
        # The last layers' gradients are ready first.
        self._buckets = _make_buckets([param.blob for param in reversed(params)])
        self._bucket_of = {b.diff_key: k for k, bk in enumerate(self._buckets) for b in bk.blobs}
        self._passes = solver.param.iter_size
        self._start_over()

    @staticmethod
    def new_uid() -> bytes:
        """A name under which the processes of one training find each other on this machine."""
        return os.fsencode(os.path.join(tempfile.gettempdir(), f"caffe-{uuid.uuid4().hex}"))

    def bcast(self) -> None:
        """Copy the first process's weights to all processes."""
        for param in self._net().learnable:
            finish(dist.broadcast(param.blob.tensor(), 0, async_op=True))

    def overlap(self) -> None:
        """Under layer_wise_reduce, have the net pass on each gradient as soon as it is complete."""
        net = self._net()
        net.gradient_hook = self._complete if self._early else None

    def on_start(self) -> None:
        """Do nothing; the solver calls this before each iteration."""

    def on_gradients_ready(self) -> None:
        """Replace the gradients by their mean over all processes."""
        for bucket in self._buckets[self._sent :]:
            bucket.send()
        for bucket in self._buckets:
            bucket.finish(self.count)
        self._start_over()

    def agree(self, request: str) -> str:
        """The request that all processes follow, given each one's: the last in peers.REQUESTS."""
        return agree(request)

    def from_first(self, value: float) -> float:
        """The first process's value; every process must call it."""
        return from_first(value)

    def __call__(self, layer: int) -> None:
        """Send the gradients that layer `layer` owns, which its backward pass has completed.

        Layers that share them come later in the net, so their backward passes are done already.
        """
        if self._early:
            for blob in self._owned.get(layer, ()):
                self._complete(blob)

    def _complete(self, blob: Blob) -> None:
        """One of iter_size passes has completed the gradient of `blob`: send the full buckets.

        All processes send the buckets in the same order, in whatever order these fill.
        """
        key = blob.diff_key
        if key not in self._bucket_of:
            return
        self._left[key] -= 1
        if self._left[key] < 0:
            raise AssertionError("a gradient changed after it was sent")
        if self._left[key]:
            return
        self._missing[self._bucket_of[key]] -= 1
        while self._sent < len(self._buckets) and not self._missing[self._sent]:
            self._buckets[self._sent].send()
            self._sent += 1

    def _start_over(self) -> None:
        self._left = dict.fromkeys(self._bucket_of, self._passes)
        self._missing = [len(bucket.blobs) for bucket in self._buckets]
        self._sent = 0

    def _net(self) -> Net:
        solver = self._solver()
        if solver is None:
            raise CaffeError("NCCL: its solver is gone")
        return solver.net


class _Bucket:
    """Gradients that are sent together: a single large one in place, or small ones as a copy."""

    def __init__(self, blobs: Sequence[Blob]) -> None:
        self.blobs = list(blobs)
        self._sum: torch.Tensor | None = None

    def send(self) -> None:
        gradients = [blob.diff_tensor().data for blob in self.blobs]
        self._in_place = len(gradients) == 1 and gradients[0].is_contiguous()
        self._sum = gradients[0] if self._in_place else torch.cat([g.flatten() for g in gradients])
        self._work = send(self._sum)

    def finish(self, count: int) -> None:
        assert self._sum is not None
        finish(self._work)
        self._sum.div_(count)
        if not self._in_place:
            gradients = [blob.diff_tensor().data for blob in self.blobs]
            parts = self._sum.split([g.numel() for g in gradients])
            for gradient, part in zip(gradients, parts, strict=True):
                gradient.copy_(part.view(gradient.shape))
        self._sum = self._work = None


def _make_buckets(blobs: Sequence[Blob]) -> list[_Bucket]:
    """The blobs in buckets, in order, except that large ones overtake small ones before them."""
    buckets: list[_Bucket] = []
    small: list[Blob] = []
    for blob in blobs:
        if 4 * blob.count >= LARGE:
            buckets.append(_Bucket([blob]))
            continue
        if small and 4 * (sum(b.count for b in small) + blob.count) > BUCKET:
            buckets.append(_Bucket(small))
            small = []
        small.append(blob)
    return buckets + ([_Bucket(small)] if small else [])


def _written(net: Net) -> list[Parameter]:
    """The parameters whose gradients are ever written; a BatchNorm's statistics get none."""
    diffs = {
        blob.diff_key
        for layer in net.wiring.layers
        for i, blob in enumerate(layer.blobs)
        if layer.param_propagate_down[i] and not layer.statistic(i)
    }
    return [param for param in net.learnable if param.blob.diff_key in diffs]
