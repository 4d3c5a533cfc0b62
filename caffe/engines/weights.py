"""Weights: tells, at next to no cost, whether the parameters in a compiled model have changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from caffe.blob import HOST, Blob, Mark, touches

NEVER = -1  # no count of touches


@dataclass
class _Seen:
    """What was seen of a parameter at the last look.

    mark: of its blob. views: how many were handed out. held: whether somebody can still write to
    it. copy: of its values, from the first look on at which there had been a view.
    """

    mark: Mark
    views: int
    held: bool
    copy: np.ndarray | None = None


class Weights:
    """The parameters of a compiled model, on the CPU.

    Looking at each of them takes some percent of a net's pass, as the pass drives them out of the
    processor's caches. So blobs count how often their memory is handed out: as long as nobody asks
    for it, nor still has a tensor or numpy array of it, nothing can have changed. Writes to a
    tensor change its version. Writes to a numpy array do not, so while there is one, and once more
    when it is gone, values are compared with a copy.
    """

    def __init__(self, blobs: Sequence[Blob]) -> None:
        self._blobs = blobs
        self._seen: list[_Seen] = []
        self._touches = NEVER
        self._tensors: list[torch.Tensor] = []  # those that somebody may have kept
        self._versions: list[int] = []

    def same(self) -> bool:
        """Whether surely nothing has changed since the last look."""
        return touches() == self._touches and self._versions == [
            values._version for values in self._tensors
        ]

    def changed(self) -> bool:
        """Whether a parameter has changed, or may have, since the last call."""
        return not self.same() and self._look()

    def _look(self) -> bool:
        before = self._seen or [None] * len(self._blobs)
        found = [_look_at(blob, seen) for blob, seen in zip(self._blobs, before, strict=True)]
        self._seen = [seen for seen, _ in found]
        # Asked for after the values were looked at: what is handed out from now on counts.
        self._touches = NEVER if any(s.held and s.views for s in self._seen) else touches()
        held = [b for b, seen in zip(self._blobs, self._seen, strict=True) if seen.held]
        self._tensors = [blob.host for blob in held if blob.host is not None]
        self._versions = [values._version for values in self._tensors]
        return any(changed for _, changed in found)


def _look_at(blob: Blob, before: _Seen | None) -> tuple[_Seen, bool]:
    """What there is to be seen of a parameter, and whether it has changed, or may have."""
    blob.watch()
    # Held is asked first: a view that goes while values are compared is looked at once more.
    seen = _Seen(blob.mark(HOST), blob.views, blob.held)
    if before is None or not _is_same(seen.mark, before.mark):
        seen.copy = _values(blob).copy() if seen.views else None
        return seen, True
    seen.copy = before.copy
    if seen.views == before.views and not (before.held and seen.views):
        return seen, False
    values = _values(blob)
    # As whole numbers, to which NaN equals itself.
    if seen.copy is not None and np.array_equal(seen.copy.view(np.int32), values.view(np.int32)):
        return seen, False
    seen.copy = values.copy()
    return seen, True


def _is_same(a: Mark, b: Mark) -> bool:
    """Whether two marks tell of the same values in the same place."""
    return a[0] is b[0] and a[1] is b[1] and a[2] == b[2]


def _values(blob: Blob) -> np.ndarray:
    """The values, to be read now."""
    assert blob.host is not None
    return blob.host.contiguous().numpy()
