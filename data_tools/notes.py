"""Notes: what is worth saying about frames, told once for each kind of note."""

from __future__ import annotations

from dataclasses import dataclass

from data_tools import cli


@dataclass(frozen=True)
class Note:
    """Something worth saying about a frame. kind: notes of one kind are told together, as one
    line with the first one's text."""

    kind: str
    text: str


@dataclass(frozen=True)
class Finding:
    """Something that seems wrong with a frame: what, with its figure, and the remedy, if any."""

    kind: str
    what: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.what}; {self.remedy}" if self.remedy else self.what

    @property
    def note(self) -> Note:
        """The finding as a note, which names an option."""
        option = "" if "--" in self.remedy else "; --strict refuses such frames"
        return Note(self.kind, f"{self}{option}")


Notes = dict[str, list[tuple[str, Note]]]  # kind -> frames' names and notes


def add(notes: Notes, name: str, found: tuple[Note, ...]) -> None:
    """Adds what was found about the frame `name`."""
    for note in found:
        notes.setdefault(note.kind, []).append((name, note))


def tell(notes: Notes) -> None:
    """Says one line for each kind of notes: the first frame with its text, and their number."""
    for found in notes.values():
        name, note = found[0]
        more = f" (so with {len(found)} frames)" if len(found) > 1 else ""
        cli.say(f"{name}: {note.text}{more}")
