"""An ONNX model in int8, by onnxruntime's quantiser: the ranges of values, the noise of layers."""

from __future__ import annotations

import contextlib
import io
import logging
import math
import tempfile
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from boundary.errors import one_line
from boundary.telemetry import load_onnxruntime
from caffe.errors import CaffeError
from caffe.export.passing import round_early, source_of, zeros_of

if TYPE_CHECKING:
    import onnx

    from caffe.export.probes import Feeds

# Most of what a convolution of depth gives is small beside the edges of holes. Labels of an SF5 on
# NYUv2 change least by this share, of 99.9, 99.99, 99.999 and 100 %.
PERCENTILE = 99.99
METHODS = {"percentile": "Percentile", "minmax": "MinMax", "entropy": "Entropy"}
WEIGHTED = ("Conv", "ConvTranspose", "Gemm")
FLOAT_SHARE = 0.1  # of the multiplications, for left_in_float
NEGLIGIBLE = 0.01  # share of all noise, below which a node is as well in int8
JOINED = ("Relu", "Clip")  # they limit the range of what is before them
# What the quantiser adds to a value's name: another value must not have that name.
ADDED = ("_scale", "_zero_point", "_quantized", "_ReduceMin", "_ReduceMax")
NOT_FINITE = "holds NaN or infinity on the calibration records"
NEEDED = "quantising needs the packages onnx and onnxruntime: pip install 'fusenet[onnx]'"


def check_installed() -> None:
    """Raise CaffeError if what quantises is not installed."""
    try:
        import onnx  # noqa: F401

        load_onnxruntime()
    except ImportError:
        raise CaffeError(NEEDED) from None


def weighted_nodes(model: onnx.ModelProto, layers: Collection[str]) -> dict[str, str]:
    """The nodes that can be computed in int8: name -> the layer that it is of.

    layers: those with weights. A ConvTranspose of several groups is left out: its weight has no
    axis of all channels, which scales of channels need.
    """
    constants = {item.name: item for item in model.graph.initializer}
    found = {}
    for node in model.graph.node:
        first, _, number = node.name.rpartition(":")
        layer = node.name if node.name in layers or not number.isdigit() else first
        if node.op_type not in WEIGHTED or layer not in layers or node.input[1] not in constants:
            continue
        groups = next((a.i for a in node.attribute if a.name == "group"), 1)
        if node.op_type != "ConvTranspose" or groups == 1:
            found[node.name] = layer
    return found


def left_in_float(
    noise: Mapping[str, float], work: Mapping[str, int], share: float = FLOAT_SHARE
) -> set[str]:
    """The nodes that are better left in float32: those with the most noise for their work, as long
    as they do at most this share of all the work together.

    noise: what each node alone adds to the outputs in int8 (noise). work: the multiplications
    of each.
    """
    budget = share * sum(work.values())
    found: set[str] = set()
    for node in sorted(noise, key=lambda node: noise[node] / max(work[node], 1), reverse=True):
        if noise[node] < NEGLIGIBLE * sum(noise.values()):
            break
        if work[node] <= budget:
            budget -= work[node]
            found.add(node)
    return found


class Model:
    """An ONNX model in onnxruntime, on the CPU. Raises CaffeError if it does not take the model."""

    def __init__(self, model: onnx.ModelProto) -> None:
        onnxruntime = load_onnxruntime()
        self._outputs = [item.name for item in model.graph.output]
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # errors are raised
        with _quietly("run the model"):
            self._session = onnxruntime.InferenceSession(
                model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )

    def answers(self, feeds: Feeds) -> list[np.ndarray]:
        """The outputs, in the order of the model's."""
        with _quietly("run the model"):
            return self._session.run(self._outputs, feeds)


@dataclass(frozen=True)
class Noise:
    """How far the answers of an int8 model are from those of its float32 model.

    energy: of the difference, in shares of the energy of the float32 model's answers. same: the
    share of places at which the channel with the highest value is the same; None for an output
    without several channels.
    """

    energy: float
    same: float | None

    def __str__(self) -> str:
        decibels = f"{-10 * math.log10(self.energy):.1f} dB" if self.energy else "no noise"
        if self.same is None:
            return decibels
        return f"{decibels}, the same highest channel at {self.same:.1%} of the places"


def noise(expected: Sequence[np.ndarray], found: Sequence[np.ndarray]) -> Noise:
    """The noise of one output's answers, on the inputs that both lists follow."""
    energy = sum(float(np.square(a, dtype=np.float64).sum()) for a in expected)
    apart = zip(expected, found, strict=True)
    error = sum(float(np.square(a.astype(np.float64) - b).sum()) for a, b in apart)
    same = None
    if expected[0].ndim > 1 and expected[0].shape[1] > 1:
        pairs = zip(expected, found, strict=True)
        same = float(np.mean([(a.argmax(1) == b.argmax(1)).mean() for a, b in pairs]))
    return Noise(error / energy if energy else error, same)


