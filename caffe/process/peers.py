"""Processes that train together: their ranks, how they connect, and what they exchange.

There is one process per device. `caffe train -gpu 0,1` starts them itself (caffe/train/launch.py);
torchrun, or any launcher that sets the same environment variables, starts them across machines.
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import sys
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from caffe.errors import CaffeError
from caffe.process import device, ranks, seeds
from caffe.process.log import ERROR, init_log, lowest_level

# There is no timeout, because a test on rank 0 may take hours while the others wait. A dead process
# is noticed by its broken connections and by its parent.
FOREVER = timedelta(days=365)

_groups: dict[str, Any] = {}

REQUESTS = ("none", "snapshot", "stop", "end")  # where ranks differ, the later entry wins


class PeerLost(CaffeError):
    """The connection to another process broke because that process ended; its own log says why."""


@dataclass(frozen=True)
class Place:
    """A process among all (rank `rank` of `count`) and among those on its machine (`local_`...)."""

    rank: int
    count: int
    local_rank: int
    local_count: int


def place_from_environment() -> Place | None:
    """The place that torchrun gave this process; None if torchrun did not start it.

    Raises CaffeError if the variables are not numbers or contradict each other.
    """
    if not {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys():
        return None
    place = Place(*(_number(name) for name in ("RANK", "WORLD_SIZE")), *_local())
    for rank, count, of in (
        (place.rank, place.count, "WORLD_SIZE"),
        (place.local_rank, place.local_count, "LOCAL_WORLD_SIZE"),
    ):
        if not 0 <= rank < count:
            name = of.replace("WORLD_SIZE", "RANK")
            raise CaffeError(f"environment: {name} is {rank}, expected 0 to {of} - 1, {count - 1}")
    return place


def _local() -> tuple[int, int]:
    """(local rank, local count). Without LOCAL_RANK: the only process on its machine."""
    if "LOCAL_RANK" not in os.environ:
        return 0, 1
    return _number("LOCAL_RANK"), _number("LOCAL_WORLD_SIZE")


def _number(name: str) -> int:
    text = os.environ.get(name, "")
    try:
        return int(text)
    except ValueError:
        raise CaffeError(f"environment: {name} is {text!r}, expected a whole number") from None


def own_device(place: Place, devices: Sequence[int | None], asked: str) -> int | None:
    """The GPU (None: the CPU) of a process that a launcher started on a machine with `devices`.

    asked: the flags that name the devices, for the message. Raises CaffeError unless the machine
    has as many processes as devices.
    """
    if len(devices) != place.local_count:
        raise CaffeError(
            f"{asked} asks for {len(devices)} process(es) on this machine, the launcher started "
            f"{place.local_count}: torchrun --nproc_per_node {len(devices)} starts as many"
        )
    return devices[place.local_rank]


def take_place(place: Place, gpu: int | None) -> None:
    """Set this process's rank, mode, device and share of the cores; only rank 0 logs.

    Call it before the solver is made. Raises CaffeError if the GPU does not exist.
    """
    if gpu is None:
        device.set_mode_cpu()
    else:
        device.set_device(gpu)
        device.set_mode_gpu()
    if place.count == 1:
        return
    ranks.set_solver_count(place.count)
    ranks.set_solver_rank(place.rank)
    ranks.set_multiprocess(True)
    _share_cores(place.local_count)
    if place.rank:
        init_log(max(ERROR, lowest_level()))


def _share_cores(count: int) -> None:
    """Let the processes of a machine share its cores, unless the user set OMP_NUM_THREADS."""
    given = os.environ.get("OMP_NUM_THREADS")
    # torchrun sets 1 by itself when it starts more than one process.
    default = given == "1" and count > 1 and by_torchrun()
    if given is None or default:
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // count))


def by_torchrun() -> bool:
    """Whether torchrun itself started this process, not a launcher that sets the same variables."""
    return dist.is_torchelastic_launched()


def end_with_parent() -> None:
    """Have the system kill this process when its parent ends for whatever reason (Linux only).

    Linux watches the thread that started this process, so that thread must stay until the end.
    """
    if sys.platform == "linux":
        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)


# -- joining ----------------------------------------------------------------------------------


def join(meeting_place: str | None, rank: int, count: int) -> None:
    """Connect to the other processes, unless that was done before.

    meeting_place: the path of a file that all processes, on one machine, use to find each other;
    None: torchrun's variables say where to connect. Raises CaffeError if this process is already
    joined to another number of processes, if it runs on a GPU and PyTorch has no NCCL, or if the
    processes cannot connect.
    """
    if dist.is_initialized():
        if dist.get_world_size() != count:
            raise CaffeError(
                f"NCCL: {dist.get_world_size()} processes are joined already, and solver_count "
                f"is {count}"
            )
        return
    on_gpu = device.current_device().type == "cuda"
    if on_gpu:
        if not (dist.is_available() and dist.is_nccl_available()):
            raise CaffeError("NCCL: this PyTorch has no NCCL; train on one GPU, or on the CPU")
        torch.cuda.set_device(device.current_device())
    # agree() uses gloo in both cases, so that no process waits for a GPU only to continue.
    backend = "cpu:gloo,cuda:nccl" if on_gpu else "gloo"
    try:
        if meeting_place is not None:
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # the host's name may not resolve
            how = {"store": dist.FileStore(meeting_place, count), "rank": rank, "world_size": count}
        elif by_torchrun():  # which may start all anew
            store, _, _ = next(dist.rendezvous("env://", rank, count, timeout=FOREVER))
            store.set_timeout(FOREVER)
            store = dist.PrefixStore(_attempt(store, rank, count), store)
            how = {"store": store, "rank": rank, "world_size": count}
        else:
            how = {}
        dist.init_process_group(backend, timeout=FOREVER, **how)
    except (RuntimeError, ValueError) as error:
        raise CaffeError(
            f"NCCL: rank {rank} of {count} could not join the others: {_first_line(error)}"
        ) from error
    _share_seed()


def _attempt(store: dist.Store, rank: int, count: int) -> str:
    """A name that all processes of this attempt have in common, and no earlier attempt had.

    torchrun keeps its store when it starts the processes anew, and so the addresses of the dead
    ones. Rank 0 gives the name to whoever is registered as a rank, until the living have it.
    """
    mine = uuid.uuid4().hex
    if rank:
        store.set(f"caffe/here/{rank}", mine)
        name = store.get(f"caffe/name/{mine}").decode()
        store.set(f"caffe/met/{name}/{rank}", "")
        return name
    missing = list(range(1, count))
    while missing:
        for other in missing:
            if store.check([f"caffe/here/{other}"]):
                store.set(f"caffe/name/{store.get(f'caffe/here/{other}').decode()}", mine)
        time.sleep(0.02)
        missing = [other for other in missing if not store.check([f"caffe/met/{mine}/{other}"])]
    return mine


def _share_seed() -> None:
    """Without random_seed, rank 0's random seed becomes the common seed of all."""
    seed = torch.tensor(seeds.process_seed() % 2**63)  # int64 has no more bits
    finish(dist.broadcast(seed, 0, async_op=True))
    seeds.share_seed(int(seed))


