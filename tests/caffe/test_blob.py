"""Blobs: shapes, memory shared with numpy, and what moves between host and device, and when."""

from __future__ import annotations

import weakref

import numpy as np
import pytest
import torch

import caffe
from caffe.blob import Blob, SyncedArray, shape_string

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)

pytestmark = pytest.mark.usefixtures("fresh")


def test_pycaffe_face() -> None:
    blob = Blob((2, 3, 4, 5))
    assert (blob.shape, blob.count) == ((2, 3, 4, 5), 120)
    assert (blob.num, blob.channels, blob.height, blob.width) == (2, 3, 4, 5)
    assert blob.data.shape == blob.diff.shape == (2, 3, 4, 5)
    assert blob.data.dtype == blob.diff.dtype == np.float32
    assert not blob.data.any()
    assert not blob.diff.any()


def test_missing_axes_count_as_one() -> None:
    blob = Blob((7,))
    assert (blob.num, blob.channels, blob.height, blob.width) == (7, 1, 1, 1)
    assert Blob(()).count == 1


def test_num_of_five_axes_is_an_error() -> None:
    with pytest.raises(caffe.CaffeError, match="at most 4 axes"):
        _ = Blob((1, 2, 3, 4, 5)).num


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((2, -1), "must not be negative"),
        ((1,) * 33, "has 33 axes, expected at most 32"),
        ((2**16, 2**15), "exceeds INT_MAX"),
        ((2**40, 0), "exceeds INT_MAX"),
    ],
)
def test_impossible_shapes(shape: tuple[int, ...], words: str) -> None:
    with pytest.raises(caffe.CaffeError, match=words):
        Blob().reshape(*shape)


def test_reshape_keeps_values_of_the_same_count() -> None:
    blob = Blob((2, 3))
    blob.data[...] = np.arange(6).reshape(2, 3)
    blob.reshape(3, 2)
    assert blob.data.tolist() == [[0, 1], [2, 3], [4, 5]]
    blob.reshape(4)
    assert blob.data.tolist() == [0, 0, 0, 0]


def test_numpy_and_torch_see_one_memory() -> None:
    blob = Blob((2, 2))
    view = blob.data
    view[0, 1] = 5
    assert blob.tensor()[0, 1] == 5
    blob.tensor()[1, 0] = 7
    assert view[1, 0] == 7


def test_a_view_taken_before_sees_what_is_assigned_later() -> None:
    blob = Blob((3,))
    view = blob.data
    blob.assign(torch.tensor([1.0, 2.0, 3.0]))
    assert view.tolist() == [1, 2, 3]
    blob.assign(torch.zeros(2))  # another count: new memory, the old view stays as it was
    assert view.tolist() == [1, 2, 3]
    assert blob.data.tolist() == [0, 0]


@pytest.mark.parametrize("view", [lambda t: t[:, :2], lambda t: t[0].expand(2, 3), lambda t: t])
def test_writing_to_borrowed_memory_leaves_its_owner_alone(view) -> None:
    owner = torch.ones(2, 3)
    blob = Blob()
    blob.assign(view(owner), borrowed=True)
    assert (blob.data == 1).all()
    blob.data[...] = 9
    assert (owner == 1).all()
    assert (blob.tensor() == 9).all()


def test_borrowed_memory_is_let_go_of(uncollected) -> None:
    """By a look, which has to copy it, and by new values for the views of then."""
    first, second = np.ones(6, np.float32), np.ones(6, np.float32)
    owners = [weakref.ref(first), weakref.ref(second)]
    blob = Blob()
    blob.assign(torch.from_numpy(first), borrowed=True)
    view = blob.data
    blob.assign(torch.from_numpy(second), borrowed=True)
    del first, second
    assert [owner() for owner in owners] == [None, None]
    assert (view == 1).all()


def test_a_place_is_there_for_views_of_own_memory_alone() -> None:
    blob = Blob((2, 3))
    assert blob.place() is None
    view = blob.data
    place = blob.place()
    assert place.shape == (2, 3)
    place.fill_(4)
    blob.assign(place)
    assert (view == 4).all()
    assert blob.data.ctypes.data == view.ctypes.data
    blob.assign(torch.ones(3, 3)[:2], borrowed=True)  # a view is there: its values are copied
    assert (view == 1).all()
    with pytest.raises(RuntimeError, match="single memory location"):
        blob.assign(place.view(3, 2).t())  # there, but not in that order
    blob.reshape(5)
    assert blob.place() is None


def test_a_slice_of_memory_can_be_reshaped() -> None:
    blob = Blob()
    blob.assign(torch.arange(12.0).view(2, 3, 2)[:, :2])
    blob.reshape(8)
    assert blob.tensor().tolist() == [0, 1, 2, 3, 6, 7, 8, 9]


