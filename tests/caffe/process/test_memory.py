"""How much memory is left, what is said when there is none, and what the C library keeps."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from caffe.errors import CaffeError
from caffe.process import memory

LIMITED = """
import resource
from caffe.process import memory
before = memory.left()
resource.setrlimit(resource.RLIMIT_AS, (2**31, 2**31))
print(0 < memory.left() < 2**31, memory.left() <= before)
"""


def test_a_limit_of_the_address_space_counts() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIMITED], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["True", "True"]


@pytest.mark.parametrize("version", [1, 2])
def test_a_limit_of_a_control_group_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: int
) -> None:
    """The nearest group has no limit, the one above it has one."""
    root = tmp_path / ("memory" if version == 1 else "")
    names = {
        1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_cache", "4:memory:/job/step"),
        2: ("memory.max", "memory.current", "file", "0::/job/step"),
    }
    limit, used, cached, line = names[version]
    for folder, most in (("job", "5000"), ("job/step", "max")):
        (root / folder).mkdir(parents=True)
        (root / folder / limit).write_text(most + "\n")
        (root / folder / used).write_text("3000\n")
        (root / folder / "memory.stat").write_text(f"anon 2000\n{cached} 500\n")
    table = tmp_path / "table"
    table.write_text(f"9:cpu:/other\n{line}\n")
    monkeypatch.setattr(memory, "GROUPS", tmp_path)
    monkeypatch.setattr(memory, "OWN_GROUPS", table)
    assert memory.left() == 5000 - 3000 + 500


def test_no_memory_is_said_in_one_line() -> None:
    import torch

    def raised(fails: Callable[[], object]) -> str:
        with pytest.raises(CaffeError) as caught, memory.named("here"):
            fails()
        return str(caught.value)

    def none() -> None:
        raise MemoryError

    assert raised(none) == "here: not enough memory: none is left"
    tried = raised(lambda: torch.empty(2**60))
    assert tried == "here: not enough memory: it tried to take 4.6 EB"
    large = raised(lambda: torch.empty(2**62))
    assert large.startswith("here: too large to be computed: Storage size")
    x = torch.zeros(1, 1, 2, 2)
    wide = raised(lambda: torch.nn.functional.avg_pool2d(x, 2**32 - 1, 1, 2**31 - 1))
    assert wide.startswith("here: too large to be computed: ")


def test_other_errors_stay() -> None:
    with pytest.raises(RuntimeError, match="another"), memory.named("here"):
        raise RuntimeError("another")


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


def test_a_limit_of_data_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = {resource.RLIMIT_AS: resource.RLIM_INFINITY, resource.RLIMIT_DATA: 2**40}
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (limits[kind], limits[kind]))
    monkeypatch.setattr(memory, "_of_machine", lambda: float("inf"))
    monkeypatch.setattr(memory, "_of_group", lambda: float("inf"))
    assert 2**39 < memory.left() < 2**40
