"""Ranks: how many solvers there are, and which of them this process is."""

from __future__ import annotations

import pytest

import caffe
from caffe.process import ranks

pytestmark = pytest.mark.usefixtures("fresh")


def test_solver_count_and_rank() -> None:
    assert (caffe.solver_count(), caffe.solver_rank(), ranks.root_solver()) == (1, 0, True)
    caffe.set_solver_count(4)
    caffe.set_solver_rank(3)
    caffe.set_multiprocess(True)
    assert (caffe.solver_count(), caffe.solver_rank(), ranks.root_solver()) == (4, 3, False)


def test_only_the_first_rank_speaks(capsys) -> None:
    for rank in (0, 1):
        caffe.set_solver_rank(rank)
        ranks.announce("net.cpp:1", f"rank {rank}")
    assert [line.split("] ")[1] for line in capsys.readouterr().err.splitlines()] == ["rank 0"]
