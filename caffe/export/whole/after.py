"""From a net's scores to labels of the frame's size, in ONNX, as `eval_tools.predict` does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from caffe.export.whole.before import Before
from caffe.export.whole.nodes import Nodes, Window
from caffe.formats.onnx import Graph

if TYPE_CHECKING:
    import onnx

LABELS, PROBABILITIES = "labels", "probabilities"


class After(Nodes):
    """Writes these nodes. score: the scores' name in the file."""

    def __init__(self, graph: Graph, before: Before, score: str) -> None:
        super().__init__(graph)
        self.before, self.score = before, score
        self.net, self.framing = before.net, before.framing

    def build(self) -> None:
        """Write the nodes that give the outputs."""
        scores, window = self.score, self.before.seen(self.before.frame)
        if self.before.target is not None:
            start, extent = self.before.target.start, self.before.target.extent
            end = self.add("Add", start, extent)
            axes = self.number([2, 3], np.int64)
            scores = self.graph.add("Slice", scores, self.whole(start), self.whole(end), axes)
        shape = self.graph.add(
            "Concat", self.number([1, self.net.labels], np.int64), self.whole(window.extent), axis=0
        )
        scores = self.graph.add(
            "Resize",
            scores,
            "",
            "",
            shape,
            mode="linear",
            coordinate_transformation_mode="half_pixel",
        )
        best = self.graph.add("ArgMax", scores, axis=1, keepdims=0)
        self._give(LABELS, self.cast(best, np.float32), window, np.uint8)
        if self.framing.probabilities:
            self._give(PROBABILITIES, self._shares(scores), window, np.float32)

    def _shares(self, scores: str) -> str:
        """The probabilities of the labels; resized ones only have to add up to 1 again."""
        if not self.net.softmax:
            return self.graph.add("Softmax", scores, axis=1)
        axis = self.number([1], np.int64)
        return self.graph.add("Div", scores, self.graph.add("ReduceSum", scores, axis, keepdims=1))

    def _give(self, name: str, x: str, window: Window, dtype: Any) -> None:
        """Output x (1 x ... x height x width, float32), with 0 around the part that was seen."""
        if self.before.source is not None:
            end = self.add("Add", window.start, window.extent)
            behind = self.add("Sub", self.before.frame, end)
            none = self.number([0] * (1 if name == LABELS else 2), np.int64)
            pads = [none, self.whole(window.start), none, self.whole(behind)]
            pads = self.graph.add("Concat", *pads, axis=0)
            x = self.graph.add("Pad", x, pads, self.number(0, np.float32))
        if dtype != np.float32:
            x = self.cast(x, dtype)
        self.name_it(self.graph.add("Squeeze", x, self.number([0], np.int64)), name)

    def outputs(self) -> list[onnx.ValueInfoProto]:
        """What the file gives."""
        from onnx import TensorProto, helper

        frame = ["height", "width"]
        found = [helper.make_tensor_value_info(LABELS, TensorProto.UINT8, frame)]
        if self.framing.probabilities:
            shape = [self.net.labels, *frame]
            found.append(helper.make_tensor_value_info(PROBABILITIES, TensorProto.FLOAT, shape))
        return found
