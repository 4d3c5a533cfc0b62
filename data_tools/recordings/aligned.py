"""A recording whose depth is projected into the colour camera."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from data_tools.camera import Rig
from data_tools.depth import DepthUnit
from data_tools.record import Frame, RecordFormat
from data_tools.recordings.base import Recording


class Aligned:
    """A recording's frames with aligned depth, in the same unit and, for integers, as uint16.

    unit: of the recording's depth.
    """

    def __init__(self, recording: Recording, rig: Rig, unit: DepthUnit):
        self.names = recording.names
        self._recording, self._form = recording, RecordFormat(unit=unit, rig=rig)

    def load(self, index: int) -> Frame:
        """Frame `index`. Raises DataError if it cannot be read, or does not fit the rig."""
        frame = self._recording.load(index)
        depth = self._form.aligned(frame).depth
        if frame.depth.dtype.kind != "f":
            depth = np.rint(np.minimum(depth, 2**16 - 1)).astype(np.uint16)
        return replace(frame, depth=depth)

    def about(self, index: int) -> dict[str, Any]:
        """As the recording's."""
        return self._recording.about(index)

    def files(self, index: int) -> dict[str, Path]:
        """As the recording's, without depth's."""
        files = self._recording.files(index)
        return {part: file for part, file in files.items() if part != "depth"}
