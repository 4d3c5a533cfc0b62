"""A process's place among others: where it comes from, and what follows from it."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.distributed as dist

import caffe
from caffe.process import device, ranks, seeds
from caffe.process import peers as distributed
from caffe.process.log import ERROR, lowest_level
from caffe.process.peers import Place, own_device, place_from_environment, take_place

TORCHRUN = {
    "RANK": "5",
    "WORLD_SIZE": "8",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "4",
    "MASTER_ADDR": "node0",
    "MASTER_PORT": "29500",
}

pytestmark = pytest.mark.usefixtures("fresh")


@pytest.fixture(autouse=True)
def _not_under_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*TORCHRUN, "TORCHELASTIC_RUN_ID", "GLOO_SOCKET_IFNAME"):
        monkeypatch.delenv(name, raising=False)


def _set(monkeypatch: pytest.MonkeyPatch, **values: str) -> None:
    for name, value in values.items():
        monkeypatch.setenv(name, value)


def test_torchrun_says_where(monkeypatch: pytest.MonkeyPatch) -> None:
    assert place_from_environment() is None
    _set(monkeypatch, RANK="0", WORLD_SIZE="2")  # of somebody else: there is nowhere to meet
    assert place_from_environment() is None
    _set(monkeypatch, **TORCHRUN)
    assert place_from_environment() == Place(5, 8, 1, 4)
    monkeypatch.delenv("LOCAL_RANK")  # one process a machine, by a launcher that knows no more
    assert place_from_environment() == Place(5, 8, 0, 1)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("RANK", "x", "environment: RANK is 'x', expected a whole number"),
        ("RANK", "8", "environment: RANK is 8, expected 0 to WORLD_SIZE - 1, 7"),
        ("LOCAL_RANK", "4", "environment: LOCAL_RANK is 4, expected 0 to LOCAL_WORLD_SIZE - 1, 3"),
        ("LOCAL_WORLD_SIZE", "", "environment: LOCAL_WORLD_SIZE is '', expected a whole number"),
    ],
)
def test_nonsense(monkeypatch: pytest.MonkeyPatch, name: str, value: str, message: str) -> None:
    _set(monkeypatch, **{**TORCHRUN, name: value})
    with pytest.raises(caffe.CaffeError) as caught:
        place_from_environment()
    assert str(caught.value) == message


def test_each_process_has_the_device_of_its_local_rank() -> None:
    place = Place(rank=3, count=4, local_rank=1, local_count=2)
    assert own_device(place, [4, 6], "-gpu 4,6") == 6
    assert own_device(place, [None, None], "-cpu 2") is None
    with pytest.raises(caffe.CaffeError) as caught:
        own_device(place, [0, 1, 2], "-gpu all")
    assert str(caught.value) == (
        "-gpu all asks for 3 process(es) on this machine, the launcher started 2: "
        "torchrun --nproc_per_node 3 starts as many"
    )


def test_only_the_first_logs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("caffe.process.log._sink.min_level", 0)
    take_place(Place(0, 2, 0, 1), None)
    assert (lowest_level(), caffe.solver_count(), caffe.solver_rank()) == (0, 2, 0)
    take_place(Place(1, 2, 0, 1), None)
    assert (lowest_level(), caffe.solver_count(), caffe.solver_rank()) == (ERROR, 2, 1)


def test_alone_nothing_is_distributed() -> None:
    threads = torch.get_num_threads()
    take_place(Place(0, 1, 0, 1), None)
    for module in (device, ranks, seeds):
        assert module._state == module._State()
    assert torch.get_num_threads() == threads
    distributed.leave()
    assert distributed.agree("snapshot") == "snapshot"


@pytest.mark.parametrize(
    ("given", "torchrun", "expected"),
    [(None, False, 3), ("2", False, None), ("1", True, 3), ("2", True, None)],
)
def test_processes_share_the_cores(
    monkeypatch: pytest.MonkeyPatch, given: str | None, torchrun: bool, expected: int | None
) -> None:
    """Seven cores for two processes; OMP_NUM_THREADS wins, but not torchrun's own 1."""
    used = []
    monkeypatch.setattr(torch, "set_num_threads", used.append)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(7)))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if given:
        _set(monkeypatch, OMP_NUM_THREADS=given)
    if torchrun:
        _set(monkeypatch, TORCHELASTIC_RUN_ID="none")
    take_place(Place(1, 4, 1, 2), None)
    assert used == ([] if expected is None else [expected])


@pytest.fixture
def joined(monkeypatch: pytest.MonkeyPatch) -> list:
    """The arguments of init_process_group, and which GPU was chosen before."""
    calls: list = []
    monkeypatch.setattr(dist, "init_process_group", lambda *a, **k: calls.append((a, k)))
    monkeypatch.setattr(torch.cuda, "set_device", calls.append)
    monkeypatch.setattr(distributed, "_share_seed", lambda: None)
    return calls


def test_processes_on_the_cpu_meet_by_gloo(joined: list, tmp_path) -> None:
    distributed.join(str(tmp_path / "here"), 1, 2)
    (((backend,), how),) = joined
    assert (backend, how["rank"], how["world_size"]) == ("gloo", 1, 2)
    assert how["timeout"].days >= 365  # a test on rank 0 may take hours
    assert os.environ["GLOO_SOCKET_IFNAME"] == "lo"


def test_processes_on_gpus_meet_by_nccl(
    joined: list, pretend_gpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The GPU is chosen first. gloo is started, too, for what processes agree on."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(dist, "is_nccl_available", lambda: True)
    take_place(Place(6, 8, 2, 4), 3)
    distributed.join(None, 6, 8)
    chosen, ((backend,), how) = joined
    assert chosen == torch.device("cuda", 3)
    assert backend == "cpu:gloo,cuda:nccl"
    assert "rank" not in how  # torchrun's variables say so
    assert "GLOO_SOCKET_IFNAME" not in os.environ


def test_without_nccl(joined: list, pretend_gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dist, "is_nccl_available", lambda: False)
    with pytest.raises(caffe.CaffeError, match="this PyTorch has no NCCL"):
        distributed.join(None, 0, 2)


def test_a_sum_without_the_others_is_lost() -> None:
    """The error of a broken connection."""

    class Broken:
        def wait(self) -> None:
            raise RuntimeError("[a/b/pair.cc:5] Closed by peer [127.0.0.1]:1. Advice.\nand a trace")

    with pytest.raises(distributed.PeerLost) as caught:
        distributed.finish(Broken())
    expected = "lost the other processes: Closed by peer [127.0.0.1]:1"
    assert str(caught.value) == expected


def test_an_attempt_does_not_meet_those_before_it() -> None:
    """torchrun keeps one store; some of the ranks that registered there are dead."""
    store = dist.HashStore()
    store.set("caffe/here/1", "dead")  # killed before it heard of rank 0
    names = []
    for late in (0, 2):  # the rank that comes last
        with ThreadPoolExecutor(3) as threads:
            order = sorted(range(3), key=lambda rank: rank == late)
            joined = [threads.submit(distributed._attempt, store, rank, 3) for rank in order]
            (name,) = {meeting.result(60) for meeting in joined}
        names.append(name)
    assert names[0] != names[1]
