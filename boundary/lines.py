"""Lines of text that fit a terminal's width."""

from __future__ import annotations

from collections.abc import Sequence

from boundary.text import shown


def fit(parts: Sequence[tuple[int, str]], width: int) -> str:
    """The parts side by side, without the least important ones if all do not fit.

    parts: (importance, text); 0 is the most important. An empty text stands for no part. Parts are
    never cut: where not even the most important one fits, the line is empty.
    """
    left = [part for part in parts if part[1]]
    while left:
        line = "  ".join(text for _, text in left)
        if len(line) <= width:
            return line
        left.remove(max(left, key=lambda part: part[0]))
    return ""


def fold(
    head: str, parts: Sequence[str], width: int | None, joint: str = "  ", indent: int = 4
) -> list[str]:
    """A head and parts as lines of at most `width` columns; None: as one line.

    A part stays whole if it fits into a line, else it is broken at its spaces; words are not
    broken. What a terminal would act on, in names from files, becomes blanks.

    joint: stands between two parts; what it has besides spaces ends a broken line. indent: of all
    lines but the first; less on a narrow terminal.
    """
    head, parts = shown(head), [shown(part) for part in parts]
    mark, gap = joint.rstrip(), " " if joint.rstrip() else joint
    if width is None:
        return [head + (mark + gap).join(parts)]
    indent = min(indent, width // 3)
    lines, line, empty = [], head, True
    for i, part in enumerate(parts):
        whole = part + (mark if i + 1 < len(parts) else "")
        room = width - (indent if i else len(head))
        pieces = [whole] if len(whole) <= room else whole.split(" ")
        for j, piece in enumerate(pieces):
            between = "" if empty else " " if j else gap
            too_long = len(line + between + piece) > width
            if too_long and (not empty or (indent < len(head) and len(piece) <= width - indent)):
                lines.append(line.rstrip())
                line, between = " " * indent, ""
            line, empty = line + between + piece, False
    return [*lines, line]
