"""Processes that train together: each one's place among them, how they meet, and what they say.

One process a device. `caffe train -gpu 0,1` starts them itself (caffe/launch.py); torchrun, or any
launcher that sets the same variables of the environment, starts them across machines.
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from caffe.errors import CaffeError
from caffe.process import device, ranks, seeds
from caffe.process.log import ERROR, init_log, lowest_level

# A test on rank 0 may take hours, and the others wait for it. That a process has died shows
# otherwise: by its broken connections, and to whoever started it.
FOREVER = timedelta(days=365)

REQUESTS = ("none", "snapshot", "stop")  # the later wins where ranks differ


class PeerLost(CaffeError):
    """The processes can no longer talk: another one has ended, and knows why."""


@dataclass(frozen=True)
class Place:
    """A process among all (`rank` of `count`), and among those on its machine."""

    rank: int
    count: int
    local_rank: int
    local_count: int


def place_from_environment() -> Place | None:
    """Where torchrun put this process; None if it did not start it.

    Raises CaffeError for variables that make no sense.
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
    """Without torchrun's variables for it: the only process of its machine."""
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

    asked: the flags that name them, for the message. Raises CaffeError if there is not one each.
    """
    if len(devices) != place.local_count:
        raise CaffeError(
            f"{asked} asks for {len(devices)} process(es) on this machine, the launcher started "
            f"{place.local_count}: torchrun --nproc_per_node {len(devices)} starts as many"
        )
    return devices[place.local_rank]


def take_place(place: Place, gpu: int | None) -> None:
    """Make this process the one of its rank: mode, device, share of the cores; only rank 0 logs.

    Comes before the solver is made. Raises CaffeError where the GPU does not exist.
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
    """Let the processes of a machine share its cores, unless the user says how many to use."""
    given = os.environ.get("OMP_NUM_THREADS")
    # torchrun's default for more than one
    default = given == "1" and count > 1 and by_torchrun()
    if given is None or default:
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // count))


def by_torchrun() -> bool:
    """Whether torchrun itself started this process, and not another launcher in its manner."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def end_with_parent() -> None:
    """Have the system end this process when the one that started it ends, however that does.

    More exactly, when the thread does: for starters of which it is known that they wait.
    """
    if sys.platform == "linux":
        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)


# -- meeting ----------------------------------------------------------------------------------


def join(meeting_place: str | None, rank: int, count: int) -> None:
    """Meet the other processes, unless that was done before.

    meeting_place: a file that all of them (on one machine) are told of; None: as torchrun's
    variables say. Raises CaffeError where GPUs are in use and PyTorch has no NCCL, or where the
    others do not come.
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
    # Requests are agreed on by gloo in both cases: nobody waits for a GPU to say that it goes on.
    backend = "cpu:gloo,cuda:nccl" if on_gpu else "gloo"
    try:
        if meeting_place is None:
            dist.init_process_group(backend, timeout=FOREVER)
        else:
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # whatever the host's name means
            store = dist.FileStore(meeting_place, count)
            dist.init_process_group(
                backend, store=store, rank=rank, world_size=count, timeout=FOREVER
            )
    except (RuntimeError, ValueError) as error:
        raise CaffeError(
            f"NCCL: rank {rank} of {count} could not join the others: {_first_line(error)}"
        ) from error
    _share_seed()


def _share_seed() -> None:
    """Where random_seed is not given the first process draws for all."""
    seed = torch.tensor(seeds.process_seed() % 2**63)  # int64 has no more bits
    finish(dist.broadcast(seed, 0, async_op=True))
    seeds.share_seed(int(seed))


def leave() -> None:
    """Part from the others, when all are done; nothing if there are none."""
    if dist.is_initialized():
        agree("none")
        dist.destroy_process_group()


# -- talking ----------------------------------------------------------------------------------


def send(values: torch.Tensor, group: Any = None, op: Any = dist.ReduceOp.SUM) -> Any:
    """Begin to replace `values` by their sum over all processes; give the result to finish()."""
    try:
        return dist.all_reduce(values, op, group=group, async_op=True)
    except RuntimeError as error:
        raise _lost(error) from error


def finish(work: Any) -> None:
    """Wait for what send() began. Raises PeerLost if another process is gone."""
    try:
        work.wait()
    except RuntimeError as error:
        raise _lost(error) from error


def agree(request: str) -> str:
    """What all do: 'stop' if any process asks for it, else 'snapshot', else 'none'.

    Waits until every process has asked, however long that takes. Raises PeerLost.
    """
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return request
    code = torch.tensor([REQUESTS.index(request)], dtype=torch.int32)
    finish(send(code, op=dist.ReduceOp.MAX))
    return REQUESTS[int(code)]


def gather(value: Any) -> list[Any]:
    """What every process hands in, by rank; all call it. For small Python objects."""
    values = [value] * dist.get_world_size()
    try:
        dist.all_gather_object(values, value)
    except RuntimeError as error:
        raise _lost(error) from error
    return values


def _lost(error: RuntimeError) -> PeerLost:
    # gloo: "[where in its source] what. Advice."
    text = re.sub(r"^\[\S+\] ", "", _first_line(error)).partition(". ")[0]
    return PeerLost(f"lost the other processes: {text}")


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
