"""Wiring: which layers a net has, and how blobs and parameters connect them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from caffe.blob import Blob, shape_string
from caffe.errors import CaffeError
from caffe.formats.forks import without_effect
from caffe.formats.unknown import check_types
from caffe.graph.alignment import Alignment
from caffe.graph.parameters import Parameter, Parameters
from caffe.graph.rules import second_maker, unknown_bottom
from caffe.graph.sizes import explain
from caffe.graph.sketch import follow
from caffe.layers import Layer, create_layer
from caffe.process import memory
from caffe.process.device import current_device
from caffe.process.log import WARNING, number
from caffe.process.ranks import announce
from caffe.proto import caffe_pb2 as pb


class Wiring:
    """A net's layers, attached to blobs, before any memory is taken (net.cpp's Init).

    It is made from a NetParameter whose rules are applied and whose Split layers are inserted
    (caffe/graph/rules.py), and logs Caffe's lines on the way. Nothing changes the connections
    afterwards.

    layers, layer_names: in the order in which they run. blobs, blob_names: in the order in which
    they are made. bottoms, tops: for each layer the numbers of its blobs. inputs, outputs: numbers
    of blobs (outputs in alphabetical order). loss_weights: of each blob. needs_backward: whether a
    layer's backward pass runs. wants: for each layer, which bottoms get a gradient. parameters:
    the blobs that learn. by_name: layers by name; where several share a name, the one that has
    parameters.

    Raises CaffeError for a net that cannot be built; the message names the layer.
    """

    def __init__(self, param: pb.NetParameter) -> None:
        self.name = param.name
        self.phase = param.state.phase
        self._param = param
        self.layers: list[Layer] = []
        self.layer_names: list[str] = []
        self.blobs: list[Blob] = []
        self.blob_names: list[str] = []
        self.bottoms: list[list[int]] = []
        self.tops: list[list[int]] = []
        self.inputs: list[int] = []
        self.loss_weights: list[float] = []
        self.needs_backward: list[bool] = []
        self.wants: list[list[bool]] = []
        self.parameters = Parameters()
        self._index: dict[str, int] = {}
        self._available: set[str] = set()  # blobs that no layer has taken so far
        self._blob_needs: list[bool] = []  # whether the layers before a blob need its gradient
        self._memory = 0
        self._unused: dict[tuple[str, str, str], list[str]] = {}
        self._alignment = Alignment(self)
        self._makers: dict[int, tuple[Layer, int]] = {}  # of a blob: a layer, and which of its tops
        check_types(param)
        for layer in param.layer:
            self._add(layer)
        self._warn_of_unused(param)
        self._find_backward_layers()
        if param.force_backward:
            self._force_backward()
        for layer, wants in zip(self.layers, self.wants, strict=True):
            layer.bottom_need_backward = list(wants)
        for name in sorted(self._available):
            announce("net.cpp:244", f"This network produces output {name}")
        self.outputs = [self._index[name] for name in sorted(self._available)]
        self._check_pairs()
        self._alignment.tell()
        self.by_name: dict[str, Layer] = {}
        for name, layer in zip(self.layer_names, self.layers, strict=True):
            if layer.blobs or name not in self.by_name:
                self.by_name[name] = layer

    # -- reading --------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.layers)

    def __iter__(self) -> Iterator[tuple[Layer, list[int], list[int]]]:
        """(layer, numbers of its bottoms, numbers of its tops), in order."""
        return zip(self.layers, self.bottoms, self.tops, strict=True)

    def bottom_blobs(self, i: int) -> list[Blob]:
        """The bottoms of layer i."""
        return [self.blobs[j] for j in self.bottoms[i]]

    def top_blobs(self, i: int) -> list[Blob]:
        """The tops of layer i."""
        return [self.blobs[j] for j in self.tops[i]]

    def names(self, numbers: Sequence[int]) -> list[str]:
        """The names of these blobs."""
        return [self.blob_names[j] for j in numbers]

    def check_blobs(self, names: set[str]) -> None:
        """Raise CaffeError unless the net has blobs of all these names."""
        for name in names:
            if name not in self._index:
                raise CaffeError(f"net {self.name!r} has no blob {name!r}")

    def needed_for(self, outputs: Sequence[str]) -> list[tuple[int, set[str]]]:
        """The layers that these blobs depend on, in order: (index, names of the tops needed).

        Raises CaffeError for a blob that the net lacks.
        """
        self.check_blobs(set(outputs))
        wanted, found = set(outputs), []
        for i in reversed(range(len(self))):
            tops = set(self.names(self.tops[i]))
            if tops & wanted:
                found.append((i, tops & wanted))
                wanted = (wanted - tops) | set(self.names(self.bottoms[i]))
        return found[::-1]

    def overwrites_a_source(self) -> bool:
        """Whether a layer overwrites a source's top, which then cannot be recomputed."""
        sources = {i for layer, _, tops in self if layer.source for i in tops}
        return any(i in sources and i in tops for _, bottoms, tops in self for i in bottoms)

    @contextmanager
    def _named_sizes(self) -> Iterator[None]:
        """Within, an error that comes of records of another size than the net's tells both."""
        try:
            yield
        except CaffeError as error:
            net, phase = self._param, self.phase
            shapes = {
                name: blob.shape for name, blob in zip(self.blob_names, self.blobs, strict=True)
            }
            explain(error, net.layer, shapes, lambda tops: follow(net, phase, tops))
            raise

    # -- building -------------------------------------------------------------------------------

    def _add(self, param: pb.LayerParameter) -> None:
        if not param.HasField("phase"):
            param.phase = self.phase
        if param.propagate_down and len(param.propagate_down) != len(param.bottom):
            raise CaffeError(
                f"layer {param.name!r}: propagate_down must be given never or once for each of "
                f"{len(param.bottom)} bottom(s)"
            )
        announce("layer_factory.hpp:77", f"Creating layer {param.name}")
        layer = create_layer(param)
        self._note_unused(layer)
        self.layers.append(layer)
        self.layer_names.append(param.name)
        announce("net.cpp:86", f"Creating Layer {param.name}")
        rates = [spec.lr_mult for spec in param.param]
        wants = self._connect_bottoms(param)
        self._connect_tops(param, layer)
        tops = self.tops[-1]
        self._alignment.place(len(self.layers) - 1)
        self._introduce(layer)
        with self._named_sizes():
            layer.attach(self.bottom_blobs(-1), self.top_blobs(-1))
        announce("net.cpp:124", f"Setting up {param.name}")
        for i, weight in zip(tops, layer.loss_weights, strict=True):
            self.loss_weights[i] = weight
            announce("net.cpp:131", f"Top shape: {shape_string(self.blobs[i].shape)}")
            if weight:
                announce("net.cpp:134", f"    with loss weight {number(weight)}")
            self._memory += self.blobs[i].count
        announce("net.cpp:139", f"Memory required for data: {self._memory * 4}")
        needs = any(self._blob_needs[i] for i in self.bottoms[-1])
        needs |= self.parameters.add(layer, rates)
        self.needs_backward.append(needs)
        for i in tops:
            self._blob_needs[i] |= needs
        self.wants.append(wants)

    def _introduce(self, layer: Layer) -> None:
        """Tell the newest layer who made its bottoms; a Split's tops are its bottom's maker's."""
        bottoms, tops = self.bottoms[-1], self.tops[-1]
        for j, blob in enumerate(bottoms):
            layer.meet(j, *self._makers[blob])
        for j, blob in enumerate(tops):
            passed_on = layer.type == "Split" and bottoms
            self._makers[blob] = self._makers[bottoms[0]] if passed_on else (layer, j)

    def _note_unused(self, layer: Layer) -> None:
        """Keep which fields of forks the layer sets and does not use."""
        for field, fork in without_effect(layer.layer_param, layer.reads, layer.takes):
            self._unused.setdefault((layer.type, field, fork), []).append(layer.name)

    def _warn_of_unused(self, param: pb.NetParameter) -> None:
        """One line for each field of a fork that has no effect here."""
        for field, fork in without_effect(param, (), ()):
            announce("net.cpp:52", f"{field} ({fork}) of the net has no effect here", WARNING)
        for (kind, field, fork), names in self._unused.items():
            more = f" and {len(names) - 1} more layers" if len(names) > 1 else ""
            announce(
                "layer_factory.hpp:77",
                f"{field} ({fork}) has no effect in type {kind} here: layer {names[0]!r}{more}",
                WARNING,
            )

    def _connect_bottoms(self, param: pb.LayerParameter) -> list[bool]:
        """Connect a layer's bottoms; returns which of them are to get a gradient."""
        numbers, wants = [], []
        for j, name in enumerate(param.bottom):
            if name not in self._available:
                raise unknown_bottom(param, j)
            announce("net.cpp:408", f"{param.name} <- {name}")
            numbers.append(self._index[name])
            self._available.remove(name)
            given = param.propagate_down
            wants.append(given[j] if given else self._blob_needs[numbers[-1]])
        self.bottoms.append(numbers)
        return wants

    def _connect_tops(self, param: pb.LayerParameter, layer: Layer) -> None:
        numbers = []
        for j, name in enumerate(param.top):
            if j < len(param.bottom) and param.bottom[j] == name:
                announce("net.cpp:369", f"{param.name} -> {name} (in-place)")
                numbers.append(self._index[name])
            elif name in self._index:
                raise second_maker(param, j)
            else:
                announce("net.cpp:382", f"{param.name} -> {name}")
                self._index[name] = self._new_blob(name)
                numbers.append(self._index[name])
                if layer.is_input:
                    self.inputs.append(numbers[-1])
            self._available.add(name)
        if layer.auto_tops:
            while len(numbers) < layer.tops[0]:
                announce("net.cpp:382", f"{param.name} -> (automatic)")
                numbers.append(self._new_blob("(automatic)"))
        self.tops.append(numbers)

    def _new_blob(self, name: str) -> int:
        self.blobs.append(Blob())
        self.blob_names.append(name)
        self.loss_weights.append(0.0)
        self._blob_needs.append(False)
        return len(self.blobs) - 1

    def _find_backward_layers(self) -> None:
        """Find, from the last layer to the first, which ones contribute to a loss."""
        under_loss: set[int] = set()
        skipped: set[int] = set()
        for i in reversed(range(len(self))):
            tops, wants = self.tops[i], self.wants[i]
            counts = any(
                weight or top in under_loss
                for top, weight in zip(tops, self.layers[i].loss_weights, strict=True)
            )
            all_skipped = self.needs_backward[i] and all(top in skipped for top in tops)
            if all_skipped or not counts:
                self.needs_backward[i] = False
                wants[:] = [False] * len(wants)
            name = self.layer_names[i]
            if self.needs_backward[i]:
                announce("net.cpp:200", f"{name} needs backward computation.")
            else:
                announce("net.cpp:202", f"{name} does not need backward computation.")
            for bottom, want in zip(self.bottoms[i], wants, strict=True):
                if counts:
                    under_loss.add(bottom)
                if not want:
                    skipped.add(bottom)

    def _force_backward(self) -> None:
        for i, layer in enumerate(self.layers):
            self.needs_backward[i] = True
            wants = self.wants[i]
            wants[:] = [w or layer.allow_force_backward(j) for j, w in enumerate(wants)]
            layer.param_propagate_down = [True] * len(layer.blobs)

    def _check_pairs(self) -> None:
        """Warn if layers shuffle sources of different lengths, whose records cannot pair."""
        shuffled = [layer for layer in self.layers if layer.shuffled]
        if len({layer.shuffled for layer in shuffled}) > 1:
            found = ", ".join(f"{layer.name!r} {layer.shuffled}" for layer in shuffled)
            announce(
                "wiring.py:1",
                f"Layers that shuffle read sources of different lengths ({found} records): their "
                "records do not pair",
                WARNING,
            )

    # -- parameters -----------------------------------------------------------------------------

    def check_memory(self, kept: bool = False) -> None:
        """Raise CaffeError, naming a layer, unless there is memory for a pass.

        That is at least the parameters of all layers, and bottoms and tops of one layer at a time;
        if the tops are kept, of all layers. On a GPU, which holds the blobs, the parameters count.
        """
        earlier = parameters = 0
        left, host = memory.left(), current_device().type == "cpu"
        for layer, bottoms, tops in self:
            parameters += sum(
                blob.count
                for k, blob in enumerate(layer.blobs)
                if not self.parameters.is_shared(layer, k)
            )
            new = set() if layer.shares_memory else {*tops} - {*bottoms}
            own = new if kept else new | {*bottoms}
            values = sum(self.blobs[j].count for j in own)
            values = values + layer.scratch([self.blobs[j].shape for j in bottoms]) if host else 0
            need = 4.0 * (earlier + parameters + values)
            if need > left:
                raise CaffeError(
                    f"{layer.where} ({layer.type}): the net needs {memory.size(need)} of memory up "
                    f"to here, of which {memory.size(4.0 * parameters)} are parameters and "
                    f"{memory.size(4.0 * values)} this layer's blobs; "
                    f"{memory.size(max(left, 0))} are left"
                )
            if kept and host:
                earlier += sum(self.blobs[j].count for j in new)

    def fill_parameters(self) -> None:
        """Allocate and fill the parameters, then let layers that share one use the same memory."""
        for layer in self.layers:
            layer.fill_blobs()
        self.parameters.share()

    @property
    def learnable(self) -> list[Parameter]:
        """The parameters that a solver updates, each once, however many layers share it."""
        return self.parameters.learnable

    def to_proto(self) -> pb.NetParameter:
        """The structure as it runs (Split layers included), without weights."""
        param = pb.NetParameter(name=self.name)
        for layer in self.layers:
            param.layer.add().CopyFrom(layer.to_proto())
        return param