def test_sharing_data_or_diff() -> None:
    mine, theirs = Blob((2,)), Blob((2,))
    mine.share_data(theirs)
    theirs.data[...] = 3
    theirs.diff[...] = 4
    assert mine.data.tolist() == [3, 3]
    assert mine.diff.tolist() == [0, 0]
    mine.share_diff(theirs)
    assert mine.diff.tolist() == [4, 4]


def test_a_loss_weight_survives_a_change_of_count() -> None:
    blob = Blob((2,))
    blob.seed_diff(0.5)
    blob.reshape(3)
    assert blob.diff.tolist() == [0.5, 0.5, 0.5]


def test_a_mark_tells_of_writes() -> None:
    """It holds until somebody may have written; to numpy views, that cannot be seen."""
    blob = Blob((2, 3))
    mark = blob.mark(CPU)
    assert blob.is_at(mark)
    blob.tensor()[0, 0] = 1
    assert not blob.is_at(mark)
    mark = blob.mark(CPU)
    part = blob.data[1:]
    assert not blob.is_at(mark)
    mark = blob.mark(CPU)
    assert not blob.is_at(mark)
    del part
    assert not blob.is_at(mark)
    mark = blob.mark(CPU)
    assert blob.is_at(mark)
    blob.data[0] = 2
    assert not blob.is_at(mark)
    mark = blob.mark(CPU)
    blob.share_data(Blob((2, 3)))
    assert not blob.is_at(mark)


def test_shape_string() -> None:
    assert shape_string((2, 3, 8, 8)) == "2 3 8 8 (384)"
    assert shape_string(()) == "(1)"


# -- host and device ------------------------------------------------------------------------------


@pytest.fixture
def array(pretend_gpu: None) -> SyncedArray:
    return SyncedArray(3)


def test_what_the_host_writes_the_device_reads(array: SyncedArray) -> None:
    array.numpy()[...] = [1, 2, 3]
    assert array.tensor(CUDA).device == CUDA
    assert array.tensor(CUDA).tolist() == [1, 2, 3]
    array.numpy()[1] = 9  # again, now that both sides exist
    assert array.tensor(CUDA).tolist() == [1, 9, 3]


def test_what_the_device_writes_the_host_reads(array: SyncedArray) -> None:
    array.tensor(CUDA).fill_(4)
    assert array.numpy().tolist() == [4, 4, 4]
    array.tensor(CUDA).fill_(5)
    assert array.tensor(CPU).tolist() == [5, 5, 5]


def test_a_view_keeps_its_place_while_the_device_works(array: SyncedArray) -> None:
    view = array.numpy()
    array.assign(torch.tensor([1.0, 2.0, 3.0]).to(CUDA))
    array.numpy()  # a look brings the values over, as SyncedMemory does
    assert view.tolist() == [1, 2, 3]
    view[0] = 8
    assert array.tensor(CUDA).tolist() == [8, 2, 3]


def test_nothing_moves_while_one_side_alone_looks(array: SyncedArray, monkeypatch) -> None:
    array.tensor(CUDA)
    moved = []
    monkeypatch.setattr(torch.Tensor, "copy_", lambda *a, **k: moved.append(a))
    monkeypatch.setattr(torch.Tensor, "to", lambda *a, **k: moved.append(a))
    array.tensor(CUDA)
    array.tensor(CUDA)
    assert not moved


def test_a_device_tensor_of_another_is_not_written_to(array: SyncedArray) -> None:
    owner = torch.ones(2, 3).to(CUDA)
    array.assign(owner[0], borrowed=True)
    array.numpy()[...] = 7
    assert array.tensor(CUDA).tolist() == [7, 7, 7]
    assert owner.tolist() == [[1, 1, 1], [1, 1, 1]]


def test_a_host_tensor_of_another_is_not_written_to_by_a_look(array: SyncedArray) -> None:
    owner = torch.ones(2, 3)
    array.assign(owner[1], borrowed=True)
    array.tensor(CUDA).fill_(6)
    assert array.numpy().tolist() == [6, 6, 6]
    assert owner.tolist() == [[1, 1, 1], [1, 1, 1]]


def test_the_device_tensor_stays_the_same_while_the_host_writes(array: SyncedArray) -> None:
    first = array.tensor(CUDA)
    array.numpy()[...] = 3
    assert array.tensor(CUDA).data_ptr() == first.data_ptr()  # graphs and solvers hold on to it


@pytest.mark.parametrize("shape", [(0, 2**31), (2**20, 0, 2**31 - 1, 2**31 - 1)])
def test_shapes_without_values_whose_strides_cannot_be_counted(shape: tuple[int, ...]) -> None:
    with pytest.raises(caffe.CaffeError, match="the size exceeds INT_MAX"):
        Blob(shape)
