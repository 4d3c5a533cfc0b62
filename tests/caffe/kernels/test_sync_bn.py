"""Batch normalisation over all processes' batches is that of one joined batch."""

from __future__ import annotations

import importlib
import math

import pytest
import torch
import torch.nn.functional as F

import caffe
from caffe.process.signals import SignalRequests
from caffe.train.launch import run_processes

# Three samples on rank 0, one on rank 1: each takes its own of the same five.
WORK = """
import math
import os
import sys
from pathlib import Path

import torch
from caffe.process import ranks
from caffe.process.peers import agree, from_first, join, leave
from caffe.kernels.sync_bn import sync_batch_norm

def normalise(folder, place, uid, requests):
    ranks.set_solver_count(place.count)
    ranks.set_solver_rank(place.rank)
    join(uid, place.rank, place.count)
    given = torch.load(f"{folder}/given")
    own = slice(0, 3) if place.rank == 0 else slice(3, 4)
    found = {"agreed": [agree(r) for r in (("none", "stop", "snapshot", "none"),
                                           ("none", "snapshot", "none", "stop"))[place.rank]]}
    found["of the first"] = [from_first(v) for v in ((0.1, math.nan), (math.inf, 5.0))[place.rank]]
    for dtype in (torch.float32, torch.bfloat16):
        for affine in (False, True):
            x = given["x"][own].to(dtype).requires_grad_()
            gain, bias = (given[n].clone().requires_grad_() for n in ("gain", "bias"))
            more = (gain, bias, 1e-3, True) if affine else (None, None, 1e-3)
            y, mean, variance = sync_batch_norm(x, *more)
            (y * given["dy"][own]).sum().backward()
            found[str(dtype), affine] = {
                "y": y.detach(), "dx": x.grad, "mean": mean, "variance": variance,
                "dgain": gain.grad, "dbias": bias.grad,
            }
    leave()
    found["threads"] = [Path(f"/proc/self/task/{t}/comm").read_text() for t in threads()]
    torch.save(found, f"{folder}/{place.rank}")

def threads():
    return os.listdir("/proc/self/task") if sys.platform == "linux" else []
"""


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory):
    """The inputs, and the results of two processes."""
    folder = tmp_path_factory.mktemp("sync_bn")
    generator = torch.Generator().manual_seed(0)
    given = {
        "x": torch.randn(4, 5, 6, 7, generator=generator) * 3 + 10,
        "dy": torch.randn(4, 5, 6, 7, generator=generator),
        "gain": torch.rand(5, generator=generator) + 0.5,
        "bias": torch.randn(5, generator=generator),
    }
    torch.save(given, folder / "given")
    (folder / "work_of_sync_bn.py").write_text(WORK)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.syspath_prepend(str(folder))
        work = importlib.import_module("work_of_sync_bn")
        run_processes(work.normalise, (str(folder),), 2, SignalRequests())
    return given, [torch.load(folder / str(rank), weights_only=True) for rank in range(2)]


def _joined(given: dict[str, torch.Tensor], dtype: torch.dtype, affine: bool):
    """The same on one process, by autograd."""
    x = given["x"].to(dtype).float().detach().requires_grad_()
    gain, bias = (given[n].clone().requires_grad_() for n in ("gain", "bias"))
    mean, variance = torch.zeros(5), torch.zeros(5)
    y = F.batch_norm(
        x, mean, variance, *((gain, bias) if affine else ()), training=True, momentum=1, eps=1e-3
    )
    y = F.relu(y) if affine else y
    (y * given["dy"]).sum().backward()
    found = {"y": y.detach(), "dx": x.grad, "mean": mean, "variance": variance}
    return found | {"dgain": gain.grad, "dbias": bias.grad}


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize(
    ("dtype", "rtol", "atol"), [(torch.float32, 1e-4, 1e-5), (torch.bfloat16, 2e-2, 5e-2)]
)
def test_two_batches_are_one(two_ranks, dtype, rtol: float, atol: float, affine: bool) -> None:
    given, ranks = two_ranks
    expected = _joined(given, dtype, affine)
    first, second = (rank[str(dtype), affine] for rank in ranks)
    for name in ("y", "dx"):
        assert first[name].dtype == dtype
        both = torch.cat([first[name], second[name]]).float()
        torch.testing.assert_close(both, expected[name], rtol=rtol, atol=atol)
    for name in ("mean", "variance"):
        assert torch.equal(first[name], second[name])  # to the last bit
        torch.testing.assert_close(first[name], expected[name], rtol=1e-5, atol=1e-5)
    for name in ("dgain", "dbias") if affine else ():
        # bfloat16: where rounding turns the sign of a value, ReLU gives or takes a whole gradient
        near = 1e-4 if dtype == torch.float32 else 1
        torch.testing.assert_close(first[name] + second[name], expected[name], rtol=rtol, atol=near)


def test_they_agree_on_what_is_asked(two_ranks) -> None:
    """Stop wins over snapshot, snapshot over none, whichever rank was asked."""
    _, ranks = two_ranks
    assert [rank["agreed"] for rank in ranks] == [["none", "stop", "snapshot", "stop"]] * 2


def test_they_take_the_first_ones_number(two_ranks) -> None:
    _, ranks = two_ranks
    for rank in ranks:
        exact, diverged = rank["of the first"]
        assert exact == 0.1
        assert math.isnan(diverged)


def test_nothing_runs_on_after_they_part(two_ranks) -> None:
    """A thread of gloo's that Python's exit meets can end the process with SIGABRT."""
    _, ranks = two_ranks
    assert not [name for rank in ranks for name in rank["threads"] if "gloo" in name]


NORM = """
layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 3 dim: 2 dim: 4 } } }
layer { name: "bn" type: "BatchNorm" bottom: "x" top: "bn" }
"""


@pytest.mark.usefixtures("fresh")
def test_one_process_and_tests_take_their_own_statistics(make_net) -> None:
    caffe.set_sync_bn(True)
    net = make_net(NORM)
    assert not net.wiring.layers[1].synchronous
    net.forward(x=torch.randn(3, 2, 4).numpy())
    assert abs(net.blobs["bn"].data.mean()) < 1e-6
    caffe.set_solver_count(2)
    assert make_net(NORM).wiring.layers[1].synchronous
    assert not make_net(NORM, caffe.TEST).wiring.layers[1].synchronous
