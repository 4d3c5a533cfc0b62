"""Blob: an N-dimensional array and its gradient, shared by numpy and torch (Caffe's blob.cpp)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch

from caffe.errors import CaffeError
from caffe.process import memory
from caffe.process.device import current_device

Fill = Callable[[torch.Tensor], None]  # fills a tensor in place

HOST = torch.device("cpu")
MAX_AXES = 32
MAX_COUNT = 2**31 - 1  # values: Caffe counts in ints


# How many tensors lie in a storage, given its address; numpy arrays count, as they keep a tensor.
_count_uses = getattr(torch._C, "_storage_Use_Count", None)


def _uses(tensor: torch.Tensor) -> int:
    """How many tensors and arrays lie in a tensor's memory, and what PyTorch counts besides."""
    return _count_uses(tensor.untyped_storage()._cdata) if _count_uses is not None else MAX_COUNT


_SINGLE = torch.empty(1)
_ALONE = min(_uses(_SINGLE), _uses(_SINGLE))  # of a tensor whose memory is its own


class SyncedArray:
    """One float32 array that is kept in step between the host and a device (Caffe's SyncedMemory).

    The engine calls `tensor(device)`, users call `numpy()`. On the CPU both share memory. With
    another device, each call first copies the newer values over. We assume that users write to
    numpy views, so the next `tensor(device)` after `numpy()` copies the values to the device.

    After the first `numpy()` the host memory stays in place as long as the count does not change,
    so that views taken before a forward pass show its results.

    watched: whether `last_touch`, which all arrays share, is another object whenever this one's
    memory is handed out or replaced. While it is the same, and nobody holds the memory of an array,
    its values cannot change. views: how often numpy() was called.
    """

    last_touch = object()

    def __init__(self, count: int, fill: float = 0.0, initial: Fill | None = None) -> None:
        self.count, self._fill, self._initial = count, fill, initial
        self.watched, self.views = False, 0
        self._host: torch.Tensor | None = None
        self._device: torch.Tensor | None = None  # never a tensor on the host
        self._host_newer = True
        self._viewed = False
        self._borrowed: torch.Tensor | None = None  # the one of the two that another array owns

    @property
    def viewed(self) -> bool:
        """True after numpy() was called, as someone may hold a view of the host memory."""
        return self._viewed

    @property
    def held(self) -> bool:
        """Whether someone has a tensor or a numpy array in the host memory, or may have one."""
        return self._host is None or _count_uses is None or _uses(self._host) > _ALONE

    @property
    def host(self) -> torch.Tensor | None:
        """The host memory, if the values there are up to date; it is not for writing."""
        return self._host if self._host_newer else None

    def touch(self) -> None:
        """Note that the values may change."""
        if self.watched:
            SyncedArray.last_touch = object()  # no count: threads would have to take turns

    def tensor(self, device: torch.device) -> torch.Tensor:
        """The values on `device`, up to date, as a tensor without gradient history."""
        self.touch()
        return self.look(device)

    def look(self, device: torch.device) -> torch.Tensor:
        """The same for callers that neither write to the tensor nor keep it."""
        if device == HOST:
            return self._up_to_date_host()
        if self._device is None or self._device.device != device:
            source = self._up_to_date_host() if self._host_newer else self._device
            self._device = source.to(device, copy=True)
        elif self._host_newer:
            host = self._up_to_date_host().view(self._device.shape)
            if self._is_own(self._device):
                self._device.data.copy_(host)  # .data: as in assign
            else:
                self._device = host.to(device, copy=True)
        self._host_newer = False
        return self._device

    def holds(self, tensor: torch.Tensor, version: int) -> bool:
        """Whether tensor(HOST) would return this tensor, with no write to it as a tensor since it
        had this version.
        """
        return self._host is tensor and self._host_newer and tensor._version == version

    def assign(self, value: torch.Tensor, borrowed: bool = False) -> None:
        """Take over `value`; borrowed: another array owns its memory."""
        self.touch()
        value = value.detach()
        if value.device != HOST:
            self._device, self._host_newer = value, False
        elif self._viewed and self._host is not None and self._host.numel() == value.numel():
            self._device, self._host_newer, self._borrowed = None, True, None
            written = value.is_contiguous() and value.data_ptr() == self._host.data_ptr()
            if not written:  # else the caller wrote the values into place()
                # .data, because a recorded graph may hold this memory; it then sees the new
                # values, as in Caffe.
                self._host.data.view(value.shape).copy_(value)
            return
        else:
            self._host, self._device, self._host_newer = value, None, True
            self._viewed = False
        self._borrowed = value if borrowed else None

    def numpy(self) -> np.ndarray:
        """A writable C-contiguous view of the host memory."""
        self.touch()
        self.views += 1
        host = self._up_to_date_host()
        if not (self._is_own(host) and host.is_contiguous()):
            host = host.clone(memory_format=torch.contiguous_format)
            self._replace_host(host)
        self._viewed = True
        return host.numpy()

    def place(self, shape: Sequence[int]) -> torch.Tensor | None:
        """The host memory that assign() would copy values of this shape to, or None.

        A caller may write the values there itself and save the copy.
        """
        self.touch()
        host = self._host
        if not self._viewed or host is None or host.numel() != math.prod(shape):
            return None
        return host.view(shape) if self._is_own(host) and host.is_contiguous() else None

    def make_contiguous(self) -> None:
        """Put the values in C order, so that they can be viewed in any shape of the same count."""
        self.touch()
        if self._host is not None:
            self._host = self._host.contiguous()
        if self._device is not None:
            self._device = self._device.contiguous()

    def _replace_host(self, own: torch.Tensor) -> None:
        """Replace the host memory by `own`, which is not borrowed."""
        if self._borrowed is self._host:
            self._borrowed = None
        self._host = own

    def _is_own(self, side: torch.Tensor) -> bool:
        """Whether `side` can be written to without a change to another array."""
        size = side.numel() * side.element_size()
        return side is not self._borrowed and side.untyped_storage().nbytes() == size

    def _up_to_date_host(self) -> torch.Tensor:
        if self._host is None:
            if self._device is None:
                with memory.named(f"a blob of {self.count} values"):
                    self._host = torch.full((self.count,), self._fill)
                if self._initial is not None:
                    self._initial(self._host)
            else:
                self._host = self._device.to(HOST, copy=True)
        elif not self._host_newer and self._device is not None:
            if not self._is_own(self._host):
                self._replace_host(torch.empty_like(self._host))
            self._host.view(self._device.shape).copy_(self._device)
        self._host_newer = True  # a caller may write to it; the device copies it when next used
        return self._host


