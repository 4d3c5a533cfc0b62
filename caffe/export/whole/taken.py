"""What a net that labels pixels takes and gives, and how frames become its inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from caffe.errors import CaffeError
from caffe.export.whole.facts import DepthRule

if TYPE_CHECKING:
    from caffe.net import Net

# The planes of (blue, green, red, depth) that an input takes, by its number of channels.
PLANES = {3: (0, 3), 1: (3, 4), 4: (0, 4)}
MOST_LABELS = 256


@dataclass(frozen=True)
class Framing:
    """How frames become the net's inputs.

    rule, floats: depth's, as in facts.Facts. fit: what is done to frames of another aspect ratio:
    'crop', 'pad' or 'stretch'. probabilities: whether these are an output, too.
    """

    rule: DepthRule
    floats: bool = False
    fit: str = "crop"
    probabilities: bool = False


@dataclass(frozen=True)
class Taken:
    """What a net takes and gives: input -> its planes; size: (height, width); the blob of scores,
    N x labels x height x width; whether these are probabilities.
    """

    inputs: Mapping[str, tuple[int, int]]
    size: tuple[int, int]
    score: str
    labels: int
    softmax: bool

    @property
    def color(self) -> bool:
        """Whether an input takes colour."""
        return any(start == 0 for start, _ in self.inputs.values())

    @property
    def depth(self) -> bool:
        """Whether an input takes depth."""
        return any(end == 4 for _, end in self.inputs.values())


def taken(net: Net, score: str | None = None) -> Taken:
    """What the net takes. score: the blob of scores; default: `score`, else the only output of
    four axes.

    Raises CaffeError for a net that does not label the pixels of one frame.
    """
    inputs: dict[str, tuple[int, int]] = {}
    for name in net.inputs:
        shape = net.blobs[name].shape
        if len(shape) != 4 or shape[1] not in PLANES or shape[0] != 1:
            raise CaffeError(
                f"--with-preprocessing: input {name!r} has the shape {_times(shape)}; expected "
                "1x3xHxW (colour), 1x1xHxW (depth) or 1x4xHxW (both); --input gives another one"
            )
        inputs[name] = PLANES[shape[1]]
    taken_planes = [at for start, end in inputs.values() for at in range(start, end)]
    sizes = {net.blobs[name].shape[2:] for name in inputs}
    if len(sizes) != 1 or len(set(taken_planes)) < len(taken_planes):
        raise CaffeError(
            f"--with-preprocessing: the net's inputs are {list(inputs)}; expected one of colour, "
            "of depth, or both, of one size"
        )
    (size,) = sizes
    score = score or _score(net)
    shape = net.blobs[score].shape if score in net.blobs else ()
    if len(shape) != 4 or not 2 <= shape[1] <= MOST_LABELS or shape[2:] != size:
        raise CaffeError(
            f"--with-preprocessing: output {score!r} has the shape {_times(shape)}; expected "
            f"scores of 2 to {MOST_LABELS} labels, 1 x labels x {size[0]} x {size[1]}"
        )
    ends = {top for layer, _, tops in net.wiring if layer.type == "Softmax" for top in tops}
    softmax = net.wiring.blob_names.index(score) in ends
    return Taken(inputs, size, score, shape[1], softmax)


def _score(net: Net) -> str:
    maps = [name for name in net.outputs if len(net.blobs[name].shape) == 4]
    if "score" in net.blobs:
        return "score"
    if len(maps) != 1:
        raise CaffeError(
            f"--with-preprocessing: no blob 'score', and the outputs are {list(net.outputs)}; name "
            "the one of the scores with --outputs"
        )
    return maps[0]


def _times(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "none"
