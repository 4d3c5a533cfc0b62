"""The lines of a layout's arrows: straight, around a corner, or past other boxes in channels.

There is a channel above each lane and one below the last. Each arrow in a channel has a track.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from caffe.layers import class_of
from netgen.graph import Arrow, Box
from netgen.layout import Layout

GAP = 18  # between two columns
_TRACK = 9  # between two arrows in a channel
_CHANNEL = 26  # a channel without arrows


@dataclass
class Place:
    """Centre and size of a box in pixels."""

    x: float
    y: float
    width: float
    height: float


@dataclass
class _Route:
    """kind: "straight" along a lane; "corner" along the source's lane, then into the target from
    above or below; "step" in the gap between two columns; "arc" over or under boxes of one lane;
    "drop" from the way ahead to the way back; "around" through gaps and a channel.
    """

    arrow: Arrow
    kind: str
    channel: int = -1
    track: int = 0


class Router:
    """Places boxes and arrows of a layout, given the boxes' widths and heights."""

    def __init__(
        self, layout: Layout, arrows: list[Arrow], sizes: dict[Box, tuple[float, float]]
    ) -> None:
        self.layout = layout
        self.sizes = sizes
        self.lanes = max(layout.lane.values(), default=-1) + 1
        self.cells = {(layout.column[box], layout.lane[box]) for box in layout.column}
        self._place_columns()
        self.routes = [self._route(arrow) for arrow in arrows]
        tracks = self._assign_tracks()
        self._place_lanes(tracks)
        self.places = {
            box: Place(self.x[layout.column[box]], self.y[layout.lane[box]], *sizes[box])
            for box in layout.column
        }

    def lines(self) -> list[tuple[Arrow, list[tuple[float, float]]]]:
        """Each arrow with the points of its line, from source to target."""
        return [(route.arrow, self._points(route)) for route in self.routes]

    # Columns, lanes and channels

    def _place_columns(self) -> None:
        widths: dict[int, float] = defaultdict(float)
        for box, column in self.layout.column.items():
            widths[column] = max(widths[column], self.sizes[box][0])
        self.x, edge = {}, 0.0
        self.left, self.right = {}, {}
        for column in range(max(widths, default=-1) + 1):
            width = widths[column]
            self.x[column] = edge + width / 2
            # The centres of the gaps on both sides.
            self.left[column], self.right[column] = edge - GAP / 2, edge + width + GAP / 2
            edge += width + GAP
        self.width = max(0.0, edge - GAP)

    def _place_lanes(self, tracks: dict[int, int]) -> None:
        heights: dict[int, float] = defaultdict(float)
        for box, lane in self.layout.lane.items():
            heights[lane] = max(heights[lane], self.sizes[box][1])
        self.y, self.channel_y, edge = {}, {}, 0.0
        for lane in range(self.lanes + 1):
            outer = lane in (0, self.lanes)
            edge += tracks[lane] * _TRACK + (_CHANNEL / 2 if outer else _CHANNEL)
            # Tracks are numbered upwards from the lower side of their channel.
            self.channel_y[lane] = edge - _CHANNEL / 2
            self.y[lane] = edge + heights[lane] / 2
            edge += heights[lane]
        self.height = edge

    def _assign_tracks(self) -> dict[int, int]:
        """Give each arrow in a channel the lowest free track; returns the tracks of each channel.

        Short arrows come first, so that arcs nest.
        """
        used: dict[int, list[list[tuple[int, int]]]] = defaultdict(list)
        waiting = [route for route in self.routes if route.channel >= 0]
        for route in sorted(waiting, key=lambda r: _length(self._span(r))):
            first, last = self._span(route)
            rows = used[route.channel]
            free = (i for i, row in enumerate(rows) if all(last < a or b < first for a, b in row))
            route.track = next(free, len(rows))
            if route.track == len(rows):
                rows.append([])
            rows[route.track].append((first, last))
        return defaultdict(int, {channel: len(rows) for channel, rows in used.items()})

    def _span(self, route: _Route) -> tuple[int, int]:
        columns = [self.layout.column[box] for box in (route.arrow.source, route.arrow.target)]
        return min(columns), max(columns)

    # Choosing a way

    def _route(self, arrow: Arrow) -> _Route:
        column, lane = self.layout.column, self.layout.lane
        a, b = arrow.source, arrow.target
        if b in self.layout.back and a not in self.layout.back:
            return self._drop(arrow)
        step = -1 if a in self.layout.back else 1
        first, last = column[a] + step, column[b] - step
        source_free = self._free(lane[a], first, last, step)
        if lane[a] == lane[b]:
            if source_free:
                return _Route(arrow, "straight")
            # On the way back arcs run below, because masks come from above.
            return _Route(arrow, "arc", lane[a] + (step < 0))
        beside = abs(lane[a] - lane[b]) == 1 and (column[b], lane[a]) not in self.cells
        if source_free and beside and class_of(b.layer.type).symbol(b.layer):
            return _Route(arrow, "corner")
        if source_free or self._free(lane[b], first, last, step):
            return _Route(arrow, "step")
        return _Route(arrow, "around", min(lane[a], lane[b]))

    def _drop(self, arrow: Arrow) -> _Route:
        column, lane = self.layout.column, self.layout.lane
        a, b = arrow.source, arrow.target
        base = min(lane[box] for box in self.layout.back)
        below = any((column[a], i) in self.cells for i in range(lane[a] + 1, base))
        above = any((column[b], i) in self.cells for i in range(base, lane[b]))
        if below or above:
            return _Route(arrow, "around", base)
        return _Route(arrow, "drop", -1 if column[a] == column[b] else base)

    def _free(self, lane: int, first: int, last: int, step: int) -> bool:
        return not any((column, lane) in self.cells for column in range(first, last + step, step))

    # Points

    def _points(self, route: _Route) -> list[tuple[float, float]]:
        a, b = route.arrow.source, route.arrow.target
        p, q = self.places[a], self.places[b]
        leaving = -1 if a in self.layout.back else 1
        entering = -1 if b in self.layout.back else 1
        start = (p.x + leaving * p.width / 2, p.y)
        end = (q.x - entering * q.width / 2, q.y)
        level = self.channel_y.get(route.channel, 0) - route.track * _TRACK
        if route.kind == "straight":
            return [start, end]
        if route.kind == "corner":
            side = q.height / 2 if p.y > q.y else -q.height / 2
            return [start, (q.x, p.y), (q.x, q.y + side)]
        if route.kind == "arc":
            side = -1 if level < p.y else 1
            top, other = (p.x, p.y + side * p.height / 2), (q.x, q.y + side * q.height / 2)
            return [top, (p.x, level), (q.x, level), other]
        if route.kind == "drop":
            return self._drop_points(route, p, q, level)
        gaps = (self.left, self.right)
        out = gaps[leaving > 0][self.layout.column[a]]
        into = gaps[entering < 0][self.layout.column[b]]
        if route.kind == "step":
            # The turn is at the end whose lane is not free.
            first, last = self.layout.column[a] + leaving, self.layout.column[b] - leaving
            late = self._free(self.layout.lane[a], first, last, leaving)
            x = into if late else out
            return [start, (x, p.y), (x, q.y), end]
        return [start, (out, p.y), (out, level), (into, level), (into, q.y), end]

    def _drop_points(
        self, route: _Route, p: Place, q: Place, level: float
    ) -> list[tuple[float, float]]:
        # A pooled blob and its mask may take the same way; their lines then run side by side.
        twins = [r for r in self.routes if r.kind == "drop" and _ends(r) == _ends(route)]
        shift = 8 * (twins.index(route) - (len(twins) - 1) / 2)
        top, bottom = p.y + p.height / 2, q.y - q.height / 2
        if p.x == q.x:
            return [(p.x + shift, top), (q.x + shift, bottom)]
        return [
            (p.x + shift, top),
            (p.x + shift, level),
            (q.x + shift, level),
            (q.x + shift, bottom),
        ]


def _ends(route: _Route) -> tuple[Box, Box]:
    return route.arrow.source, route.arrow.target


def _length(span: tuple[int, int]) -> int:
    return span[1] - span[0]
