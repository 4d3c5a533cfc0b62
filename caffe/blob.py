"""Blob: an N-dimensional array of data and its gradient, seen by numpy and by torch alike."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from caffe.device import current_device
from caffe.errors import CaffeError

HOST = torch.device("cpu")
MAX_AXES = 32


class SyncedArray:
    """One float32 array that is kept in step between the host and a device (Caffe's SyncedMemory).

    `tensor(device)` is for the engine, `numpy()` for the user. On the CPU both are the same
    memory. On another device, a look from the other side copies what is newer over; a numpy view
    is taken to be written to, so the next look from the device copies it back.

    Once a numpy view was handed out, the host memory stays where it is for as long as the count
    does not change: views taken before a forward pass show what it computed.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._host: torch.Tensor | None = None
        self._device: torch.Tensor | None = None  # only ever a tensor that is not on the host
        self._host_newer = True
        self._viewed = False
        self._alias = False

    @property
    def viewed(self) -> bool:
        """True once numpy() was called: somebody may hold a view of the host memory."""
        return self._viewed

    def tensor(self, device: torch.device) -> torch.Tensor:
        """The values on `device`, up to date, as a tensor without gradient history."""
        if device == HOST:
            return self._up_to_date_host()
        if self._device is None or self._device.device != device:
            source = self._device if not self._host_newer else self._up_to_date_host()
            self._device = source.to(device, copy=True)
        elif self._host_newer and self._host is not None:
            self._device.copy_(self._host.view(self._device.shape))
        self._host_newer = False
        return self._device

    def assign(self, value: torch.Tensor, alias: bool = False) -> None:
        """Take over `value`; `alias` says that its memory belongs to another array."""
        value = value.detach()
        if value.device != HOST:
            self._device, self._host_newer, self._alias = value, False, alias
            return
        self._device, self._host_newer = None, True
        if self._viewed and self._host is not None and self._host.numel() == value.numel():
            # .data: saved tensors of earlier passes may share this memory, as Caffe's would.
            self._host.data.view(value.shape).copy_(value)
            return
        self._host, self._viewed, self._alias = value, False, alias

    def numpy(self) -> np.ndarray:
        """A writable C-contiguous view of the host memory."""
        host = self._up_to_date_host()
        own = host.untyped_storage().nbytes() == host.numel() * host.element_size()
        if self._alias or not own or not host.is_contiguous():
            self._host = host = host.clone(memory_format=torch.contiguous_format)
            self._alias = False
        self._viewed = self._host_newer = True
        return host.numpy()

    def _up_to_date_host(self) -> torch.Tensor:
        if self._host is None:
            if self._device is None:
                self._host = torch.zeros(self.count)
            else:
                self._host = self._device.to(HOST, copy=True)
        elif not self._host_newer and self._device is not None:
            self._host.view(self._device.shape).copy_(self._device)
        self._host_newer = True  # a caller may write: the device reads it back when next used
        return self._host


class Blob:
    """An array of any shape with `.data` and `.diff`, as in pycaffe.

    Both are float32 numpy arrays that share memory with the engine: writing to them sets what the
    next pass reads. Memory is only taken when it is first looked at, and is zero then.
    """

    def __init__(self, shape: Sequence[int] = ()) -> None:
        self._shape: tuple[int, ...] = ()
        self._data = SyncedArray(1)
        self._diff = SyncedArray(1)
        self._resize(shape)

    # -- pycaffe's face -------------------------------------------------------------------------

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
        """Change the shape; values are kept only if the count stays the same."""
        self._resize(shape)

    # -- the engine's face ----------------------------------------------------------------------

    def tensor(self, device: torch.device | None = None) -> torch.Tensor:
        """The data as a tensor on `device` (default: the current one); memory is shared."""
        return self._data.tensor(device or current_device()).view(self._shape)

    def diff_tensor(self, device: torch.device | None = None) -> torch.Tensor:
        """The gradient as a tensor on `device` (default: the current one); memory is shared."""
        return self._diff.tensor(device or current_device()).view(self._shape)

    @property
    def viewed(self) -> bool:
        return self._data.viewed

    def assign(self, value: torch.Tensor, alias: bool = False) -> None:
        """Take over a layer's output: its shape and its values."""
        self._match(tuple(value.shape))
        self._data.assign(value, alias)

    def assign_diff(self, value: torch.Tensor) -> None:
        """Overwrite the gradient."""
        self._diff.assign(value.reshape(self._shape))

    def share_data(self, other: Blob) -> None:
        """Use the other blob's data from now on; only the counts must agree."""
        self._data = other._data

    def share_diff(self, other: Blob) -> None:
        self._diff = other._diff

    def zero_diff(self) -> None:
        self.diff_tensor().zero_()

    def drop_diff(self) -> None:
        """Give the gradient's memory back; it reads as zero until it is next written."""
        if not self._diff.viewed:
            self._diff = SyncedArray(self.count)

    def _match(self, shape: tuple[int, ...]) -> None:
        if shape != self._shape:
            self._resize(shape)

    def _resize(self, shape: Sequence[int]) -> None:
        shape = tuple(int(d) for d in shape)
        if any(d < 0 for d in shape) or len(shape) > MAX_AXES:
            raise CaffeError(
                f"blob shape {shape}: expected at most {MAX_AXES} axes, none of them negative"
            )
        self._shape = shape
        if self._data.count != self.count:
            self._data = SyncedArray(self.count)
        if self._diff.count != self.count:
            self._diff = SyncedArray(self.count)

    def _legacy(self, axis: int) -> int:
        if len(self._shape) > 4:
            raise CaffeError(
                f"num, channels, height and width are for blobs of at most 4 axes; "
                f"this one has the shape {self._shape}"
            )
        return self._shape[axis] if axis < len(self._shape) else 1


def shape_string(shape: Sequence[int]) -> str:
    """A shape as Caffe's logs write it: '2 3 8 8 (384)'."""
    return "".join(f"{d} " for d in shape) + f"({math.prod(shape)})"
