"""Layer: the base class of all layer types, and everything that a type may say about itself.

A layer type is a class with the decorator `@register("Name")`. Nothing outside the class knows the
type by name: building, running, plans, export, drawings and resuming ask the class.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from google.protobuf.message import Message

from caffe.blob import Blob, shape_string
from caffe.errors import CaffeError
from caffe.formats.arrays import blobproto_to_array
from caffe.formats.onnx import Graph, Names, Value
from caffe.formats.prototext import parse
from caffe.layers.coordinates import Map
from caffe.layers.fillers import fill
from caffe.layers.look import Look
from caffe.process import execution, memory
from caffe.process.device import current_device
from caffe.proto import caffe_pb2 as pb

REGISTRY: dict[str, type[Layer]] = {}
ENGINE = "`engine` is accepted and without effect: PyTorch chooses."
RAW = "; its bottoms are given out in its place with --raw-detections"
Tensors = Sequence[torch.Tensor]
Shape = tuple[int, ...]


def register(
    name: str, message: type[Message] | None = None
) -> Callable[[type[Layer]], type[Layer]]:
    """Make a Layer class known under the type name that prototxts use.

    message: a protobuf message class for the parameters of a layer type that Caffe's schema does
    not know. The prototxt holds them as text in python_param.param_str; `self.param` is the parsed
    message.
    Raises CaffeError if the class is no Layer, or the name is taken by another class.
    """

    def add(layer_class: type[Layer]) -> type[Layer]:
        if not (isinstance(layer_class, type) and issubclass(layer_class, Layer)):
            raise CaffeError(
                f"layer type {name!r}: {layer_class!r} is no class derived from "
                "caffe.layers.base.Layer"
            )
        known = REGISTRY.get(name)
        if known is not None and _place(known) != _place(layer_class):
            raise CaffeError(f"layer type {name!r} is taken by {'.'.join(_place(known))}")
        layer_class.type, layer_class.message = name, message
        REGISTRY[name] = layer_class
        return layer_class

    return add


def _place(layer_class: type[Layer]) -> tuple[str, str]:
    """Where a class is defined. A module that is loaded again may register its classes again."""
    return layer_class.__module__, layer_class.__qualname__


class Layer:
    """One layer of a net.

    How it is connected (class attributes):
    - `bottoms`, `tops`: (least, most) number of blobs; None: no limit.
    - `one_top_each`: as many tops as bottoms. `auto_tops`: missing tops are made without a name.
    - `loss`: the first top has loss weight 1 by default. `labels`: bottoms without a gradient.
    - `measures`: the tops judge predictions, as the share of right labels does.
    - `in_place`: a top may be its bottom, if the shape stays. `shares_memory`: tops are the
      bottoms' own memory, as those of Caffe's Split, Flatten and Reshape.
    - `source`: the tops come from outside the net. `is_input`: the user fills them. `shuffled`: how
      many records it reads in an order of their own each epoch (0: not known; None: none).
      `origin` and `contents()`: where they come from, and how much that holds.
    - `varying`: the axis of the tops whose extent depends on values: it is known after a pass, and
      infer_shapes gives one that it may have.
    - `accumulates`: in a test the tops tell of all its passes so far, not of the last one; the type
      defines begin_test() and end_test().
    - `raw_bottoms`: the top holds rows of boxes (image, label, score, corners) that are chosen from
      so many bottoms, from the first on (None: from all), which may be given out in its place.

    How it computes, for plans and export:
    - `multiplies`: forward is products and sums, fit for bfloat16 factors.
    - `gathers`: forward changes parameter blobs: running statistics. `statistic()` says which.
    - `fresh`: the top is new memory that no other layer, blob or gradient holds.
    - `concurrent`: forward may run on a thread of its own beside that of other layers: it draws no
      random numbers, and changes nothing that they read. A class with another forward says it anew.
    - `channels_last`: plans lay images out with their channels innermost before it.
    - `unit_axes`: a file's blobs may have other axes of one than this layer's.
    - `bounded`: no magnitude in the tops exceeds the largest in the bottoms, if these are finite.
    - `copies()`, `choices()`, `takes_bfloat16()`, `macs()`, `onnx()`.

    Where it comes from, for types that BVLC Caffe does not have: `fork`, the fork or forks that add
    it; `judge`, what its values were compared with ("recorded": the fork's own code).

    What other parts read: `reads`, the fields of LayerParameter that the type uses; `takes`, the
    fields of forks inside them that have an effect (caffe/formats/forks.py); `differs`, how it
    differs from Caffe, and why; `look`, `detail()`, `symbol()`, `edge()`, `title()` and
    `geometry()` for drawings; `coordinates()` for coord_map; `torch_names`, `torch_affine`,
    `torch_defaults` and `from_torch()` for PyTorch state dicts; `position()`, `go_on()` and
    `reset()` for the state that it keeps between passes.
    """

    type = ""
    message: type[Message] | None = None

    bottoms: tuple[int, int | None] = (1, 1)
    tops: tuple[int, int | None] = (1, 1)
    one_top_each = False
    auto_tops = False
    loss = False
    measures = False
    labels: tuple[int, ...] = ()
    in_place = True
    shares_memory = False
    source = False
    is_input = False
    shuffled: int | None = None
    origin = ""
    varying: int | None = None
    accumulates = False
    raw_bottoms: int | None = 0

    multiplies = False
    gathers = False
    unit_axes = False
    fresh = False
    concurrent = False
    channels_last = False
    bounded = False

    fork = ""
    judge = ""

    reads: tuple[str, ...] = ()
    takes: tuple[str, ...] = ()
    differs = ""
    look = Look()
    torch_names: Mapping[str, int] = {"weight": 0, "bias": 1}
    torch_affine = ""  # the type of the layer behind it that holds PyTorch's weight and bias
    torch_defaults: Mapping[int, float] = {}  # parameters that PyTorch lacks -> value

    def __init__(self, param: pb.LayerParameter) -> None:
        self.layer_param = param
        self.name = param.name
        self.phase = param.phase
        self.param = self._read_message()
        self.blobs: list[Blob] = []
        self.param_propagate_down: list[bool] = []
        self.bottom_need_backward: list[bool] = []
        self.num_bottoms = len(param.bottom)
        self.num_tops = len(param.top)
        self.loss_weights: list[float] = []
        self._given: list[np.ndarray] = []  # weights that the net carries, until they are filled in
        self._graph: _Graph | None = None

    # -- what a layer type defines --------------------------------------------------------------

    def setup(self, shapes: Sequence[Shape]) -> None:
        """Read the parameters and declare `self.blobs` by add_blob; `shapes` are the bottoms'."""

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor | Tensors:
        """Compute the tops from bottoms and parameters, by operations that autograd can record."""
        raise CaffeError(f"{self.where}: {self.type} does not define forward")

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        """The tops' shapes from the bottoms', by arithmetic. Raises CaffeError if they do not fit.

        By default forward runs on meta tensors, and then must not look at values. This loads
        PyTorch's compiler (a second and 90 MB), so the built-in types do not rely on it.
        """
        meta = [torch.empty(s, device="meta") for s in shapes]
        blobs = [torch.empty(b.shape, device="meta") for b in self.blobs]
        with torch.no_grad():
            return [tuple(t.shape) for t in _as_list(self.forward(meta, blobs))]

    def macs(self, shapes: Sequence[Shape]) -> int:
        """Multiply-adds of a forward pass on bottoms of these shapes."""
        return 0

    def scratch(self, shapes: Sequence[Shape]) -> int:
        """How many values a forward pass needs at least, besides bottoms, tops and parameters."""
        return 0

    def allow_force_backward(self, index: int) -> bool:
        """Whether force_backward asks for the gradient of bottom `index`."""
        return index not in self.labels

    @property
    def changes_blobs(self) -> bool:
        """Whether forward changes parameter blobs in this layer's phase; `gathers`: in any."""
        return self.gathers

    def statistic(self, index: int) -> bool:
        """Whether parameter `index` is a running statistic, which does not learn."""
        return self.gathers

    def lacks_statistics(self) -> bool:
        """Whether a pass would normalise by gathered statistics before any have been gathered."""
        return False

    def choices(self, index: int, shapes: Sequence[Shape]) -> int:
        """How many whole numbers, from 0 on, bottom `index` may hold (indices, or 2 for yes and
        no), for bottoms of these shapes; 0: any values.
        """
        return 0

    def copies(self) -> bool:
        """Whether every top equals the only bottom."""
        return False

    def takes_bfloat16(self) -> bool:
        """Whether bfloat16 bottoms cost no accuracy: no long sums, logarithms or positions."""
        return False

    def onnx(self, graph: Graph, *bottoms: Value) -> Names:
        """Write the layer in TEST phase into an ONNX graph; returns the names of its tops."""
        hint = "; choose outputs before it" if self.loss or self.look.family == "Output" else ""
        if self.raw_bottoms != 0:
            hint = RAW
        raise CaffeError(f"{self.where}: type {self.type} has no ONNX form{hint}")

    @classmethod
    def coordinates(cls, params: Mapping[str, Any]) -> Map | None:
        """The map of coordinates from bottom to top (caffe/coord_map.py) for NetSpec's parameters;
        None if the type has none.
        """
        return None

    @classmethod
    def alignment(cls, params: Mapping[str, Any]) -> Map | None:
        """The map by which crops are aligned (caffe/graph/alignment.py): that of `coordinates`, or
        the identity for types that only join or cut channels.
        """
        return cls.coordinates(params)

    @property
    def unplaced(self) -> bool:
        """Whether the parameters leave open where it cuts (Crop); then the net calls put()."""
        return False

    @property
    def aligned(self) -> bool:
        """Whether it always cuts where the coordinates of its bottoms agree (AutoCrop)."""
        return False

    def meet(self, index: int, maker: Layer, top: int) -> None:
        """Told by the net, before setup, which layer makes bottom `index`, as its top `top`."""

    def put(self, axis: int, offset: Sequence[int]) -> None:
        """Say where it cuts: from `axis` on, at these offsets; none: at 0."""
        raise AssertionError("the type is never unplaced")

    @classmethod
    def detail(cls, param: pb.LayerParameter) -> str:
        """The second line of a box in netgen's drawings if the shape is not known."""
        return param.type

    @classmethod
    def symbol(cls, param: pb.LayerParameter) -> str:
        """The symbol that netgen draws in a circle instead of a box; empty: a box."""
        return ""

    @classmethod
    def edge(cls, param: pb.LayerParameter) -> str:
        """The text that caffe.draw writes on the edge to a top."""
        return ""

    @classmethod
    def title(cls, param: pb.LayerParameter) -> str:
        """The type as caffe.draw writes it into a box."""
        return param.type

    @classmethod
    def geometry(cls, param: pb.LayerParameter) -> list[str]:
        """The lines that caffe.draw writes into a box below name and type."""
        return []

    def from_torch(self, index: int, values: torch.Tensor) -> torch.Tensor:
        """A PyTorch module's parameter as this layer's parameter `index`; its shape may differ
        from the blob's by axes of one.
        """
        return values

    def from_file(self, index: int, arrays: Sequence[np.ndarray | None]) -> np.ndarray | None:
        """A weights file's array for parameter `index`; `arrays` are all that it has for the layer.
        Types that take other shapes than their own bring them into these.
        """
        return arrays[index] if index < len(arrays) else None

    def fillers_of_tops(self) -> Sequence[pb.FillerParameter]:
        """A filler for each top of a source that fills itself; empty for all other layers."""
        return ()

    def contents(self) -> dict[str, int]:
        """How much a source holds ({"records": 381}); empty if that is not known."""
        return {}

    def position(self) -> dict[str, Any] | None:
        """The position in its data after the passes so far, as a dict that JSON can hold; None if
        the layer has none.
        """
        return None

    def go_on(self, position: dict[str, Any]) -> None:
        """Continue from a value of position(). Raises CaffeError, changing nothing, if that is not
        possible.
        """
        raise CaffeError(f"a layer of type {self.type} remembers no position")

    def reset(self) -> None:
        """Forget the state that earlier passes left (recurrent layers)."""

    def begin_test(self) -> None:
        """Called before the first pass of a test (Net.testing), of layers that accumulate."""

    def end_test(self) -> None:
        """Called after the last pass of a test, also of one that was broken off."""

    def at_iteration(self, number: int) -> None:
        """Called by a solver before the passes of iteration `number`, for schedules of layers."""

    @property
    def waited(self) -> float:
        """Seconds that passes have waited for this layer's data so far."""
        return 0.0

    # -- helpers for layer types ----------------------------------------------------------------

    @property
    def shown(self) -> Any:
        """The object for this layer in `net.layers`."""
        return self

    @property
    def where(self) -> str:
        """'layer 'conv1'', for messages."""
        return f"layer {self.name!r}"

    def check(self, condition: bool, message: str) -> None:
        """Raise CaffeError with the layer's name unless `condition` holds."""
        if not condition:
            raise CaffeError(f"{self.where} ({self.type}): {message}")

    @contextmanager
    def named(self) -> Iterator[None]:
        """Add the layer's name to CaffeErrors raised within."""
        try:
            yield
        except CaffeError as error:
            raise CaffeError(f"{self.where} ({self.type}): {error}") from None

    def check_range(self, values: torch.Tensor, end: int, what: str, hint: str = "") -> None:
        """Raise CaffeError unless all `values` (integers) are 0 to end - 1; `what` names them."""
        if not (can_look(values) and values.numel()):
            return
        low, high = (int(v) for v in torch.aminmax(values))
        worst = low if low < 0 else high
        expected = f"expected 0 to {end - 1}" if end else "there is nothing to choose from"
        self.check(low >= 0 and high < end, f"{what} {worst} is out of range, {expected}{hint}")

    def add_blob(self, shape: Sequence[int], filler: pb.FillerParameter) -> Blob:
        """Declare one more parameter blob, which `filler` fills when it is first read."""
        try:
            blob = Blob(shape, lambda values: fill(values, filler))
        except CaffeError as error:
            self.check(False, f"parameter {len(self.blobs)}: {error}")
        self.blobs.append(blob)
        return blob

    def array(self, index: int) -> np.ndarray:
        """A copy of a parameter's values."""
        # Not .data: nobody gets a view, by which values could change unnoticed.
        return self.blobs[index].tensor(torch.device("cpu")).contiguous().numpy().copy()

    def top_shapes(self, bottom: Tensors) -> list[Shape]:
        """infer_shapes for tensors; forward calls it to refuse bottoms that do not fit."""
        return self.infer_shapes([tuple(x.shape) for x in bottom])

    def axis(self, axis: int, shape: Shape) -> int:
        """An axis of `shape`; negative ones count from the end. Raises CaffeError outside."""
        self.check(
            -len(shape) <= axis < len(shape),
            f"axis {axis} is out of range for a bottom of {len(shape)} axes, {shape}",
        )
        return axis % len(shape) if shape else 0

    # -- what the net calls ---------------------------------------------------------------------

    def attach(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Check the counts, declare the parameters, shape the tops and set the loss weights.

        No memory is taken: the parameters are filled by fill_blobs().
        """
        self.num_bottoms, self.num_tops = len(bottom), len(top)
        self._check_counts()
        self.setup([b.shape for b in bottom])
        self._given = self._given_blobs()
        self.param_propagate_down = [True] * len(self.blobs)
        self.bottom_need_backward = [i not in self.labels for i in range(len(bottom))]
        self.reshape(bottom, top)
        self._set_loss_weights(top)

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Give the tops the shapes that follow from the bottoms'."""
        try:
            shapes = self.infer_shapes([b.shape for b in bottom])
        except CaffeError:
            raise
        except (RuntimeError, IndexError, ValueError) as error:
            given = ", ".join(str(b.shape) for b in bottom)
            reason = str(error).splitlines()[0]
            raise CaffeError(
                f"{self.where} ({self.type}): bottom shapes {given} do not fit: {reason}"
            ) from None
        with self.named():
            for i, (blob, shape) in enumerate(zip(top, shapes, strict=True)):
                if i < len(bottom) and blob is bottom[i] and blob.shape != tuple(shape):
                    raise CaffeError(
                        f"cannot work in place: its bottom {blob.shape} becomes {tuple(shape)}"
                    )
                blob.match(tuple(shape))

    def fill_blobs(self) -> None:
        """Fill the parameters: by their fillers, then with the weights that the net carries."""
        with self.named(), memory.named("parameters"):
            for blob in self.blobs:
                blob.tensor(torch.device("cpu"))
        for blob, array in zip(self.blobs, self._given, strict=False):
            blob.tensor(torch.device("cpu")).copy_(torch.from_numpy(array).view(blob.shape))
        self._given = []

    @property
    def pure(self) -> bool:
        """Whether forward_blobs does no more than forward, so that a plan may call that instead."""
        return type(self).forward_blobs is Layer.forward_blobs

    def forward_blobs(self, bottom: Sequence[Blob], top: Sequence[Blob], record: bool) -> None:
        """Compute the tops; with `record`, keep what backward_blobs needs."""
        inputs = [b.tensor() for b in bottom]
        blobs = [b.tensor() for b in self.blobs]
        if record:
            for i, (b, t) in enumerate(zip(bottom, top, strict=False)):
                if b is t and b.viewed:  # the top will overwrite memory that autograd keeps
                    inputs[i] = inputs[i].clone()
            tops = self._keep(inputs, blobs)
        else:
            self._graph = None
            with torch.no_grad():
                tops = self._compute(inputs, blobs)
        memory = set() if self.shares_memory else {_memory(t) for t in inputs}
        for blob, tensor in zip(top, tops, strict=True):
            blob.assign(tensor, borrowed=_memory(tensor) in memory)

    def record(self, inputs: Tensors) -> Tensors:
        """Run forward beside the net's blobs, only to keep what backward_blobs needs."""
        blobs = [b.tensor() for b in self.blobs]
        return self._keep(inputs, [b.clone() for b in blobs] if self.gathers else blobs)

    def backward_blobs(
        self,
        top: Sequence[Blob],
        propagate_down: Sequence[bool],
        bottom: Sequence[Blob],
        keep_graph: bool = True,
    ) -> None:
        """Overwrite the bottoms' gradients where propagate_down says so; add to the parameters'."""
        for i in self.labels:
            if i < len(bottom) and propagate_down[i]:
                self.check(False, f"has no gradient for bottom {i}, which a layer before it needs")
        device = current_device()
        for blob in (*bottom, *top):
            blob.tensor(device)  # as in Caffe, values written since the forward pass count
        if self._graph is None:
            self.record([b.tensor().clone() for b in bottom])
        graph = self._graph
        assert graph is not None
        wanted = [t for t, want in zip(graph.bottoms, propagate_down, strict=True) if want]
        learned = [
            t for t, want in zip(graph.blobs, self.param_propagate_down, strict=True) if want
        ]
        gradients = self._gradients(graph, top, [*wanted, *learned], keep_graph)
        memory = {_memory(b.diff_tensor(device)) for b in top}
        if any(b is t for b in bottom for t in top):  # the tops' gradients are overwritten below
            gradients = [
                g.clone() if g is not None and _memory(g) in memory else g for g in gradients
            ]
        for blob, want in zip(bottom, propagate_down, strict=True):
            if want:
                g = gradients.pop(0)
                g = torch.zeros(blob.shape, device=device) if g is None else g
                blob.assign_diff(g, borrowed=_memory(g) in memory)
                memory.add(_memory(g))
        for blob, want in zip(self.blobs, self.param_propagate_down, strict=True):
            if want and (g := gradients.pop(0)) is not None:
                blob.diff_tensor(device).add_(g)
        if not keep_graph:
            self._graph = None

    def forget(self) -> None:
        """Drop what the last forward pass kept for the gradient."""
        self._graph = None

    def to_proto(self) -> pb.LayerParameter:
        """The parameters as a message, without blobs."""
        param = pb.LayerParameter()
        param.CopyFrom(self.layer_param)
        return param

    # -- inside ---------------------------------------------------------------------------------

    def _gradients(
        self, graph: _Graph, top: Sequence[Blob], inputs: list[torch.Tensor], keep_graph: bool
    ) -> list[torch.Tensor | None]:
        device = current_device()
        pairs = [
            (t, b.diff_tensor(device))
            for t, b in zip(graph.tops, top, strict=True)
            if t.requires_grad
        ]
        if not pairs or not inputs:
            return [None] * len(inputs)
        tensors, diffs = zip(*pairs, strict=True)
        return list(
            torch.autograd.grad(tensors, inputs, diffs, retain_graph=keep_graph, allow_unused=True)
        )

    def _keep(self, inputs: Tensors, blobs: Tensors) -> list[torch.Tensor]:
        """Run forward and keep its graph."""
        graph = _Graph(self, inputs, blobs)
        with torch.enable_grad():
            graph.tops = self._compute(graph.bottoms, graph.blobs)
        self._graph = graph
        return graph.tops

    def _compute(self, inputs: Tensors, blobs: Tensors) -> list[torch.Tensor]:
        """The tops; layers that multiply do so in bfloat16 if the precision is bf16."""
        if not self.multiplies or execution.precision() != "bf16":
            return _as_list(self.forward(inputs, blobs))
        with torch.autocast(current_device().type, torch.bfloat16):
            return [t.float() for t in _as_list(self.forward(inputs, blobs))]

    def _check_counts(self) -> None:
        for what, count, (least, most), names in (
            ("bottom", self.num_bottoms, self.bottoms, self.layer_param.bottom),
            ("top", self.num_tops, self.tops, self.layer_param.top),
        ):
            if least == most:
                text = f"exactly {least}"
            else:
                text = f"at least {least}" if count < least else f"at most {most}"
            good = least <= count and (most is None or count <= most)
            self.check(good, f"takes {text} {what} blob(s), got {count}: {list(names)}")
        if self.one_top_each:
            self.check(
                self.num_bottoms == self.num_tops,
                f"makes one top for each bottom, got {self.num_bottoms} bottom(s) "
                f"and {self.num_tops} top(s)",
            )
        if not self.in_place:
            pairs = zip(self.layer_param.bottom, self.layer_param.top, strict=False)
            for bottom, top in pairs:
                self.check(bottom != top, f"cannot work in place: {top!r} is its bottom and top")

    def _read_message(self) -> Message | None:
        """The parameters of a layer type whose message Caffe's schema does not know."""
        if self.message is None:
            return None
        text = self.layer_param.python_param.param_str
        return parse(text.encode(), self.message, f"{self.where} ({self.type}): param_str")

    def _given_blobs(self) -> list[np.ndarray]:
        """The weights that a net may carry itself (LayerParameter.blobs); the message loses them.

        Raises CaffeError unless they fit the parameters.
        """
        given, arrays = self.layer_param.blobs, []
        self.check(
            not given or len(given) == len(self.blobs),
            f"has {len(self.blobs)} parameter blob(s), but the net gives {len(given)}",
        )
        for i, (blob, proto) in enumerate(zip(self.blobs, given, strict=False)):
            try:
                array = blobproto_to_array(proto).astype("float32")
            except ValueError as error:
                raise CaffeError(f"{self.where} ({self.type}): parameter {i}: {error}") from None
            self.check(
                array.size == blob.count,
                f"parameter {i} given with the shape {shape_string(array.shape)}, "
                f"expected {shape_string(blob.shape)}",
            )
            arrays.append(array)
        self.layer_param.ClearField("blobs")
        return arrays

    def _set_loss_weights(self, top: Sequence[Blob]) -> None:
        given = list(self.layer_param.loss_weight)
        if given:
            self.check(
                len(given) == len(top),
                f"loss_weight is given {len(given)} time(s), expected none or one for each of "
                f"{len(top)} top(s)",
            )
        elif self.loss:
            given = [1.0]
        self.loss_weights = given + [0.0] * (len(top) - len(given))
        for blob, weight in zip(top, self.loss_weights, strict=True):
            if weight:
                blob.seed_diff(weight)


def resized(shape: Shape, axis: int, extent: int) -> Shape:
    """The shape with another extent on one axis, which is not negative."""
    return (*shape[:axis], extent, *shape[axis + 1 :])


def can_look(values: torch.Tensor) -> bool:
    """Whether values can be read: not while shapes are inferred or torch.compile traces."""
    return not (values.is_meta or torch.compiler.is_compiling())


class _GradientOf(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: torch.Tensor, stand_in: torch.Tensor) -> torch.Tensor:
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[None, torch.Tensor]:
        return None, grad


def with_gradient_of(value: torch.Tensor, stand_in: torch.Tensor) -> torch.Tensor:
    """`value`, but with the gradient of `stand_in`, which has the same shape.

    It is for layers whose gradient in Caffe is not the derivative of what they compute.
    """
    return _GradientOf.apply(value.detach(), stand_in)


class _Graph:
    """One recorded forward pass of one layer: its leaves and its tops."""

    def __init__(self, layer: Layer, inputs: Tensors, blobs: Tensors) -> None:
        # .data, not detach(): autograd must not refuse what a user or solver writes to the shared
        # memory between forward and backward; as in Caffe, it is simply used.
        self.bottoms = [
            t.data.requires_grad_(want)
            for t, want in zip(inputs, layer.bottom_need_backward, strict=True)
        ]
        # detach() for statistics: the engine itself changes them, and autograd must notice that.
        self.blobs = [
            (t.detach() if layer.statistic(i) else t.data).requires_grad_(want)
            for i, (t, want) in enumerate(zip(blobs, layer.param_propagate_down, strict=True))
        ]
        self.tops: list[torch.Tensor] = []


def _as_list(tops: torch.Tensor | Tensors) -> list[torch.Tensor]:
    return [tops] if isinstance(tops, torch.Tensor) else list(tops)


def _memory(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
