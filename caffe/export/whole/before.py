"""From a frame to a net's inputs, in ONNX: what data_tools makes of a frame for a record.

OpenCV's arithmetic is followed: resized colours have its fixed-point numbers, and positions are
computed in float64 as OpenCV does (modules/imgproc/src/resize.cpp). Where a program has no float64,
integers stand for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from caffe.export.whole.nodes import Nodes, Window
from caffe.export.whole.taken import Framing, Taken
from caffe.formats.onnx import Graph

if TYPE_CHECKING:
    import onnx

COLOR, DEPTH, UNIT = "color", "depth", "unit"
ASPECT_TOLERANCE = 0.01  # up to here aspect ratios count as one, as in data_tools.fit
USUAL_UNITS = (1000.0, 5000.0)
FIXED_BITS = 11  # of OpenCV's weights of neighbouring pixels


class Before(Nodes):
    """Writes these nodes.

    names: what the net's inputs are called in the file.
    frame: the size of the frame, whose labels are wanted. source: the part of it that the net sees,
    as (start, extent) in shares of it; None: all. target: the part of the net's inputs that it
    fills; None: all.
    """

    def __init__(
        self, graph: Graph, net: Taken, framing: Framing, names: Mapping[str, str]
    ) -> None:
        super().__init__(graph)
        self.names = names
        self.net, self.framing = net, framing
        self.frame = self._size(COLOR if net.color else DEPTH)
        self.source: tuple[str, str] | None = None
        self.target: Window | None = None
        if framing.fit != "stretch":
            self._place()

    def _size(self, name: str) -> str:
        """Height and width of an input."""
        return self.cast(self.graph.add("Shape", name, start=0, end=2), np.float64)

    def _place(self) -> None:
        """data_tools.fit.placement: the middle of the frame, or of the inputs."""
        height, width = self.net.size
        frame_h, frame_w = self.axis(self.frame, 0), self.axis(self.frame, 1)
        ratio = self.add("Div", self.add("Mul", frame_w, height), self.add("Mul", frame_h, width))
        near = self.add("Abs", self.add("Sub", ratio, 1))
        near = self.add("Not", self.add("Greater", near, ASPECT_TOLERANCE))
        ratio = self.add("Where", near, [1.0], ratio)
        inverse = self.add("Div", 1, ratio)
        crop = self.framing.fit == "crop"
        parts = (ratio, inverse) if crop else (inverse, ratio)
        part = self.add("Min", self.add("Concat", *parts, axis=0), 1)
        whole = self.frame if crop else self.number([height, width])
        kept = self.add("Round", self.add("Mul", part, whole))
        kept = self.clip(kept, 1, whole)
        start = self.add("Floor", self.add("Div", self.add("Sub", whole, kept), 2))
        if crop:
            self.source = self.add("Div", start, whole), self.add("Div", kept, whole)
        else:
            self.target = Window(start, kept)

    def seen(self, size: str) -> Window:
        """The part that the net sees of a plane of this size (data_tools.fit.pixels)."""
        if self.source is None:
            return Window(self.number([0, 0]), size)
        start, extent = (self.add("Round", self.add("Mul", share, size)) for share in self.source)
        return Window(start, self.add("Max", extent, 1))

    # -- the planes -----------------------------------------------------------------------------

    def build(self) -> None:
        """Write the nodes that give the net's inputs."""
        planes: dict[int, str] = {}
        if self.net.color:
            planes[0] = self._color()
        if self.net.depth:
            planes[3] = self._depth()
        for name, (start, end) in self.net.inputs.items():
            parts = [planes[at] for at in (0, 3) if start <= at < end]
            value = parts[0] if len(parts) == 1 else self.add("Concat", *parts, axis=1)
            self.name_it(self.graph.add("Identity", value), self.names[name])

    def _along(self, axis: int, window: Window) -> tuple[str, str, str]:
        """For the places of the net's inputs along an axis: their places in the part of these that
        is filled, how many places that has, and how many pixels of the frame lie in it.
        """
        places = self.number(np.arange(self.net.size[axis]))
        filled, pixels = self.number([self.net.size[axis]]), self.axis(window.extent, axis)
        if self.target is not None:
            filled = self.axis(self.target.extent, axis)
            places = self.add("Sub", places, self.axis(self.target.start, axis))
            places = self.clip(places, 0, self.add("Sub", filled, 1))
        return places, filled, pixels

    def _filled(self) -> str:
        """Which places of the net's inputs are filled (height, width)."""
        assert self.target is not None
        sides = []
        for axis in (0, 1):
            places = self.number(np.arange(self.net.size[axis]))
            start = self.axis(self.target.start, axis)
            end = self.add("Add", start, self.axis(self.target.extent, axis))
            inside = self.add(
                "And",
                self.add("Not", self.add("Less", places, start)),
                self.add("Less", places, end),
            )
            sides.append(self.reshape(inside, *((-1, 1) if axis == 0 else (1, -1))))
        return self.add("And", *sides)

    def _nearest(self, axis: int, window: Window) -> str:
        """The rows (axis 0) or columns of a frame that OpenCV's INTER_NEAREST takes."""
        places, filled, pixels = self._along(axis, window)
        if self.graph.target.doubles:
            found = self.add("Floor", self._times(places, filled, pixels))
        else:
            found, _ = self._divided(self.add("Mul", places, pixels), filled)
        found = self.add("Min", found, self.add("Sub", pixels, 1))
        return self.whole(self.add("Add", found, self.axis(window.start, axis)))

    def _times(self, places: str, filled: str, pixels: str) -> str:
        """places x pixels / filled, by the inverse of filled / pixels, and so rounded as OpenCV
        does. Half of the one and twice the other give that: 1 / x, which has the same digits as
        2 / x, onnxruntime would fuse with the product, and round otherwise.
        """
        twice = self.add("Div", 2, self.add("Div", filled, pixels))
        return self.add("Mul", self.add("Mul", places, 0.5), twice)

    def _divided(self, x: str, y: str) -> tuple[str, str]:
        """x / y, rounded down, and the rest (float64), by integers; x: 0 or more. Both may be
        integers already.
        """
        x, y = self.whole(x), self.whole(y)
        quotient = self.graph.add("Div", x, y)
        rest = self.graph.add("Sub", x, self.graph.add("Mul", quotient, y))
        return self.cast(quotient, np.float64), self.cast(rest, np.float64)

    def _middles(self, axis: int, window: Window) -> str:
        """Where the middles of the pixels of the net's inputs lie along an axis of the frame's
        part, counted in its pixels (float32).
        """
        places, filled, pixels = self._along(axis, window)
        if self.graph.target.doubles:
            middle = self._times(self.add("Add", places, 0.5), filled, pixels)
            return self.cast(self.add("Sub", middle, 0.5), np.float32)
        # (place + 1/2) pixels / filled - 1/2, with 1 added so that nothing is negative.
        twice = self.add("Mul", filled, 2)
        x = self.add("Mul", self.add("Add", self.add("Mul", places, 2), 1), pixels)
        quotient, rest = self._divided(self.add("Add", x, filled), twice)
        middle = self.add("Add", self.add("Sub", quotient, 1), self.add("Div", rest, twice))
        return self.cast(middle, np.float32)

    def _neighbours(self, axis: int, window: Window) -> tuple[tuple[str, str], tuple[str, str]]:
        """The two rows (axis 0) or columns between which INTER_LINEAR interpolates, and the weights
        of both (int32).
        """
        at = self._middles(axis, window)
        first = self.graph.add("Floor", at)
        share = self.graph.add("Sub", at, first)
        first, last = self.cast(first, np.float64), self.axis(window.extent, axis)
        last = self.add("Sub", last, 1)
        second = self.add("Add", first, 1)
        if axis == 1:  # beyond the edges OpenCV takes one column, but two equal rows
            inside = self.add(
                "And",
                self.add("Not", self.add("Less", first, 0)),
                self.add("Less", first, last),
            )
            share = self.graph.add("Where", inside, share, self.number(0, np.float32))
        rest = self.graph.add("Sub", self.number(1, np.float32), share)
        full = self.number(2**FIXED_BITS, np.float32)
        weights = [
            self.cast(self.graph.add("Round", self.graph.add("Mul", part, full)), np.int32)
            for part in (rest, share)
        ]
        start = self.axis(window.start, axis)
        pair = [
            self.whole(self.add("Add", self.clip(place, 0, last), start))
            for place in (first, second)
        ]
        return (pair[0], pair[1]), (weights[0], weights[1])

    def _color(self) -> str:
        """Blue, green and red, 1 x 3 x height x width, float32."""
        window = self.seen(self.frame)
        rows, row_weights = self._neighbours(0, window)
        columns, column_weights = self._neighbours(1, window)
        across = [self.reshape(weight, 1, -1, 1) for weight in column_weights]
        down = [self.reshape(weight, -1, 1, 1) for weight in row_weights]
        parts = []
        for row, weight in zip(rows, down, strict=True):
            line = self.graph.add("Gather", COLOR, row, axis=0)
            sums = [
                self.graph.add(
                    "Mul", self.cast(self.graph.add("Gather", line, column, axis=1), np.int32), w
                )
                for column, w in zip(columns, across, strict=True)
            ]
            total = self._shift(self.graph.add("Add", *sums), 4)
            parts.append(self._shift(self.graph.add("Mul", total, weight), 16))
        total = self.graph.add("Add", self.graph.add("Add", *parts), self.number(2, np.int32))
        mixed = self._shift(total, 2)
        if self.target is not None:
            inside = self.reshape(self._filled(), *self.net.size, 1)
            mixed = self.graph.add("Where", inside, mixed, self.number(0, np.int32))
        mixed = self.graph.add("Transpose", self.cast(mixed, np.float32), perm=[2, 0, 1])
        return self.reshape(mixed, 1, 3, *self.net.size)

    def _shift(self, x: str, bits: int) -> str:
        """x >> bits, of int32 that are not negative."""
        return self.graph.add("Div", x, self.number(2**bits, np.int32))

    def _depth(self) -> str:
        """Depth as 0..255, 1 x 1 x height x width, float32."""
        window = self.seen(self._size(DEPTH))
        line = self.graph.add("Gather", DEPTH, self._nearest(0, window), axis=0)
        stored = self.graph.add("Gather", line, self._nearest(1, window), axis=1)
        stored = self.cast(stored, np.float64)
        if self.target is not None:
            stored = self.add("Where", self._filled(), stored, 0)
        plane = self._by_integers(stored) if self._counts else self._by_rule(stored)
        return self.reshape(self.cast(plane, np.float32), 1, 1, *self.net.size)

    def _by_rule(self, stored: str) -> str:
        """Stored depth by the rule, in whole numbers unless these are for records of floats."""
        plane = stored
        if self.takes_unit:
            plane = self.add("Div", stored, self.cast(UNIT, np.float64))
        plane, rule = self._scaled(plane), self.framing.rule.rule
        if self.framing.floats:
            return plane
        # The authors' code cuts off.
        plane = self.add("Floor", plane) if rule == "authors" else self._rounded(plane)
        if rule == "fixed" and not self.graph.target.doubles:
            return self._looked_up(stored, plane)
        return plane

    def _looked_up(self, stored: str, plane: str) -> str:
        """The plane, or for usual units what float64 would give, from tables."""
        unit, index, rule = self.cast(UNIT, np.float64), self.whole(stored), self.framing.rule
        for steps in USUAL_UNITS:
            metres = np.clip(np.arange(2**16) / steps, rule.near, rule.far)
            table = np.rint((metres - rule.near) / (rule.far - rule.near) * 255)
            found = self.graph.add("Gather", self.number(table, np.uint8), index, axis=0)
            equal = self.add("Equal", unit, steps)
            plane = self.add("Where", equal, self.cast(found, np.float64), plane)
        return plane

    @property
    def takes_unit(self) -> bool:
        """Whether the unit matters: not for depth that is 0..255 already."""
        return self.net.depth and self.framing.rule.rule != "none"

    def _rounded(self, x: str) -> str:
        """x to the nearest whole number, halves to the even one. OpenCV's Round is in float32."""
        nearest = self.add("Floor", self.add("Add", x, 0.5))
        half = self.add("Equal", self.add("Sub", nearest, x), 0.5)
        pairs = self.add("Floor", self.add("Div", nearest, 2))
        even = self.add("Mul", pairs, 2)  # nearest, or one less
        return self.add("Where", half, even, nearest)

    @property
    def _counts(self) -> bool:
        """Whether integers stand for float64, where float32 is too coarse."""
        relative = self.framing.rule.rule in ("authors", "valid") and not self.framing.floats
        return relative and not self.graph.target.doubles

    def _by_integers(self, plane: str) -> str:
        """The rules that scale between a frame's extremes; the unit cancels out."""
        high = self.graph.add("ReduceMax", plane, keepdims=0)
        readings = self.add("Greater", plane, 0)
        valid = self.framing.rule.rule == "valid"
        seen = self.add("Where", readings, plane, high) if valid else plane
        low = self.graph.add("ReduceMin", seen, keepdims=0)
        span = self.whole(self.add("Max", self.add("Sub", high, low), 1))
        above = self.whole(self.add("Max", self.add("Sub", plane, low), 0))
        if not valid:
            return self._divided(self._multiple(above, 255), span)[0]
        twice = self._multiple(span, 2)  # 1 and 254 above / span, to the nearest
        above = self.graph.add("Add", self._multiple(above, 508), self._multiple(span, 3))
        return self.add("Where", readings, self._divided(above, twice)[0], 0)

    def _multiple(self, x: str, factor: int) -> str:
        """x times a number, both integers."""
        return self.graph.add("Mul", x, self.number(factor, np.int64))

    def _scaled(self, metres: str) -> str:
        """metres by the rule (data_tools.depth.DepthRange.apply), 0..255."""
        rule = self.framing.rule
        if rule.rule == "none":
            return self.add("Min", metres, 255)
        if rule.rule == "fixed":
            above = self.add("Sub", self.clip(metres, rule.near, rule.far), rule.near)
            return self.add("Mul", self.add("Div", above, rule.far - rule.near), 255)
        high = self.graph.add("ReduceMax", metres, keepdims=0)
        readings = self.add("Greater", metres, 0)
        seen = metres if rule.rule == "authors" else self.add("Where", readings, metres, high)
        low = self.graph.add("ReduceMin", seen, keepdims=0)
        span = self.add("Sub", high, low)
        span = self.add("Where", self.add("Greater", span, 0), span, 1)
        share = self.add("Div", self.add("Sub", metres, low), span)
        if rule.rule == "authors":
            return self.add("Mul", share, 255)
        scaled = self.add("Add", self.add("Mul", share, 254), 1)
        return self.add("Where", readings, scaled, 0)

    def inputs(self) -> list[onnx.ValueInfoProto]:
        """What the file takes."""
        from onnx import TensorProto, helper

        found = []
        if self.net.color:
            shape = ["height", "width", 3]
            found.append(helper.make_tensor_value_info(COLOR, TensorProto.UINT8, shape))
        if self.net.depth:
            shape = ["depth_height", "depth_width"] if self.net.color else ["height", "width"]
            found.append(helper.make_tensor_value_info(DEPTH, TensorProto.UINT16, shape))
        if self.takes_unit:
            found.append(helper.make_tensor_value_info(UNIT, TensorProto.FLOAT, []))
        return found
