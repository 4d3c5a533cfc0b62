"""Net: layers over named blobs, run forward and backward one after another."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from caffe.blob import Blob
from caffe.errors import CaffeError
from caffe.formats import files
from caffe.formats.prototext import check_texts
from caffe.graph.parameters import Parameter
from caffe.graph.rules import filter_net, insert_splits
from caffe.graph.wiring import Wiring
from caffe.net import batches, debug, weights
from caffe.net.plans import Plans
from caffe.net.short import Short
from caffe.net.work import Work, shared_out
from caffe.plan.plan import Plan
from caffe.process import memory
from caffe.process.log import WARNING, emit
from caffe.process.ranks import announce
from caffe.proto import caffe_pb2 as pb

Callback = Callable[[int], None]
GradientHook = Callable[[Blob], None]


class Net:
    """A network, as pycaffe's.

    Net(network_file, phase, level=0, stages=None, weights=None), where network_file is the path of
    a prototxt or a NetParameter; also Net(network_file, weights_file, phase), the older form.
    Raises CaffeError for a net or weights that cannot be used.

    blobs, params: OrderedDicts by name; inputs, outputs: names (outputs in alphabetical order).
    wiring: the layers and how blobs connect them (caffe/graph/wiring.py), for the engine's other
    parts. gradient_hook: called with each parameter's blob when its gradient is complete. work: how
    much a pass computes.
    observed: True, as in pycaffe, keeps every blob. If set to False, whole passes may follow a plan
    (caffe/plan), which gives the same outputs and parameter gradients with less time and memory;
    in phase TEST caffe.set_engine may have another program compute a part of it.
    The blobs in between are then not filled, and backward() starts from the losses only.
    """

    def __init__(
        self,
        network_file: str | os.PathLike[str] | pb.NetParameter,
        *arguments: Any,
        phase: int | None = None,
        level: int = 0,
        stages: Sequence[str] | None = None,
        weights: str | os.PathLike[str] | None = None,
    ) -> None:
        names = ("phase", "level", "stages", "weights")
        if arguments and isinstance(arguments[0], str | os.PathLike):
            names = ("weights", "phase", "level", "stages")
            _warn_old_form(network_file, arguments[0], arguments[1:])
        given = dict(zip(names, arguments, strict=False))
        if len(arguments) > len(names):
            raise TypeError(f"Net takes at most 5 positional arguments, got {len(arguments) + 1}")
        named = {"phase": phase, "level": level or None, "stages": stages, "weights": weights}
        twice = [name for name in given if named[name] is not None]
        if twice:
            raise TypeError(f"Net got {twice[0]} twice, by position and by name")
        phase = given.get("phase", phase)
        level = given.get("level", level)
        stages = given.get("stages", stages)
        weights = given.get("weights", weights)
        if phase not in (pb.TRAIN, pb.TEST):
            raise CaffeError(f"Net: phase is {phase!r}, expected caffe.TRAIN or caffe.TEST")
        if isinstance(network_file, pb.NetParameter):
            param = pb.NetParameter()
            param.CopyFrom(network_file)
        else:
            param = files.read_net(network_file, emit)
        param.state.phase = phase
        param.state.level = level
        param.state.stage.extend([stages] if isinstance(stages, str) else stages or [])
        self.initialize(param)
        if weights is not None:
            self.copy_from(weights)

    @classmethod
    def from_state(cls, param: pb.NetParameter) -> Net:
        """A net for the state that `param` itself holds (for solvers)."""
        net = cls.__new__(cls)
        net.initialize(param)
        return net

    def initialize(self, param: pb.NetParameter) -> None:
        """Build the net for the state that `param` holds, as Caffe's Net::Init."""
        check_texts(param, f"net {param.name!r}")
        filtered = filter_net(param)
        text = files.text(filtered).rstrip()
        announce("net.cpp:53", f"Initializing net from parameters: \n{text}")
        split = insert_splits(filtered)
        self.wiring = wiring = Wiring(split)
        wiring.check_memory()
        wiring.fill_parameters()
        self._may_keep = False  # whether memory for all blobs was looked for
        self.name, self.phase = wiring.name, wiring.phase
        self.debug_info = split.debug_info
        self.loaded: dict[str, int] = {}  # how many layers took weights from each file
        self._show_names()
        self._callbacks: dict[str, list[Callback]] = {
            f"{when}_{what}": [] for when in ("before", "after") for what in ("forward", "backward")
        }
        # Gradients in TEST are rare: nothing is kept for them until the first is asked for.
        trains = self.phase == pb.TRAIN or split.force_backward
        self._record = trains or wiring.overwrites_a_source()
        self._ran_to = -1
        self.observed = True
        self.gradient_hook: GradientHook | None = None
        self.work = Work(wiring)
        self._plans = Plans(wiring)
        self._followed: Plan | None = None  # the plan of the last forward pass
        self._short: Short | None = None  # stands for whole passes that change nothing but outputs
        announce("net.cpp:257", "Network initialization done.")

    def _show_names(self) -> None:
        """Set the attributes that show layers and blobs by name."""
        wiring = self.wiring
        names, blob_names = wiring.layer_names, wiring.blob_names
        self.blobs = OrderedDict(zip(blob_names, wiring.blobs, strict=True))
        self.blob_loss_weights = OrderedDict(zip(blob_names, wiring.loss_weights, strict=True))
        # A Python layer is the user's own object.
        self.layers = [layer.shown for layer in wiring.layers]
        self.layer_dict = OrderedDict(zip(names, self.layers, strict=True))
        self.params = OrderedDict((k, v.blobs) for k, v in wiring.by_name.items() if v.blobs)
        self.inputs, self.outputs = wiring.names(wiring.inputs), wiring.names(wiring.outputs)
        self.top_names = OrderedDict(zip(names, map(wiring.names, wiring.tops), strict=True))
        self.bottom_names = OrderedDict(zip(names, map(wiring.names, wiring.bottoms), strict=True))

    # -- running --------------------------------------------------------------------------------

    def forward(
        self,
        blobs: Sequence[str] | None = None,
        start: str | None = None,
        end: str | None = None,
        **inputs: np.ndarray,
    ) -> dict[str, np.ndarray]:
        """Run from layer `start` to layer `end`, both included; default all.

        inputs: arrays for all input blobs, by name, of the blobs' shapes.
        Returns the outputs (with `end`: that layer's tops) and the `blobs` asked for, by name.
        """
        usual = not blobs and start is None and end is None
        if usual and self._short is not None:
            if inputs:
                self._fill(inputs, self.inputs, "input", "data")
            found = self._short.forward(self)
            if found is not None:
                self._followed = self._short.plan
                return found
            self._short, inputs = None, {}
        first, last = self._range(start, end, 0, len(self.wiring) - 1)
        wanted = {*(self.outputs if end is None else self.top_names[end]), *(blobs or [])}
        self.wiring.check_blobs(wanted)
        if inputs:
            self._fill(inputs, self.inputs, "input", "data")
        # A plan fills the outputs only.
        self.losses_from_to(first, last, may_plan=wanted <= set(self.outputs))
        found = {name: self.blobs[name].data for name in wanted}
        if usual:
            self._short = self._plans.short(self._followed)
        return found

    def backward(
        self,
        diffs: Sequence[str] | None = None,
        start: str | None = None,
        end: str | None = None,
        **top_diffs: np.ndarray,
    ) -> dict[str, np.ndarray]:
        """Run the gradient from layer `start` back to layer `end`, both included; default all.

        top_diffs: gradients of all output blobs, by name; default: what their `.diff` holds.
        Returns the gradients of the inputs (with `end`: that layer's bottoms) and of `diffs`.
        Parameter gradients are added to; clear_param_diffs() sets them to zero.
        """
        first, last = self._range(start, end, len(self.wiring) - 1, 0)
        wanted = {*(self.inputs if end is None else self.bottom_names[end]), *(diffs or [])}
        self.wiring.check_blobs(wanted)
        if self._followed is not None and not self._followed.train:
            raise CaffeError(
                f"net {self.name!r}: in TEST nothing is kept for gradients unless it is observed"
            )
        if self._followed is not None and (top_diffs or diffs or start or end):
            raise CaffeError(
                f"net {self.name!r}: after a pass by plan the gradient is that of all losses; for "
                "another start, or the gradients of blobs, set net.observed = True"
            )
        if top_diffs:
            self._fill(top_diffs, self.outputs, "output", "diff")
        self.backward_from_to(first, last)
        return {name: self.blobs[name].diff for name in wanted}

    def forward_from_to(self, start: int, end: int) -> float:
        """Run layers start .. end; returns the loss: the weighted sum of all loss tops."""
        losses = self.losses_from_to(start, end)
        return float(sum(losses)) if losses else 0.0

    def losses_from_to(self, start: int, end: int, may_plan: bool = True) -> list[torch.Tensor]:
        """Run layers start .. end; returns the weighted losses, without waiting for the GPU.

        may_plan: a plan may stand for the pass, which fills no blobs but the outputs.
        """
        self._followed = plan = self._plan_for(start, end) if may_plan else None
        if plan is None:
            return self._run_layers(start, end)
        plan.gradient_hook = self.gradient_hook
        if self._plans.leaves_nothing(plan):  # no operation would be shared out
            return plan.forward()
        with self.work.sharing():
            return plan.forward()

    @shared_out
    def _run_layers(self, start: int, end: int) -> list[torch.Tensor]:
        """Run layers start .. end one by one; returns the weighted losses."""
        if not self._may_keep:
            self.wiring.check_memory(kept=True)
            self._may_keep = True
        if start > 0 and not self._record:  # a pass made of pieces cannot be repeated later
            self._start_recording()
        self._ran_to = end
        losses = []
        for i in range(start, end + 1):
            self._call("before_forward", i)
            losses += self.forward_layer(i)
            if self.debug_info:
                debug.show_forward(self.wiring, i)
            self._call("after_forward", i)
        return losses

    def forward_layer(self, i: int) -> list[torch.Tensor]:
        """Run layer i; returns its weighted losses."""
        layer, tops = self.wiring.layers[i], self.wiring.top_blobs(i)
        record = self._record and self.wiring.needs_backward[i]
        with memory.named(f"{layer.where} ({layer.type})"):
            layer.forward_blobs(self.wiring.bottom_blobs(i), tops, record)
        return [
            weight * top.tensor().sum()
            for top, weight in zip(tops, layer.loss_weights, strict=True)
            if weight
        ]

    @shared_out
    def backward_from_to(self, start: int, end: int, keep_graph: bool = True) -> None:
        """Run the gradient of layers start .. end, from the later to the earlier.

        keep_graph: keep what the pass needs, so that it can be repeated; else free it on the way.
        """
        if self._followed is not None:
            self._followed.backward()
            return
        if not self._record:
            self._start_recording()
        wiring = self.wiring
        for i in range(start, end - 1, -1):
            self._call("before_backward", i)
            layer = wiring.layers[i]
            if wiring.needs_backward[i]:
                tops, bottoms = wiring.top_blobs(i), wiring.bottom_blobs(i)
                with memory.named(f"{layer.where} ({layer.type}), backward"):
                    layer.backward_blobs(tops, wiring.wants[i], bottoms, keep_graph)
                if self.debug_info:
                    debug.show_backward(wiring, i)
            if self.gradient_hook is not None:  # layers that share a parameter lie behind its owner
                for k, blob in enumerate(layer.blobs):
                    if not wiring.parameters.is_shared(layer, k):
                        self.gradient_hook(blob)
            self._call("after_backward", i)
        if self.debug_info and end == 0:
            debug.show_parameters(wiring)

    def _plan_for(self, start: int, end: int) -> Plan | None:
        """The plan for this pass; None if somebody could tell the difference."""
        whole = start == 0 and end == len(self.wiring) - 1
        watched = self.observed or self.debug_info or any(self._callbacks.values())
        return None if watched or not whole else self._plans.current(self)

    @property
    def plan(self) -> Plan | None:
        """The plan that whole passes follow; None where they go layer by layer."""
        return self._plan_for(0, len(self.wiring) - 1)

    @contextmanager
    def testing(self) -> Iterator[frozenset[str]]:
        """Let the passes within be those of one test, as a solver's and those of `caffe test` are.

        Layers that accumulate, such as SegmentationAccuracy, start anew and tell of all passes so
        far. Gives the outputs that do so, or follow from some that do: what they hold after the
        last pass is the test's value. That of the others is the mean over the passes.
        """
        layers = [layer for layer in self.wiring.layers if layer.accumulates]
        for layer in layers:
            layer.begin_test()
        try:
            yield self._accumulated()
        finally:
            for layer in layers:
                layer.end_test()

    def _accumulated(self) -> frozenset[str]:
        """The outputs that layers accumulate, or that are computed from such tops."""
        wiring, held = self.wiring, set()
        for layer, bottoms, tops in wiring:
            if layer.accumulates or held.intersection(bottoms):
                held.update(tops)
        return frozenset(wiring.names([i for i in wiring.outputs if i in held]))

    @property
    def waited(self) -> float:
        """Seconds that passes have waited so far for the layers that read data ahead."""
        return sum(layer.waited for layer in self.wiring.layers)

    def _start_recording(self) -> None:
        """Record graphs from now on. The last forward pass is repeated to record its graph; the
        blobs keep their values.
        """
        self._record = True
        wiring = self.wiring
        last_change: dict[int, int] = {}  # blob changed in place -> the last layer that does so
        for i, (_, bottoms, tops) in enumerate(wiring):
            last_change.update((j, i) for j in tops if j in bottoms)
        before: dict[int, torch.Tensor] = {}  # what such blobs held until then
        for i, (layer, bottoms, tops) in enumerate(wiring):
            if i > self._ran_to or layer.source or not tops:
                continue
            made = layer.record([before.get(j, wiring.blobs[j].tensor()) for j in bottoms])
            for j, top in zip(tops, made, strict=True):
                before.pop(j, None)
                if i < last_change.get(j, -1):
                    before[j] = top

    def set_input_arrays(self, data: np.ndarray, labels: np.ndarray) -> None:
        """Have a net that begins with a MemoryData layer take its batches from these arrays.

        data: float32, samples x channels x height x width; labels: float32, one per sample. They
        are not copied. Raises CaffeError for another first layer, or arrays that do not fit it.
        """
        layer = self.wiring.layers[0] if len(self.wiring) else None
        if not hasattr(layer, "set_arrays"):
            raise CaffeError(
                "set_input_arrays: the net's first layer must be of type MemoryData"
                + (f", {layer.name!r} is of type {layer.type}" if layer else "")
            )
        layer.set_arrays(data, labels)

    def clear_param_diffs(self) -> None:
        """Set the gradients of all parameters to zero."""
        for param in self.learnable:
            param.blob.zero_diff()

    def reshape(self) -> None:
        """Compute all blobs' shapes anew from those of the input blobs, as Caffe's Net::Reshape."""
        for i, layer in enumerate(self.wiring.layers):
            layer.forget()
            layer.reshape(self.wiring.bottom_blobs(i), self.wiring.top_blobs(i))

    def _range(self, start: str | None, end: str | None, first: int, last: int) -> tuple[int, int]:
        names = self.wiring.layer_names
        for name in (start, end):
            if name is not None and name not in names:
                raise CaffeError(f"net {self.name!r} has no layer {name!r}")
        return (
            first if start is None else names.index(start),
            last if end is None else names.index(end),
        )

    def _fill(
        self, arrays: Mapping[str, np.ndarray], expected: Sequence[str], what: str, part: str
    ) -> None:
        if set(arrays) != set(expected):
            raise CaffeError(
                f"{what} arrays {sorted(arrays)} do not match the net's {what}s {sorted(expected)}"
            )
        for name, array in arrays.items():
            array, shape = np.asarray(array), self.blobs[name].shape
            try:
                if array.shape[:1] != shape[:1]:
                    raise ValueError
                getattr(self.blobs[name], part)[...] = array
            except ValueError:
                raise CaffeError(
                    f"{what} {name!r} has the shape {shape}, the array given {array.shape}"
                ) from None

    # -- batches (pycaffe) ----------------------------------------------------------------------

    def forward_all(
        self, blobs: Sequence[str] | None = None, **inputs: Sequence[np.ndarray]
    ) -> dict[str, np.ndarray]:
        """forward() over any number of inputs, batch by batch; returns all outputs joined."""
        outs, _ = batches.run(self, inputs, {}, blobs, None)
        return outs

    def forward_backward_all(
        self,
        blobs: Sequence[str] | None = None,
        diffs: Sequence[str] | None = None,
        **arrays: Sequence[np.ndarray],
    ) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """forward() and backward() over any number of inputs (and output gradients)."""
        inputs = {k: v for k, v in arrays.items() if k in self.inputs}
        tops = {k: v for k, v in arrays.items() if k in self.outputs}
        return batches.run(self, inputs, tops, blobs, diffs or [])

    # -- weights --------------------------------------------------------------------------------

    def copy_from(
        self,
        weights_file: str | os.PathLike[str],
        complete: bool = False,
        fresh: Sequence[str] = (),
    ) -> None:
        """Load a file's weights into the layers of the same name.

        The file is binary (a .caffemodel of any age) or HDF5. Layers that it lacks keep their
        weights. If a shape does not fit, nothing is changed, and CaffeError names the layer, the
        blob and both shapes.

        complete: raise CaffeError, too, for a file that lacks parameters of the net. fresh: names
        or patterns (fnmatch's) of layers that keep the weights they have, whatever the file holds
        for them; CaffeError, if one fits no layer with weights.
        """
        taken = weights.load(self.wiring, weights_file, complete, fresh)
        self.loaded[os.fspath(weights_file)] = taken

    load_hdf5 = copy_from

    def share_with(self, other: Net) -> None:
        """Use the other net's weights, as one memory, in the layers of the same name.

        Raises CaffeError if their parameters differ in number or shape.
        """
        self._plans.clear()
        self._short = None
        weights.share(self.wiring, other.wiring)

    def to_proto(self) -> pb.NetParameter:
        """The net's structure as it runs (Split layers included), without weights."""
        return self.wiring.to_proto()

    def save(self, path: str | os.PathLike[str], write_diff: bool = False) -> None:
        """Write a .caffemodel: structure and weights (and their gradients)."""
        weights.save(self.wiring, path, write_diff)

    def save_hdf5(self, path: str | os.PathLike[str], write_diff: bool = False) -> None:
        """Write the weights (and their gradients) as HDF5; shared ones once, as Caffe does."""
        weights.save_hdf5(self.wiring, path, write_diff)

    @property
    def learnable(self) -> list[Parameter]:
        """The parameters that a solver updates, each once, however many layers share it."""
        return self.wiring.learnable

    # -- callbacks ------------------------------------------------------------------------------

    def before_forward(self, function: Callback) -> None:
        """Call `function` with the layer's index before each layer's forward pass."""
        self._callbacks["before_forward"].append(function)
        self._short = None

    def after_forward(self, function: Callback) -> None:
        """Call `function` with the layer's index after each layer's forward pass."""
        self._callbacks["after_forward"].append(function)
        self._short = None

    def before_backward(self, function: Callback) -> None:
        """Call `function` with the layer's index before each layer's backward pass."""
        self._callbacks["before_backward"].append(function)
        self._short = None

    def after_backward(self, function: Callback) -> None:
        """Call `function` with the layer's index after each layer's backward pass."""
        self._callbacks["after_backward"].append(function)
        self._short = None

    def _call(self, when: str, i: int) -> None:
        for function in self._callbacks[when]:
            function(i)

    # -- pycaffe's underscored names, which users' scripts read -----------------------------------

    @property
    def _layer_names(self) -> list[str]:
        return self.wiring.layer_names

    @property
    def _blob_names(self) -> list[str]:
        return self.wiring.blob_names

    @property
    def _blobs(self) -> list[Blob]:
        return self.wiring.blobs

    @property
    def _blob_loss_weights(self) -> list[float]:
        return self.wiring.loss_weights

    @property
    def _inputs(self) -> list[int]:
        return self.wiring.inputs

    @property
    def _outputs(self) -> list[int]:
        return self.wiring.outputs

    def _bottom_ids(self, layer: int) -> list[int]:
        return self.wiring.bottoms[layer]

    def _top_ids(self, layer: int) -> list[int]:
        return self.wiring.tops[layer]

    def _forward(self, start: int, end: int) -> float:
        return self.forward_from_to(start, end)

    def _backward(self, start: int, end: int) -> None:
        self.backward_from_to(start, end)

    def _batch(self, blobs: Mapping[str, Sequence[np.ndarray]]) -> Iterator[dict[str, np.ndarray]]:
        return batches.pieces(self, blobs)

    def _set_input_arrays(self, data: np.ndarray, labels: np.ndarray) -> None:
        self.set_input_arrays(data, labels)


def _warn_old_form(network_file: Any, weights: Any, rest: Sequence[Any]) -> None:
    phase = rest[0] if rest else "phase"
    for line, text in (
        (139, "DEPRECATION WARNING - deprecated use of Python interface"),
        (140, 'Use this instead (with the named "weights" parameter):'),
        (142, f"Net('{network_file}', {phase}, weights='{weights}')"),
    ):
        emit(f"_caffe.cpp:{line}", text, WARNING)
