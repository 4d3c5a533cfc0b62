"""Operations on one thread, without a change for others."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from caffe.process import threads


@pytest.fixture(autouse=True)
def _two(_one_thread: None) -> Iterator[None]:
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


def test_one_thread_within_the_block() -> None:
    with threads.alone():
        assert torch.get_num_threads() == 1
        with threads.alone():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2
    with pytest.raises(ValueError, match="within"), threads.alone():
        raise ValueError("within")
    assert torch.get_num_threads() == 2


def test_other_threads_keep_theirs() -> None:
    with ThreadPoolExecutor(1) as other, threads.alone():
        assert other.submit(torch.get_num_threads).result() == 2


def test_a_thread_takes_as_many_as_it_is_told() -> None:
    with ThreadPoolExecutor(1, "", threads.share_out, (3,)) as other:
        assert other.submit(torch.get_num_threads).result() == 3
        assert torch.get_num_threads() == 2


def test_without_openmp_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_openmp", lambda: None)
    with threads.alone():
        assert torch.get_num_threads() == 2


def test_another_library_is_not_taken_for_pytorchs(monkeypatch: pytest.MonkeyPatch) -> None:
    class Other:
        def omp_set_num_threads(self, count: int) -> None:
            pass

    monkeypatch.setattr(threads.ctypes, "PyDLL", lambda name: Other())
    assert threads._openmp.__wrapped__() is None