def leave() -> None:
    """Disconnect once all processes are done; does nothing if this one never joined."""
    if dist.is_initialized():
        agree("none")
        # A group that is still referred to keeps its threads, which can crash Python's exit.
        _groups.clear()
        dist.destroy_process_group()


# -- exchange ----------------------------------------------------------------------------------


def send(values: torch.Tensor, group: Any = None, op: Any = dist.ReduceOp.SUM) -> Any:
    """Start to replace `values` by their sum, or `op`, over all processes; finish() waits for it.

    Raises PeerLost if another process has ended.
    """
    try:
        return dist.all_reduce(values, op, group=group, async_op=True)
    except RuntimeError as error:
        raise _lost(error) from error


def finish(work: Any) -> None:
    """Wait for what send() started. Raises PeerLost if another process has ended."""
    try:
        work.wait()
    except RuntimeError as error:
        raise _lost(error) from error


def own_group(purpose: str) -> Any:
    """The process group for sums of one purpose, whose order among others is not fixed.

    Every process must ask for the same groups in the same order.
    """
    if purpose not in _groups:
        _groups[purpose] = dist.new_group(timeout=FOREVER)
    return _groups[purpose]


def agree(request: str) -> str:
    """The common decision: the last in REQUESTS that any process requests.

    Waits until every process has called it, without a timeout. Raises PeerLost if one has ended.
    """
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return request
    code = torch.tensor([REQUESTS.index(request)], dtype=torch.int32)
    finish(send(code, op=dist.ReduceOp.MAX))
    return REQUESTS[int(code)]


def from_first(value: float) -> float:
    """Rank 0's value; every process must call it. Raises PeerLost if one has ended."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return value
    shared = torch.tensor([value if ranks.root_solver() else 0.0], dtype=torch.float64)
    finish(send(shared))
    return float(shared)


def gather(value: Any) -> list[Any]:
    """The values of all processes, by rank; every process must call it. For small Python objects.

    Raises PeerLost if a process has ended.
    """
    values = [value] * dist.get_world_size()
    try:
        dist.all_gather_object(values, value)
    except RuntimeError as error:
        raise _lost(error) from error
    return values


def _lost(error: RuntimeError) -> PeerLost:
    # gloo writes "[place in its source] reason. Advice."
    text = re.sub(r"^\[\S+\] ", "", _first_line(error)).partition(". ")[0]
    return PeerLost(f"lost the other processes: {text}")


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