class Mark(NamedTuple):
    """Where the data of a blob were at some moment: the array, its tensor and that one's version;
    how many numpy views had been handed out, and whether somebody could write to the memory then.
    """

    array: SyncedArray
    values: torch.Tensor
    version: int
    views: int
    held: bool


class Blob:
    """An array of any shape with `.data` and `.diff`, as in pycaffe.

    Both are float32 numpy arrays that share memory with the engine: the next pass reads what is
    written to them. Memory is allocated on first use and filled with zeros; `initial`, if given,
    then fills the data in place.

    Raises CaffeError for a negative dimension, more than 32 axes, or more than 2**31 - 1 values.
    """

    def __init__(self, shape: Sequence[int] = (), initial: Fill | None = None) -> None:
        self._shape: tuple[int, ...] = ()
        self._seed = 0.0
        self._data = SyncedArray(1)
        self._diff = SyncedArray(1)
        self._resize(shape)
        if initial is not None:
            first = self._shape
            self._data = SyncedArray(self.count, initial=lambda values: initial(values.view(first)))

    # -- pycaffe's interface --------------------------------------------------------------------

    @property
    def shape(self) -> tuple[int, ...]:
        return self._shape

    @property
    def count(self) -> int:
        return math.prod(self._shape)

    @property
    def num(self) -> int:
        return self._legacy(0)

    @property
    def channels(self) -> int:
        return self._legacy(1)

    @property
    def height(self) -> int:
        return self._legacy(2)

    @property
    def width(self) -> int:
        return self._legacy(3)

    @property
    def data(self) -> np.ndarray:
        """The values, float32, of this blob's shape; a view, not a copy."""
        return self._data.numpy().reshape(self._shape)

    @property
    def diff(self) -> np.ndarray:
        """The gradient, float32, of this blob's shape; a view, not a copy."""
        return self._diff.numpy().reshape(self._shape)

    def reshape(self, *shape: int) -> None:
        """Change the shape; the values are kept only if the count stays the same."""
        self._resize(shape)

    # -- the engine's interface -----------------------------------------------------------------

    def tensor(self, device: torch.device | None = None) -> torch.Tensor:
        """The data as a tensor on `device` (default: the current one); memory is shared."""
        return self._shaped(self._data, device or current_device())

    def mark(self, device: torch.device) -> Mark:
        """Where the data are now; later is_at() tells whether they are there as they were."""
        array = self._data
        values = array.look(device)
        return Mark(array, values, values._version, array.views, array.held)

    def is_at(self, mark: Mark) -> bool:
        """Whether the data are still those of a mark on the CPU: nobody can have written to them,
        or put them elsewhere.
        """
        array, values, version, views, held = mark
        if self._data is not array or not array.holds(values, version):
            return False
        return not array.viewed or (views == array.views and not held)

    def watch(self) -> None:
        """Have last_touch() tell of whatever may change the data."""
        self._data.watched = True

    @property
    def host(self) -> torch.Tensor | None:
        """The data's host memory, if the values there are up to date; it is not for writing."""
        return self._data.host

    def diff_tensor(self, device: torch.device | None = None) -> torch.Tensor:
        """The gradient as a tensor on `device` (default: the current one); memory is shared."""
        return self._shaped(self._diff, device or current_device())

    @property
    def viewed(self) -> bool:
        return self._data.viewed

    def assign(self, value: torch.Tensor, borrowed: bool = False) -> None:
        """Take over shape and values of a layer's output; borrowed: as in SyncedArray.assign."""
        self.match(tuple(value.shape))
        self._data.assign(value, borrowed)

    def assign_diff(self, value: torch.Tensor, borrowed: bool = False) -> None:
        """Take over `value`, of the blob's count, as the gradient; borrowed: as in assign."""
        self._diff.assign(value.reshape(self._shape), borrowed)

    def seed_diff(self, value: float) -> None:
        """Fill the gradient with a loss weight, when it is first used and whenever the count
        changes.
        """
        self._seed = value
        self._diff = SyncedArray(self.count, value)

    def place(self) -> torch.Tensor | None:
        """The host memory that assign() would copy values to, for writing there, or None."""
        return self._data.place(self._shape)

    @property
    def data_key(self) -> object:
        """The same object for blobs that share their data; it keeps the data alive."""
        return self._data

    @property
    def diff_key(self) -> object:
        """The same object for blobs that share their gradient; it keeps the gradient alive."""
        return self._diff

    def share_data(self, other: Blob) -> None:
        """Use the other blob's data from now on; the counts must agree, shapes need not."""
        self._data.touch()
        self._data = other._data

    def share_diff(self, other: Blob) -> None:
        """Use the other blob's gradient from now on; the counts must agree, shapes need not."""
        self._diff = other._diff

    def zero_diff(self) -> None:
        """Fill the gradient with zeros."""
        self.diff_tensor().zero_()

    def match(self, shape: tuple[int, ...]) -> None:
        """Change the shape if it differs; the values are kept only if the count stays the same."""
        if shape != self._shape:
            self._resize(shape)

    def _resize(self, shape: Sequence[int]) -> None:
        shape = tuple(int(d) for d in shape)
        check_shape(shape)
        self._shape = shape
        if self._data.count != self.count:
            self._data.touch()
            self._data = SyncedArray(self.count)
        if self._diff.count != self.count:
            self._diff = SyncedArray(self.count, self._seed)

    def _shaped(self, array: SyncedArray, device: torch.device) -> torch.Tensor:
        values = array.tensor(device)
        if values.shape != self._shape and not values.is_contiguous():
            array.make_contiguous()
            values = array.tensor(device)
        return values.view(self._shape)

    def _legacy(self, axis: int) -> int:
        if len(self._shape) > 4:
            raise CaffeError(
                f"num, channels, height and width are for blobs of at most 4 axes; "
                f"this one has the shape {self._shape}"
            )
        return self._shape[axis] if axis < len(self._shape) else 1


def last_touch() -> object:
    """Another object whenever somebody was handed the memory of a blob that is watched, or that is
    replaced.
    """
    return SyncedArray.last_touch


def check_shape(shape: tuple[int, ...]) -> None:
    """Raise CaffeError unless a blob may have this shape."""
    if len(shape) > MAX_AXES:
        raise CaffeError(f"blob shape has {len(shape)} axes, expected at most {MAX_AXES}")
    if any(d < 0 for d in shape):
        raise CaffeError(f"blob shape {shape}: dimensions must not be negative")
    count = 1
    for d in shape:  # as in Caffe, dimensions behind a zero do not count
        count *= d
        # Where there are no values, PyTorch still computes strides.
        if count > MAX_COUNT or d > MAX_COUNT or math.prod(filter(None, shape)) > 2**62:
            raise CaffeError(
                f"blob shape {shape}: the size exceeds INT_MAX, {MAX_COUNT} values (blob.cpp)"
            )


def shape_string(shape: Sequence[int]) -> str:
    """A shape as Caffe's logs write it: '2 3 8 8 (384)'."""
    return "".join(f"{d} " for d in shape) + f"({math.prod(shape)})"
