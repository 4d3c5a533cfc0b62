"""Weights: every way in which parameters can change is noticed, and looking at them is rare."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

import caffe
from caffe import blob as blob_module
from caffe.blob import Blob
from caffe.engines import weights
from caffe.engines.weights import Weights


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[Blob]:
    """The parameters that were looked at."""
    seen: list[Blob] = []
    look = weights._look_at
    monkeypatch.setattr(weights, "_look_at", lambda b, s: (seen.append(b), look(b, s))[1])
    return seen


def two() -> tuple[list[Blob], Weights]:
    """Two parameters that have been looked at."""
    blobs = [Blob((2, 3)), Blob((4,))]
    found = Weights(blobs)
    assert found.changed()  # nothing was known
    assert not found.changed()
    return blobs, found


def changed(found: Weights) -> bool:
    """Whether something has changed; then it is known from now on."""
    first = found.changed()
    assert not (first and found.changed())
    return first


def test_nobody_looks_while_nobody_can_write(looks) -> None:
    _, found = two()
    count = len(looks)
    for _ in range(3):
        assert found.same()
        assert not found.changed()
    assert len(looks) == count


WAYS: dict[str, Callable[[Blob], object]] = {
    "a view at once": lambda b: b.data.__setitem__(..., 5),
    "a tensor at once": lambda b: b.tensor().fill_(5),
    "assign": lambda b: b.assign(torch.full((2, 3), 5.0)),
    "other data": lambda b: b.share_data(_filled()),
    "another size and back": lambda b: (b.reshape(7), b.reshape(2, 3), b.tensor().fill_(5)),
}


def _filled() -> Blob:
    other = Blob((2, 3))
    other.tensor().fill_(5)
    return other


@pytest.mark.parametrize("viewed", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_a_write(way: str, viewed: bool) -> None:
    blobs, found = two()
    if viewed:  # before
        _ = blobs[0].data
        changed(found)
    WAYS[way](blobs[0])
    assert (blobs[0].host == 5).all()  # not tensor(), which would be noticed itself
    assert changed(found)
    WAYS[way](blobs[0])
    blobs[0].tensor()[1, 1] = 6
    assert changed(found)


KEPT: dict[str, Callable[[Blob], object]] = {
    "a view": lambda b: b.data,
    "a view of a view": lambda b: b.data[1:][:, ::2],
    "a tensor of a view": lambda b: torch.from_numpy(b.data),
    "a buffer": lambda b: memoryview(b.data.reshape(-1)),
    "a tensor": lambda b: b.tensor(),
    "a part of a tensor": lambda b: b.tensor()[1],
}


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("what", KEPT)
def test_what_was_kept_is_written_to_later(what: str, when: str) -> None:
    blob = Blob((2, 3))
    found = Weights([blob])
    kept = KEPT[what](blob) if when == "before" else None
    found.changed()
    if when == "after":
        kept = KEPT[what](blob)
        changed(found)
    for value in (3.0, 4.0):
        assert not changed(found)
        kept[-1] = value
        assert (blob.host == value).any()
        assert changed(found)


def test_a_tensor_that_is_kept_is_looked_at_alone(looks) -> None:
    blobs, found = two()
    kept = blobs[0].tensor()
    assert not found.changed()
    looks.clear()
    assert not found.changed()
    assert looks == []
    kept[0] = 1
    assert changed(found)


@pytest.mark.parametrize("what", KEPT)
def test_a_last_write_before_it_goes(what: str, looks) -> None:
    blob = Blob((2, 3))
    found = Weights([blob])
    kept = KEPT[what](blob)
    found.changed()
    kept[-1] = 3.0
    del kept
    assert changed(found)
    assert not found.changed()
    looks.clear()
    assert found.same()
    assert not found.changed()
    assert looks == []


def test_two_writes_that_cancel_out_are_none() -> None:
    """Values count, not accesses: nothing is compiled anew for someone who looks."""
    blobs, found = two()
    view = blobs[0].data
    changed(found)
    view[...] = 5
    view[...] = 0
    assert not changed(found)
    del view
    _ = float(blobs[0].data.mean())
    assert not changed(found)


def test_nan_is_no_change() -> None:
    blob = Blob((3,))
    blob.data[1] = np.nan
    view, found = blob.data, Weights([blob])
    found.changed()
    assert not found.changed()
    view[1] = 0
    assert changed(found)


def test_a_device_in_between(pretend_gpu) -> None:
    """Solvers on a GPU change the weights there; what is copied back counts."""
    blob, found = Blob((3,)), None
    caffe.set_mode_cpu()
    found = Weights([blob])
    found.changed()
    caffe.set_mode_gpu()
    blob.tensor().fill_(2)
    caffe.set_mode_cpu()
    assert changed(found)
    assert (blob.tensor() == 2).all()


def test_without_a_count_of_holders_everyone_is_one(monkeypatch, looks) -> None:
    """As with a PyTorch that does not tell."""
    monkeypatch.setattr(blob_module, "_count_uses", None)
    blobs, found = two()
    tensor, view = blobs[0].tensor(), blobs[1].data
    changed(found)
    tensor.fill_(1)
    assert changed(found)
    view[...] = 1
    assert changed(found)
    looks.clear()
    assert not found.changed()
    assert len(looks) == 2
