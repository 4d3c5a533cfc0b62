"""How the C library is asked to keep memory."""

from __future__ import annotations

import pytest

from caffe.process import memory


def test_lasting_memory_lies_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only where keep_small_memory has set a line between small and large, which comes back."""
    asked: list[dict[int, int]] = []
    monkeypatch.setattr(memory, "_mallopt", asked.append)
    monkeypatch.setattr(memory, "_own_pages_from", 0)
    with memory.lasting_memory():
        pass
    assert asked == []
    monkeypatch.delenv("CAFFE_KEEP_MEMORY", raising=False)
    memory.keep_small_memory()
    line = asked.pop()[memory.M_MMAP_THRESHOLD]
    with memory.lasting_memory():
        assert asked.pop()[memory.M_MMAP_THRESHOLD] < line
    assert asked == [{memory.M_MMAP_THRESHOLD: line}]
