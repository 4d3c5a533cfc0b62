"""Net: layers over named blobs, run forward and backward one after another."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from caffe.blob import Blob, shape_string
from caffe.errors import CaffeError
from caffe.formats import files
from caffe.graph.rules import filter_net, insert_splits, unknown_bottom
from caffe.layers import Layer, create_layer
from caffe.net.parameters import Parameter, Parameters
from caffe.plan.plan import Plan, can_plan
from caffe.process.log import ERROR, WARNING, emit, number
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
    observed: True, as in pycaffe, keeps every blob. Set to False, whole passes may follow a plan
    (caffe/plan.py): the same outputs and parameter gradients with less time and memory, but the
    blobs in between are not filled; backward() then only starts from the losses.
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
        if arguments and isinstance(arguments[0], str | os.PathLike):
            weights, *rest = arguments
            _warn_old_form(network_file, weights, rest)
        else:
            rest = list(arguments)
        names = ("phase", "level", "stages", "weights")
        given = dict(zip(names, rest, strict=False))
        if len(rest) > len(names):
            raise TypeError(f"Net takes at most 5 positional arguments, got {len(arguments) + 1}")
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
        self._init(param)
        if weights is not None:
            self.copy_from(weights)

    @classmethod
    def from_state(cls, param: pb.NetParameter) -> Net:
        """A net for the state that `param` itself holds (for solvers)."""
        net = cls.__new__(cls)
        net._init(param)
        return net

    # -- building -------------------------------------------------------------------------------

    def _init(self, param: pb.NetParameter) -> None:
        filtered = filter_net(param)
        text = files.text(filtered).rstrip()
        announce("net.cpp:53", f"Initializing net from parameters: \n{text}")
        split = insert_splits(filtered)
        self.name = split.name
        self.phase = split.state.phase
        self.debug_info = split.debug_info
        self._layers: list[Layer] = []
        self._layer_names: list[str] = []
        self._blobs: list[Blob] = []
        self._blob_names: list[str] = []
        self._blob_loss_weights: list[float] = []
        self._blob_need_backward: list[bool] = []
        self._bottom_id_vecs: list[list[int]] = []
        self._top_id_vecs: list[list[int]] = []
        self._layer_need_backward: list[bool] = []
        self._bottom_need_backward: list[list[bool]] = []
        self._inputs: list[int] = []
        self._available: set[str] = set()
        self._index: dict[str, int] = {}
        self._params = Parameters()
        self._memory = 0
        self._callbacks: dict[str, list[Callback]] = {
            f"{when}_{what}": [] for when in ("before", "after") for what in ("forward", "backward")
        }
        for layer_param in split.layer:
            self._add_layer(layer_param)
        self._find_backward_layers()
        if split.force_backward:
            self._force_backward()
        for i, layer in enumerate(self._layers):
            layer.bottom_need_backward = list(self._bottom_need_backward[i])
        for name in sorted(self._available):
            announce("net.cpp:244", f"This network produces output {name}")
        self._outputs = [self._index[name] for name in sorted(self._available)]
        for layer in self._layers:
            layer.fill_blobs()
        self._params.share()
        self._make_names()
        # Gradients in TEST are rare: nothing is kept for them until the first is asked for.
        self._record = self.phase == pb.TRAIN or split.force_backward or self._overwrites_a_source()
        self._ran_to = -1
        self.observed = True
        self.gradient_hook: GradientHook | None = None  # told of each parameter whose diff is done
        self._plan: Plan | None = None
        self._planned: Plan | None = None  # the plan that the last forward pass followed
        announce("net.cpp:257", "Network initialization done.")

    def _add_layer(self, param: pb.LayerParameter) -> None:
        if not param.HasField("phase"):
            param.phase = self.phase
        if param.propagate_down and len(param.propagate_down) != len(param.bottom):
            raise CaffeError(
                f"layer {param.name!r}: propagate_down must be given never or once for each of "
                f"{len(param.bottom)} bottom(s)"
            )
        announce("layer_factory.hpp:77", f"Creating layer {param.name}")
        layer = create_layer(param)
        self._layers.append(layer)
        self._layer_names.append(param.name)
        announce("net.cpp:86", f"Creating Layer {param.name}")
        rates = [spec.lr_mult for spec in param.param]
        bottoms, wants = self._connect_bottoms(param)
        tops = self._connect_tops(param, layer)
        layer.attach([self._blobs[i] for i in bottoms], [self._blobs[i] for i in tops])
        announce("net.cpp:124", f"Setting up {param.name}")
        for i, weight in zip(tops, layer.loss_weights, strict=True):
            self._blob_loss_weights[i] = weight
            announce("net.cpp:131", f"Top shape: {shape_string(self._blobs[i].shape)}")
            if weight:
                announce("net.cpp:134", f"    with loss weight {number(weight)}")
            self._memory += self._blobs[i].count
        announce("net.cpp:139", f"Memory required for data: {self._memory * 4}")
        needs = any(self._blob_need_backward[i] for i in bottoms)
        needs |= self._params.add(layer, rates)
        self._layer_need_backward.append(needs)
        for i in tops:
            self._blob_need_backward[i] |= needs
        self._bottom_id_vecs.append(bottoms)
        self._top_id_vecs.append(tops)
        self._bottom_need_backward.append(wants)

    def _connect_bottoms(self, param: pb.LayerParameter) -> tuple[list[int], list[bool]]:
        ids, wants = [], []
        for j, name in enumerate(param.bottom):
            if name not in self._available:
                raise unknown_bottom(param, j)
            announce("net.cpp:408", f"{param.name} <- {name}")
            ids.append(self._index[name])
            self._available.remove(name)
            given = param.propagate_down
            wants.append(given[j] if given else self._blob_need_backward[ids[-1]])
        return ids, wants

    def _connect_tops(self, param: pb.LayerParameter, layer: Layer) -> list[int]:
        ids = []
        for j, name in enumerate(param.top):
            if j < len(param.bottom) and param.bottom[j] == name:
                announce("net.cpp:369", f"{param.name} -> {name} (in-place)")
                ids.append(self._index[name])
            elif name in self._index:
                raise CaffeError(
                    f"layer {param.name!r}: top blob {name!r} is made by several layers; in place "
                    "means that it is bottom and top of one layer at the same position"
                )
            else:
                announce("net.cpp:382", f"{param.name} -> {name}")
                self._index[name] = self._new_blob(name)
                ids.append(self._index[name])
                if param.type == "Input":
                    self._inputs.append(ids[-1])
            self._available.add(name)
        if layer.auto_tops:
            while len(ids) < layer.tops[0]:
                announce("net.cpp:382", f"{param.name} -> (automatic)")
                ids.append(self._new_blob("(automatic)"))
        return ids

    def _new_blob(self, name: str) -> int:
        self._blobs.append(Blob())
        self._blob_names.append(name)
        self._blob_loss_weights.append(0.0)
        self._blob_need_backward.append(False)
        return len(self._blobs) - 1

    def _find_backward_layers(self) -> None:
        """From the last layer to the first: which ones bear on a loss."""
        under_loss: set[int] = set()
        skipped: set[int] = set()
        for i in reversed(range(len(self._layers))):
            tops, wants = self._top_id_vecs[i], self._bottom_need_backward[i]
            counts = any(
                weight or top in under_loss
                for top, weight in zip(tops, self._layers[i].loss_weights, strict=True)
            )
            if self._layer_need_backward[i] and all(top in skipped for top in tops):
                self._layer_need_backward[i] = False
                wants[:] = [False] * len(wants)
            if not counts:
                self._layer_need_backward[i] = False
                wants[:] = [False] * len(wants)
            name = self._layer_names[i]
            if self._layer_need_backward[i]:
                announce("net.cpp:200", f"{name} needs backward computation.")
            else:
                announce("net.cpp:202", f"{name} does not need backward computation.")
            for bottom, want in zip(self._bottom_id_vecs[i], wants, strict=True):
                if counts:
                    under_loss.add(bottom)
                if not want:
                    skipped.add(bottom)

    def _force_backward(self) -> None:
        for i, layer in enumerate(self._layers):
            self._layer_need_backward[i] = True
            wants = self._bottom_need_backward[i]
            wants[:] = [w or layer.allow_force_backward(j) for j, w in enumerate(wants)]
            layer.param_propagate_down = [True] * len(layer.blobs)

    def _overwrites_a_source(self) -> bool:
        """Whether a layer works in place on a blob that only a source could bring back."""
        sources = {
            i
            for tops, layer in zip(self._top_id_vecs, self._layers, strict=True)
            if layer.source
            for i in tops
        }
        return any(
            i in sources and i in tops
            for bottoms, tops in zip(self._bottom_id_vecs, self._top_id_vecs, strict=True)
            for i in bottoms
        )

    def _make_names(self) -> None:
        names = self._layer_names
        self.blobs = OrderedDict(zip(self._blob_names, self._blobs, strict=True))
        self.blob_loss_weights = OrderedDict(
            zip(self._blob_names, self._blob_loss_weights, strict=True)
        )
        # What a user sees: a Python layer is the user's own object.
        self.layers = [layer.shown for layer in self._layers]
        self.layer_dict = OrderedDict(zip(names, self.layers, strict=True))
        # Names may repeat; one goes to the layer that has parameters.
        self._by_name: dict[str, Layer] = {}
        for name, layer in zip(names, self._layers, strict=True):
            if layer.blobs or name not in self._by_name:
                self._by_name[name] = layer
        self.params = OrderedDict((k, v.blobs) for k, v in self._by_name.items() if v.blobs)
        self.inputs = [self._blob_names[i] for i in self._inputs]
        self.outputs = [self._blob_names[i] for i in self._outputs]
        self.top_names = OrderedDict(zip(names, map(self._names, self._top_id_vecs), strict=True))
        self.bottom_names = OrderedDict(
            zip(names, map(self._names, self._bottom_id_vecs), strict=True)
        )

    def _names(self, ids: Sequence[int]) -> list[str]:
        return [self._blob_names[i] for i in ids]

    def _bottom_ids(self, layer: int) -> list[int]:
        """The numbers of a layer's bottoms among all blobs (pycaffe)."""
        return self._bottom_id_vecs[layer]

    def _top_ids(self, layer: int) -> list[int]:
        return self._top_id_vecs[layer]

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
        first, last = self._range(start, end, 0, len(self._layers) - 1)
        wanted = {*(self.outputs if end is None else self.top_names[end]), *(blobs or [])}
        self._check_names(wanted)
        if inputs:
            self._fill(inputs, self.inputs, "input", "data")
        self._forward(first, last)
        return {name: self.blobs[name].data for name in wanted}

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
        first, last = self._range(start, end, len(self._layers) - 1, 0)
        wanted = {*(self.inputs if end is None else self.bottom_names[end]), *(diffs or [])}
        self._check_names(wanted)
        if self._planned is not None and not self._planned.train:
            raise CaffeError(
                f"net {self.name!r}: in TEST nothing is kept for gradients unless it is observed"
            )
        if top_diffs:
            self._fill(top_diffs, self.outputs, "output", "diff")
        self._backward(first, last)
        return {name: self.blobs[name].diff for name in wanted}

    def _forward(self, start: int, end: int) -> float:
        """Run layers start .. end; returns the loss: the weighted sum of all loss tops."""
        losses = self._run_forward(start, end)
        return float(sum(losses)) if losses else 0.0

    def _run_forward(self, start: int, end: int) -> list[torch.Tensor]:
        self._planned = self._plan_for(start, end)
        if self._planned is not None:
            return self._planned.forward()
        if start > 0 and not self._record:  # a pass made of pieces cannot be repeated later
            self._start_recording()
        self._ran_to = end
        losses = []
        for i in range(start, end + 1):
            self._call("before_forward", i)
            losses += self._forward_layer(i)
            if self.debug_info:
                self._forward_debug(i)
            self._call("after_forward", i)
        return losses

    def _plan_for(self, start: int, end: int) -> Plan | None:
        """The plan that may stand for this pass, if nobody can tell the difference."""
        whole = start == 0 and end == len(self._layers) - 1
        watched = self.observed or self.debug_info or any(self._callbacks.values())
        if watched or not whole:
            return None
        if self._plan is not None and not self._plan.is_current():
            self._plan = None
        if self._plan is None and can_plan(self):
            self._plan = Plan(self, train=self.phase == pb.TRAIN)
        return self._plan

    @property
    def waited(self) -> float:
        """Seconds that passes waited for layers which read ahead, so far."""
        return sum(getattr(layer, "waited", 0.0) for layer in self._layers)

    @property
    def plan(self) -> Plan | None:
        """The plan that whole passes follow; None where they go layer by layer."""
        return self._plan_for(0, len(self._layers) - 1)

    def _forward_layer(self, i: int) -> list[torch.Tensor]:
        layer = self._layers[i]
        tops = self._tops(i)
        record = self._record and self._layer_need_backward[i]
        layer.forward_blobs(self._bottoms(i), tops, record)
        return [
            weight * top.tensor().sum()
            for top, weight in zip(tops, layer.loss_weights, strict=True)
            if weight
        ]

    def _backward(self, start: int, end: int, keep_graph: bool = True) -> None:
        """Run the gradient of layers start .. end, from the later to the earlier."""
        if self._planned is not None:
            self._planned.backward()
            return
        if not self._record:
            self._start_recording()
        for i in range(start, end - 1, -1):
            self._call("before_backward", i)
            if self._layer_need_backward[i]:
                wants = self._bottom_need_backward[i]
                self._layers[i].backward_blobs(self._tops(i), wants, self._bottoms(i), keep_graph)
                if self.debug_info:
                    self._backward_debug(i)
            if self.gradient_hook is not None:  # layers that share a parameter lie behind its owner
                layer = self._layers[i]
                for k, blob in enumerate(layer.blobs):
                    if not self._params.is_shared(layer, k):
                        self.gradient_hook(blob)
            self._call("after_backward", i)
        if self.debug_info and end == 0:
            self._parameter_debug()

    def _start_recording(self) -> None:
        """Keep what gradients need from now on, and that of the last forward pass: it is run once
        more, beside the blobs.
        """
        self._record = True
        last_change: dict[int, int] = {}  # blob worked on in place -> the last layer to do so
        for i, tops in enumerate(self._top_id_vecs):
            last_change.update((j, i) for j in tops if j in self._bottom_id_vecs[i])
        before: dict[int, torch.Tensor] = {}  # what such blobs held until then
        for i, layer in enumerate(self._layers[: self._ran_to + 1]):
            if layer.source or not self._top_id_vecs[i]:
                continue
            bottoms = self._bottom_id_vecs[i]
            tops = layer.record([before.get(j, self._blobs[j].tensor()) for j in bottoms])
            for j, top in zip(self._top_id_vecs[i], tops, strict=True):
                before.pop(j, None)
                if i < last_change.get(j, -1):
                    before[j] = top

    def set_input_arrays(self, data: np.ndarray, labels: np.ndarray) -> None:
        """Have a net that begins with a MemoryData layer take its batches from these arrays.

        data: float32, samples x channels x height x width; labels: float32, one a sample. They are
        not copied. Raises CaffeError for another first layer, or arrays that do not fit it.
        """
        layer = self._layers[0] if self._layers else None
        if not hasattr(layer, "set_arrays"):
            raise CaffeError(
                "set_input_arrays: the net's first layer must be of type MemoryData"
                + (f", {layer.name!r} is of type {layer.type}" if layer else "")
            )
        layer.set_arrays(data, labels)

    def clear_param_diffs(self) -> None:
        """Set the gradients of all parameters to zero."""
        for param in self._params.learnable:
            param.blob.zero_diff()

    def reshape(self) -> None:
        """Carry new shapes of the input blobs through to all others."""
        for i, layer in enumerate(self._layers):
            layer.forget()
            layer.reshape(self._bottoms(i), self._tops(i))

    def _bottoms(self, i: int) -> list[Blob]:
        return [self._blobs[j] for j in self._bottom_id_vecs[i]]

    def _tops(self, i: int) -> list[Blob]:
        return [self._blobs[j] for j in self._top_id_vecs[i]]

    def _range(self, start: str | None, end: str | None, first: int, last: int) -> tuple[int, int]:
        for name in (start, end):
            if name is not None and name not in self._layer_names:
                raise CaffeError(f"net {self.name!r} has no layer {name!r}")
        return (
            first if start is None else self._layer_names.index(start),
            last if end is None else self._layer_names.index(end),
        )

    def _check_names(self, names: set[str]) -> None:
        for name in names:
            if name not in self.blobs:
                raise CaffeError(f"net {self.name!r} has no blob {name!r}")

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
        """forward() over inputs of any number, batch by batch; returns all outputs joined."""
        outs, _ = self._run_all(inputs, {}, blobs, None)
        return outs

    def forward_backward_all(
        self,
        blobs: Sequence[str] | None = None,
        diffs: Sequence[str] | None = None,
        **arrays: Sequence[np.ndarray],
    ) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """forward() and backward() over inputs (and output gradients) of any number."""
        inputs = {k: v for k, v in arrays.items() if k in self.inputs}
        tops = {k: v for k, v in arrays.items() if k in self.outputs}
        return self._run_all(inputs, tops, blobs, diffs or [])

    def _run_all(
        self,
        inputs: Mapping[str, Sequence[np.ndarray]],
        tops: Mapping[str, Sequence[np.ndarray]],
        blobs: Sequence[str] | None,
        diffs: Sequence[str] | None,
    ) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        counts = {len(v) for v in (*inputs.values(), *tops.values())}
        if len(counts) != 1:
            raise CaffeError(f"arrays of one length were expected, got lengths {sorted(counts)}")
        outs: dict[str, list] = {name: [] for name in {*self.outputs, *(blobs or [])}}
        grads: dict[str, list] = {}
        if diffs is not None:
            grads = {name: [] for name in {*self.inputs, *diffs}}
        back = list(self._batch(tops)) if tops else []
        for k, batch in enumerate(self._batch(inputs)):
            for name, values in self.forward(blobs=blobs, **batch).items():
                outs[name].extend(values.copy())
            if diffs is not None:
                given = back[k] if back else {}
                for name, values in self.backward(diffs=diffs, **given).items():
                    grads[name].extend(values.copy())
        count = counts.pop()
        joined = ({k: np.asarray(v)[:count] for k, v in d.items()} for d in (outs, grads))
        return next(joined), next(joined)

    def _batch(self, arrays: Mapping[str, Sequence[np.ndarray]]) -> Iterator[dict[str, np.ndarray]]:
        """The arrays in pieces of the net's batch size, the last one filled up with zeros."""
        size = next(iter(self.blobs.values())).shape[0]
        for k in range(0, len(next(iter(arrays.values()))), size):
            batch = {}
            for name, values in arrays.items():
                piece = np.asarray(values[k : k + size])
                missing = size - len(piece)
                batch[name] = np.concatenate([piece, np.zeros((missing, *piece.shape[1:]))])
            yield batch

    # -- weights --------------------------------------------------------------------------------

    def copy_from(self, weights_file: str | os.PathLike[str]) -> None:
        """Take over the weights of the layers that the file has by the same name.

        Binary (.caffemodel of any age) or HDF5. Layers that the file lacks keep theirs. Nothing
        is changed if a shape does not fit (CaffeError with layer, blob and both shapes).
        """
        path = os.fspath(weights_file)
        weights = files.read_weights(path, emit)
        whole = weights.net is not None  # HDF5 leaves out what a layer shares with an earlier one
        copies: list[tuple[Blob, np.ndarray]] = []
        for name, arrays in weights.items():
            if name not in self._by_name:
                line = 746 if whole else 801
                announce(f"net.cpp:{line}", f"Ignoring source layer {name}")
                continue
            copies += self._match(self._by_name[name], arrays, path, whole)
        for blob, array in copies:
            blob.tensor().copy_(torch.from_numpy(np.ascontiguousarray(array)).view(blob.shape))

    load_hdf5 = copy_from

    def _match(
        self, layer: Layer, arrays: Sequence[np.ndarray | None], path: str, whole: bool
    ) -> list[tuple[Blob, np.ndarray]]:
        where = f"{path}: layer {layer.name!r}"
        blobs = layer.blobs
        if (len(arrays) != len(blobs)) if whole else (len(arrays) > len(blobs)):
            raise CaffeError(
                f"{where}: the file has {len(arrays)} parameter blob(s), the net {len(blobs)}"
            )
        pairs = []
        for i, blob in enumerate(blobs):
            array = arrays[i] if i < len(arrays) else None
            if array is None:
                if self._params.is_shared(layer, i):
                    continue
                raise CaffeError(f"{where}: the file has no parameter blob {i}")
            legacy = (1,) * (4 - len(blob.shape)) + blob.shape
            if array.shape not in (blob.shape, legacy):
                raise CaffeError(
                    f"{where}, parameter blob {i}: shape mismatch: the file has "
                    f"{shape_string(array.shape)}, the net {shape_string(blob.shape)}; to learn "
                    "this layer from scratch, rename it"
                )
            pairs.append((blob, array))
        return pairs

    def share_with(self, other: Net) -> None:
        """Use the other net's weights, as one memory, in the layers of the same name."""
        self._plan = None  # what it made of the weights is out of date
        for source in other._layers:
            target = self._by_name.get(source.name)
            if target is None:
                announce("net.cpp:678", f"Ignoring source layer {source.name}")
                continue
            if len(target.blobs) != len(source.blobs):
                raise CaffeError(
                    f"layer {source.name!r}: cannot share {len(source.blobs)} parameter blob(s) "
                    f"with {len(target.blobs)}"
                )
            for i, (mine, theirs) in enumerate(zip(target.blobs, source.blobs, strict=True)):
                if mine.shape != theirs.shape:
                    raise CaffeError(
                        f"layer {source.name!r}, parameter blob {i}: cannot share "
                        f"{shape_string(theirs.shape)} with {shape_string(mine.shape)}"
                    )
                mine.share_data(theirs)

    def to_proto(self) -> pb.NetParameter:
        """The net's structure as it runs (Split layers included), without weights."""
        param = pb.NetParameter(name=self.name)
        for layer in self._layers:
            param.layer.add().CopyFrom(layer.to_proto())
        return param

    def save(self, path: str | os.PathLike[str], write_diff: bool = False) -> None:
        """Write a .caffemodel: structure and weights (and their gradients)."""
        data = {name: [b.data for b in layer.blobs] for name, layer in self._by_name.items()}
        files.write_weights(path, self.to_proto(), data, self._diffs() if write_diff else None)

    def save_hdf5(self, path: str | os.PathLike[str], write_diff: bool = False) -> None:
        """Write the weights (and their gradients) as HDF5; shared ones once, as Caffe does."""
        data = {
            name: [
                None if self._params.is_shared(layer, i) else b.data
                for i, b in enumerate(layer.blobs)
            ]
            for name, layer in self._by_name.items()
        }
        files.write_weights_hdf5(path, data, self._diffs() if write_diff else None)

    def _diffs(self) -> dict[str, list[np.ndarray]]:
        return {name: [b.diff for b in layer.blobs] for name, layer in self._by_name.items()}

    @property
    def learnable(self) -> list[Parameter]:
        """The parameters that a solver updates, each once, however many layers share it."""
        return self._params.learnable

    # -- callbacks and debug --------------------------------------------------------------------

    def before_forward(self, function: Callback) -> None:
        """Call `function` with the layer's index before each layer's forward pass."""
        self._callbacks["before_forward"].append(function)

    def after_forward(self, function: Callback) -> None:
        self._callbacks["after_forward"].append(function)

    def before_backward(self, function: Callback) -> None:
        self._callbacks["before_backward"].append(function)

    def after_backward(self, function: Callback) -> None:
        self._callbacks["after_backward"].append(function)

    def _call(self, when: str, i: int) -> None:
        for function in self._callbacks[when]:
            function(i)

    def _forward_debug(self, i: int) -> None:
        name = self._layer_names[i]
        for j in self._top_id_vecs[i]:
            mean = number(_mean_abs(self._blobs[j].tensor()))
            blob = self._blob_names[j]
            announce("net.cpp:593", f"    [Forward] Layer {name}, top blob {blob} data: {mean}")
        for k, blob in enumerate(self._layers[i].blobs):
            mean = number(_mean_abs(blob.tensor()))
            shown = self._params.display_name(self._layers[i], k)
            announce("net.cpp:605", f"    [Forward] Layer {name}, param blob {shown} data: {mean}")

    def _backward_debug(self, i: int) -> None:
        name, layer = self._layer_names[i], self._layers[i]
        wants = self._bottom_need_backward[i]
        for j, want in zip(self._bottom_id_vecs[i], wants, strict=True):
            if want:
                mean = number(_mean_abs(self._blobs[j].diff_tensor()))
                blob = self._blob_names[j]
                text = f"    [Backward] Layer {name}, bottom blob {blob} diff: {mean}"
                announce("net.cpp:621", text)
        for k, blob in enumerate(layer.blobs):
            if layer.param_propagate_down[k]:
                mean = number(_mean_abs(blob.diff_tensor()))
                announce("net.cpp:632", f"    [Backward] Layer {name}, param blob {k} diff: {mean}")

    def _parameter_debug(self) -> None:
        data = [p.blob.tensor() for p in self.learnable]
        diff = [p.blob.diff_tensor() for p in self.learnable]
        l1 = [number(sum(float(t.abs().sum()) for t in ts)) for ts in (data, diff)]
        l2 = [number(sum(float(t.square().sum()) for t in ts) ** 0.5) for ts in (data, diff)]
        text = f"L1 norm = ({', '.join(l1)}); L2 norm = ({', '.join(l2)})"
        announce("net.cpp:721", f"    [Backward] All net params (data, diff): {text}", ERROR)


def _mean_abs(values: torch.Tensor) -> float:
    return float(values.abs().mean()) if values.numel() else 0.0


def _warn_old_form(network_file: Any, weights: Any, rest: Sequence[Any]) -> None:
    phase = rest[0] if rest else "phase"
    for line, text in (
        (139, "DEPRECATION WARNING - deprecated use of Python interface"),
        (140, 'Use this instead (with the named "weights" parameter):'),
        (142, f"Net('{network_file}', {phase}, weights='{weights}')"),
    ):
        emit(f"_caffe.cpp:{line}", text, WARNING)
