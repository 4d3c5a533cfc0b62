"""Weights: tells, at next to no cost, whether the parameters in a compiled model have changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from caffe.blob import HOST, Blob, Mark, last_touch


@dataclass
class _Seen:
    """What was seen of a parameter at the last look: its blob's mark, and a copy of its values if a
    view had been handed out.
    """

    mark: Mark
    copy: np.ndarray | None = None


class Weights:
    """The parameters of a compiled model, on the CPU.

    Looking at each of them takes some percent of a net's pass, as the pass drives them out of the
    processor's caches. So blobs note when their memory is handed out: as long as nobody asks for
    it, nor still has a tensor or numpy array of it, nothing can have changed. Writes to a tensor
    change its version. Writes to a numpy array do not, so while there is one, and once more when it
    is gone, values are compared with a copy.
    """

    def __init__(self, blobs: Sequence[Blob]) -> None:
        self._blobs = blobs
        self._seen: list[_Seen] = []
        self._touch: object = None  # the last one at the last look; None: look again
        self._tensors: list[torch.Tensor] = []  # those that somebody may have kept
        self._versions: list[int] = []

    def same(self) -> bool:
        """Whether surely nothing has changed since the last look."""
        return last_touch() is self._touch and self._versions == [
            values._version for values in self._tensors
        ]

    def changed(self) -> bool:
        """Whether a parameter has changed, or may have, since the last call."""
        return not self.same() and self._look()

    def _look(self) -> bool:
        touch = last_touch()  # first, so that none of another thread goes unseen
        before = self._seen or [None] * len(self._blobs)
        found = [_look_at(blob, seen) for blob, seen in zip(self._blobs, before, strict=True)]
        self._seen = [seen for seen, _ in found]
        marks = [seen.mark for seen in self._seen]
        self._touch = None if any(mark.held and mark.views for mark in marks) else touch
        held = [mark for mark in marks if mark.held]
        self._tensors = [mark.values for mark in held]
        self._versions = [mark.version for mark in held]
        return any(changed for _, changed in found)


def _look_at(blob: Blob, before: _Seen | None) -> tuple[_Seen, bool]:
    """What there is to be seen of a parameter, and whether it has changed, or may have."""
    blob.watch()
    # The mark comes first: a view that goes while values are compared is looked at once more.
    now = blob.mark(HOST)
    if before is None or not _is_same(now, before.mark):
        return _Seen(now, _values(now).copy() if now.views else None), True
    copy = before.copy
    if now.views == before.mark.views and not (before.mark.held and now.views):
        return _Seen(now, copy), False
    values = _values(now)
    # As whole numbers, to which NaN equals itself.
    if copy is not None and np.array_equal(copy.view(np.int32), values.view(np.int32)):
        return _Seen(now, copy), False
    return _Seen(now, values.copy()), True


def _is_same(a: Mark, b: Mark) -> bool:
    """Whether two marks tell of the same memory, with no write to its tensor between them."""
    return a.array is b.array and a.values is b.values and a.version == b.version


def _values(mark: Mark) -> np.ndarray:
    """The values, to be read now."""
    return mark.values.contiguous().numpy()
