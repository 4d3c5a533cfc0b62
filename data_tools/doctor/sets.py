"""What is wrong with a set of records: depth that stands still, labels that are all alike."""

from __future__ import annotations

import hashlib

import numpy as np

from data_tools.doctor.sample import LEAST_PIXELS
from data_tools.notes import Finding

Colors = dict[bytes, set[bytes]]  # the digest of a plane -> those of its records' colours
REMEDY = "leave out what repeats"
SHARE = 0.05  # of the records: so many have the depth of an earlier one, though not its colours


class Repeats:
    """Looks for depth and labels that records with different colours have in common.

    Small planes (under sample.LEAST_PIXELS) may be alike by chance, and are left out.
    """

    def __init__(self) -> None:
        self._depth: Colors = {}
        self._label: Colors = {}
        self._names: dict[bytes, str] = {}  # the digest of a depth plane -> its first record
        self._twice = ""
        self._records = 0
        self._labeled = False

    def add(self, name: str, planes: np.ndarray) -> str | None:
        """Adds a record (5 x H x W). Returns the name of an earlier one with the same depth and
        other colours, if there is one."""
        if len(planes) != 5 or planes[0].size < LEAST_PIXELS:
            return None
        color, depth, label = map(_digest, (planes[:3], planes[3], planes[4]))
        self._records += 1
        self._labeled = self._labeled or bool(planes[4].any())
        self._label.setdefault(label, set()).add(color)
        first = self._names.setdefault(depth, name)
        colors = self._depth.setdefault(depth, set())
        new = color not in colors
        colors.add(color)
        if not new or len(colors) == 1:
            return None
        self._twice = self._twice or f"{name} has that of {first}"
        return first

    def findings(self) -> list[Finding]:
        """What the records say together."""
        found = []
        repeated = sum(len(colors) - 1 for colors in self._depth.values())
        if self._twice and repeated >= SHARE * self._records:
            what = f"{repeated} of {self._records} frames have the depth of an earlier one"
            if len(self._depth) == 1:
                what = f"all {self._records} frames have the same depth"
            what += f", though other colours ({self._twice})"
            found.append(Finding("repeats", what, REMEDY))
        if self._labeled and len(self._label) == 1 and len(*self._label.values()) > 1:
            what = f"all {self._records} frames have the same labels, though other colours"
            found.append(Finding("labels", what, REMEDY))
        return found


def _digest(planes: np.ndarray) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(planes), digest_size=16).digest()
