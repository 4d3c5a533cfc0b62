"""A recording whose labels come from elsewhere: pictures of labels, or a labelling tool's files."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from boundary.errors import shown
from data_tools import cli, files, images
from data_tools.cli import DataError
from data_tools.depth import DepthUnit
from data_tools.labelling import Labelling
from data_tools.matching import match
from data_tools.record import Frame
from data_tools.recordings.base import Recording


@dataclass(frozen=True)
class Stored:
    """A picture of labels, by its names. It is not drawn, but read."""

    file: Path
    names: tuple[str]

    def __str__(self) -> str:
        return shown(self.file)


class Labelled:
    """The source: the frames of a recording that have labels.

    Raises DataError if none has, or if it is not clear which frame a picture belongs to.
    """

    def __init__(self, recording: Recording, labels: Labelling):
        """Leaves the frames without labels out of the recording, and says how many there are."""
        colors = {
            name: recording.files(index).get("color", Path(f"{name}.png"))
            for index, name in enumerate(recording.names)
        }
        if labels.label is not None:
            found = files.find(labels.label, images.LABEL)
            pictures = [Stored(file, (file.as_posix(),)) for file in found.values()]
        else:
            pictures = labels.annotations.pictures
        matched = match(colors, pictures)
        taken = [index for index, name in enumerate(recording.names) if name in matched]
        where = labels.source
        if not taken:
            first = next(iter(matched.values()))
            raise DataError(f"{where}: none of its pictures is a frame's, as of {first}")
        told = f"{where}: labels of {len(taken)} of {len(recording.names)} frames"
        if len(taken) < len(recording.names):
            told += "; the others are left out"
        strange = len(matched) - len(taken)
        cli.say(told + (f"; {strange} pictures belong to none of these" if strange else ""))
        recording.keep(taken)
        self._recording, self._labels = recording, labels
        self._found = [matched[name] for name in recording.names]
        self.names, self.block = recording.names, recording.block

    def load(self, index: int) -> Frame:
        """Frame `index`. Raises DataError if it or its labels cannot be read."""
        source = self._found[index]
        part = source.file if isinstance(source, Stored) else source
        frame = self._recording.load(index, lambda size: self._labels.read(part, size))
        return replace(frame, files={**frame.files, "label": str(source)})

    def about(self, index: int) -> dict[str, Any]:
        """As the recording says."""
        return self._recording.about(index)

    def files(self, index: int) -> dict[str, Path]:
        """As the recording's, without labels: those are written anew."""
        found = self._recording.files(index)
        return {part: file for part, file in found.items() if part != "label"}

    def label_pictures(self) -> list[Path]:
        """The frames' pictures of labels; none if labels do not come from pictures."""
        return [found.file for found in self._found if isinstance(found, Stored)]

    def unit(self) -> DepthUnit:
        """The recording's unit of depth."""
        return self._recording.unit()
