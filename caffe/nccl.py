"""NCCL: solvers in several processes that train one set of weights.

Each process has a solver of its own and a part of the data. torch.distributed carries the sums:
NCCL between GPUs, gloo between processes on the CPU.
"""

from __future__ import annotations

import os
import tempfile
import uuid
import weakref
from collections.abc import Sequence

import torch
import torch.distributed as dist

from caffe import device
from caffe.errors import CaffeError
from caffe.net import Parameter
from caffe.solver import Solver


def has_nccl() -> bool:
    """Whether this machine can reduce between GPUs."""
    return torch.cuda.is_available() and dist.is_available() and dist.is_nccl_available()


class NCCL:
    """The link of one process's solver to those of the others, as pycaffe's class of this name.

    solver: of this process; set_solver_count, set_solver_rank and set_device come before it.
    uid: what new_uid() gave, in one process, for all of them.

    To be given to solver.add_callback, and under layer_wise_reduce to net.after_backward, too, so
    that a layer's gradients travel while the layers before it are still at work.
    Raises CaffeError where GPUs are in use and PyTorch has no NCCL, or the others do not come.
    """

    def __init__(self, solver: Solver, uid: bytes | str) -> None:
        self._solver = weakref.ref(solver)  # the solver holds this object in its callbacks
        self.count = device.solver_count()
        device.set_multiprocess(True)
        _join(os.fsdecode(uid), device.solver_rank(), self.count)
        self._owned: dict[int, list[Parameter]] = {}
        for param in solver.net.learnable:
            index = solver.net._layers.index(param.layer)
            self._owned.setdefault(index, []).append(param)
        self._layer_wise = solver.param.layer_wise_reduce and solver.param.iter_size == 1
        self._under_way: dict[int, _Reduction] = {}

    @staticmethod
    def new_uid() -> bytes:
        """A name under which the processes of one training find each other on this machine."""
        return os.fsencode(os.path.join(tempfile.gettempdir(), f"caffe-{uuid.uuid4().hex}"))

    def bcast(self) -> None:
        """Give all processes the weights of the first."""
        for param in self._net().learnable:
            dist.broadcast(param.blob.tensor(), 0)

    def on_start(self) -> None:
        """Nothing is to be done before an iteration."""

    def on_gradients_ready(self) -> None:
        """Replace the gradients by their mean over all processes."""
        rest = [i for i in self._owned if i not in self._under_way]
        for i in rest:
            self._begin(i)
        for reduction in self._under_way.values():
            reduction.finish(self.count)
        self._under_way.clear()

    def __call__(self, layer: int) -> None:
        """After the backward pass of a layer: send off the gradients that are complete with it.

        Those are the ones it owns; layers that share them lie behind it.
        """
        if self._layer_wise and layer in self._owned:
            self._begin(layer)

    def _begin(self, layer: int) -> None:
        gradients = [param.blob.diff_tensor() for param in self._owned[layer]]
        self._under_way[layer] = _Reduction(gradients)

    def _net(self):
        solver = self._solver()
        if solver is None:
            raise CaffeError("NCCL: its solver is gone")
        return solver.net


class _Reduction:
    """A sum over all processes that is being made."""

    def __init__(self, gradients: Sequence[torch.Tensor]) -> None:
        self.gradients = gradients
        self.joined = torch.cat([g.flatten() for g in gradients])
        self.work = dist.all_reduce(self.joined, async_op=True)

    def finish(self, count: int) -> None:
        self.work.wait()
        parts = self.joined.div_(count).split([g.numel() for g in self.gradients])
        for gradient, part in zip(self.gradients, parts, strict=True):
            gradient.copy_(part.view(gradient.shape))


def _join(path: str, rank: int, count: int) -> None:
    """Meet the other processes, unless that was done before (by torchrun, say)."""
    if dist.is_initialized():
        if dist.get_world_size() != count:
            raise CaffeError(
                f"NCCL: {dist.get_world_size()} processes are joined already, and solver_count "
                f"is {count}"
            )
        return
    on_gpu = device.current_device().type == "cuda"
    if on_gpu and not has_nccl():
        raise CaffeError("NCCL: this PyTorch has no NCCL; train on one GPU, or on the CPU")
    if on_gpu:
        torch.cuda.set_device(device.current_device())
    try:
        store = dist.FileStore(path, count)
        backend = "nccl" if on_gpu else "gloo"
        dist.init_process_group(backend, store=store, rank=rank, world_size=count)
    except (RuntimeError, ValueError) as error:
        raise CaffeError(
            f"NCCL: rank {rank} of {count} could not join the others: {error}"
        ) from error