class Quantiser:
    """Makes int8 models of one float32 model.

    Activations are uint8 with one scale a tensor, weights int8 with one a channel, biases int32:
    QuantizeLinear and DequantizeLinear stand around the nodes of WEIGHTED (QDQ).

    model: as write_graph makes it. calibration: the inputs on which values get their ranges.
    method: of METHODS. short: weights of 7 bits, for processors whose 8-bit products saturate.
    outputs: whether a node's output is rounded to 8 bits also if no node in int8 takes it:
        onnxruntime computes other nodes in float32. OpenVINO gives out float32 as fast.

    Raises CaffeError if the quantiser refuses the model, or if values are not finite.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        calibration: Iterable[Feeds],
        method: str = "percentile",
        short: bool = False,
        outputs: bool = True,
    ) -> None:
        import onnx

        self._model, self._short, self._outputs = onnx.ModelProto(), short, outputs
        self._model.CopyFrom(model)
        _rename_clashes(self._model)
        with _quietly():
            self._model = onnx.shape_inference.infer_shapes(self._model)
            self._ranges = self._found_ranges(calibration, method)

    def _found_ranges(self, calibration: Iterable[Feeds], method: str) -> Any:
        from onnxruntime.quantization import CalibrationMethod, create_calibrator

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "net.onnx"
            path.write_bytes(self._model.SerializeToString())
            calibrator = create_calibrator(
                str(path),
                [*WEIGHTED, *JOINED],
                augmented_model_path=str(Path(folder) / "augmented.onnx"),
                calibrate_method=CalibrationMethod[METHODS[method]],
                extra_options={"symmetric": False, "percentile": PERCENTILE},
            )
            # One at a time: the calibrator keeps all values of what it is given at once.
            for feeds in calibration:
                try:
                    calibrator.collect_data(_Once(feeds))
                except ValueError as error:  # numpy's, which counts values for the histograms
                    if "not finite" in str(error):
                        raise CaffeError(f"a blob {NOT_FINITE}") from error
                    raise
            found = calibrator.compute_data()
        for name, data in found.items():
            if not np.isfinite([*data.range_value]).all():
                raise CaffeError(f"blob {name!r} {NOT_FINITE}")
        _share(self._model.graph, found)
        return found

    def quantised(self, nodes: Collection[str]) -> onnx.ModelProto:
        """The model with these nodes in int8, and all others in float32."""
        import onnx
        from onnxruntime.quantization import QDQQuantizer, QuantType

        model = onnx.ModelProto()
        model.CopyFrom(self._model)
        others = [n.name for n in model.graph.node if n.op_type in WEIGHTED and n.name not in nodes]
        exact = [] if self._outputs else [*WEIGHTED]
        with _quietly():
            quantizer = QDQQuantizer(
                model,
                per_channel=True,
                reduce_range=self._short,
                weight_qType=QuantType.QInt8,
                activation_qType=QuantType.QUInt8,
                tensors_range=self._ranges,
                nodes_to_quantize=[],
                nodes_to_exclude=others,
                op_types_to_quantize=[*WEIGHTED, *JOINED, "MaxPool"],
                extra_options={"OpTypesToExcludeOutputQuantization": exact},
            )
            quantizer.quantize_model()
            round_early(quantizer.model.model.graph)
            quantizer.model.topological_sort()
        return quantizer.model.model


def _share(graph: onnx.GraphProto, ranges: Any) -> None:
    """Give values that only hold another's values the range of that, so that they are the same
    whole numbers in int8.
    """
    made = {name: node for node in graph.node for name in node.output[:1]}
    zeros = zeros_of(graph)
    for name in [*ranges.keys()]:
        source = source_of(name, made, zeros)
        if source in ranges:
            ranges[name] = ranges[source]


class _Once:
    """Inputs for one pass, as onnxruntime's calibrators read them."""

    def __init__(self, feeds: Feeds) -> None:
        self._feeds: Feeds | None = feeds

    def get_next(self) -> Feeds | None:
        feeds, self._feeds = self._feeds, None
        return feeds


@contextlib.contextmanager
def _quietly(what: str = "quantise the net") -> Iterator[None]:
    """Nothing is printed or logged; exceptions, which share no base class, become CaffeError."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (CaffeError, MemoryError, OSError):
        raise
    except Exception as error:
        reason = one_line(f"{type(error).__name__}: {error}", 240)
        raise CaffeError(f"onnxruntime cannot {what}: {reason}") from error
    finally:
        logging.disable(level)


def _rename_clashes(model: onnx.ModelProto) -> None:
    """Rename values so that none has the name that the quantiser gives to a part of another: a
    blob x_scale beside a blob x.
    """
    graph = model.graph
    made = [name for node in graph.node for name in node.output]
    fixed = {item.name for item in (*graph.input, *graph.output, *graph.initializer)}
    names = {*made, *fixed}
    renamed: dict[str, str] = {}
    for name in sorted(names):
        for ending in ADDED:
            base = name.removesuffix(ending)
            if base == name or base not in names:
                continue
            free = next((n for n in (name, base) if n in made and n not in fixed), None)
            if free is None:
                raise CaffeError(f"blobs {base!r} and {name!r}: the quantiser takes no such names")
            renamed[free] = f"{free}:"
    for node in graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
        node.output[:] = [renamed.get(name, name) for name in node.output]
