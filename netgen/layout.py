"""The places of a net's boxes: columns along the flow of data, lanes across it.

Data flows from left to right. Unpoolings and all that depends on them flow back beneath the rest,
from right to left; each Unpooling lies under the Pooling whose mask it takes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import chain, count

from netgen.graph import Arrow, Box, look_of


@dataclass
class Layout:
    """Column (from 0) and lane (from 0, the topmost) of every box, and the boxes that flow back."""

    column: dict[Box, int] = field(default_factory=dict)
    lane: dict[Box, int] = field(default_factory=dict)
    back: set[Box] = field(default_factory=set)

    def is_free(self, lane: int, first: int, last: int) -> bool:
        """Whether a lane has no box between two columns, both included, in either order."""
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
        # An Unpooling, which takes a mask, flows back with all that depends on it.
        if look_of(box.layer).mask >= 0 or layout.back.intersection(into[box]):
            layout.back.add(box)
    ahead = [box for box in boxes if box not in layout.back]
    back = [box for box in boxes if box in layout.back]
    _columns_ahead(layout, ahead, into)
    _columns_back(layout, back, into)
    _normalise(layout.column)

    # Side branches go below; with a way back, which needs the room below, they go above.
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
    """Put boxes as far left as their inputs allow, then as far right as the boxes that take them
    allow, so that branches end beside the box that joins them.
    """
    column = layout.column
    for box in boxes:
        column[box] = max((column[source] + 1 for source in into[box]), default=0)
    limit: dict[Box, int] = {}
    for box in reversed(boxes):
        column[box] = limit.get(box, column[box])
        for source in into[box]:
            limit[source] = min(limit.get(source, column[box] - 1), column[box] - 1)


def _columns_back(layout: Layout, boxes: list[Box], into: dict[Box, list[Box]]) -> None:
    """Put boxes as far right as their inputs allow: left of those that flow back, else beneath."""
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
    """Give boxes their lanes. A box continues the lane of an input, so that chains are straight: of
    the lane nearest to `base` that is free between them. Otherwise it opens the nearest free lane
    on one of the `sides`.
    """
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
