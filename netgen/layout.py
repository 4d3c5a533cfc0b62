"""Where the boxes of a net go: columns along the flow of data, lanes across it.

Data flow from left to right. In a net with Unpooling the part from there on flows back beneath the
rest, from right to left, each Unpooling under the Pooling whose mask it takes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import chain, count

from netgen.graph import Arrow, Box


@dataclass
class Layout:
    """Column (from 0) and lane (from 0, the topmost) of every box, and the boxes that flow back."""

    column: dict[Box, int] = field(default_factory=dict)
    lane: dict[Box, int] = field(default_factory=dict)
    back: set[Box] = field(default_factory=set)

    def is_free(self, lane: int, first: int, last: int) -> bool:
        """Whether a lane has no box from one column to another, both included, in any order."""
        first, last = min(first, last), max(first, last)
        return not any(
            self.lane[box] == lane and first <= column <= last
            for box, column in self.column.items()
            if box in self.lane
        )


def arrange(boxes: list[Box], arrows: list[Arrow]) -> Layout:
    """The layout of a graph whose boxes are in the order in which they run."""
    into: dict[Box, list[Box]] = defaultdict(list)
    for arrow in arrows:
        into[arrow.target].append(arrow.source)
    layout = Layout()
    for box in boxes:
        # Whatever an Unpooling feeds flows back.
        if box.layer.type == "Unpooling" or layout.back.intersection(into[box]):
            layout.back.add(box)
    ahead = [box for box in boxes if box not in layout.back]
    back = [box for box in boxes if box in layout.back]
    _columns_ahead(layout, ahead, into)
    _columns_back(layout, back, into)
    _normalise(layout.column)

    # Side branches go below, but above where the way back needs the room below.
    _lanes(layout, ahead, into, 0, (lambda: count(-1, -1)) if back else _alternating)
    base = max((layout.lane[box] for box in ahead), default=-1) + 1
    _lanes(layout, back, into, base, lambda: count(1))
    _normalise(layout.lane)
    return layout


def _alternating() -> Iterable[int]:
    for step in count(1):
        yield step
        yield -step


def _normalise(positions: dict[Box, int]) -> None:
    first = min(positions.values(), default=0)
    for box in positions:
        positions[box] -= first


def _columns_ahead(layout: Layout, boxes: list[Box], into: dict[Box, list[Box]]) -> None:
    """As far left as the inputs allow, then as far right as the users of each box allow, so that
    branches end up beside what they are joined to."""
    column = layout.column
    for box in boxes:
        column[box] = max((column[source] + 1 for source in into[box]), default=0)
    limit: dict[Box, int] = {}
    for box in reversed(boxes):
        column[box] = limit.get(box, column[box])
        for source in into[box]:
            limit[source] = min(limit.get(source, column[box] - 1), column[box] - 1)


def _columns_back(layout: Layout, boxes: list[Box], into: dict[Box, list[Box]]) -> None:
    """As far right as the inputs allow: left of those that flow back, beneath the others."""
    column = layout.column
    for box in boxes:
        column[box] = min(
            (column[source] - (source in layout.back) for source in into[box]), default=0
        )


def _lanes(
    layout: Layout,
    boxes: list[Box],
    into: dict[Box, list[Box]],
    base: int,
    sides: Callable[[], Iterable[int]],
) -> None:
    """A box goes on in the lane of an input, the one nearest to `base` that is free up to it, so
    that chains are straight; else it opens the nearest free lane on one of the `sides`."""
    order = {box: i for i, box in enumerate(boxes)}
    sign = -1 if layout.back.intersection(boxes) else 1
    for box in sorted(boxes, key=lambda b: (sign * layout.column[b], order[b])):
        column = layout.column[box]
        sources = [source for source in into[box] if source in order]
        for source in sorted(sources, key=lambda s: abs(layout.lane[s] - base)):
            if layout.is_free(layout.lane[source], layout.column[source] + sign, column):
                layout.lane[box] = layout.lane[source]
                break
        else:
            start = layout.column[sources[0]] + sign if sources else column
            near = layout.lane[sources[0]] if sources else base
            lanes = (near + step for step in chain([0], sides()))
            layout.lane[box] = next(lane for lane in lanes if layout.is_free(lane, start, column))
