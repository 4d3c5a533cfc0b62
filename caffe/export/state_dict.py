"""A net's weights to and from a PyTorch state dict; modules and layers are matched by name."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

import torch

from boundary import checkpoint
from boundary.reading import read_lines
from caffe.errors import CaffeError
from caffe.layers.base import Layer
from caffe.net import Net, weights

State = Mapping[str, torch.Tensor]


def state_dict(net: Net) -> dict[str, torch.Tensor]:
    """Copies of a net's weights under to_module's keys: LAYER.0, LAYER.1, ..."""
    return {
        f"{name.replace('.', '_')}.{i}": torch.from_numpy(blob.data.copy())
        for name, blobs in net.params.items()
        for i, blob in enumerate(blobs)
    }


def read_state_dict(path: str | os.PathLike[str]) -> dict[str, torch.Tensor]:
    """The state dict in a .pt or .pth file, or in a checkpoint that holds one.

    Nothing in the file is executed. Raises CaffeError if it cannot be read or holds no tensors.
    """
    return checkpoint.read_state_dict(path, CaffeError)


def load_state_dict(
    net: Net, state: State, names: Mapping[str, str] | None = None, partial: bool = False
) -> list[str]:
    """Give a net the weights of a PyTorch module; returns the keys that match no parameter.

    A key is MODULE.PARAMETER. The module's weights go to the layer of the same name, where '.', '/'
    and '_' count as equal and a prefix that all keys share is ignored; `names` maps other modules
    to their layers. PARAMETER is 0, 1, ... as in to_module's keys, or `weight` and `bias`. A
    BatchNorm's running_mean and running_var become the layer's statistics; its weight and bias go
    to the Scale layer behind it.

    partial: accept layers that the state dict lacks, which keep their weights, and keys without a
    layer, which are ignored. Raises CaffeError, changing nothing, for a shape that does not fit
    and, unless partial, for parameters or keys that are left over.
    """
    match = _Match(net, names or {}, state)
    for key, values in state.items():
        match.place(key, values)
    if not partial:
        match.check_complete()
    for (name, index), values in match.found.items():
        net.params[name][index].data[...] = values
    return match.left


class _Match:
    """Matches the keys of a state dict with a net's parameters."""

    def __init__(self, net: Net, names: Mapping[str, str], state: State) -> None:
        self.net, self.names = net, names
        self.layers = {
            _plain(name): layer for name, layer in net.wiring.by_name.items() if layer.blobs
        }
        self.found: dict[tuple[str, int], torch.Tensor] = {}
        self.left: list[str] = []
        self.prefix = self._common_prefix(state)
        for module, layer in names.items():
            if layer not in net.params:
                raise CaffeError(f"module {module!r}: the net has no layer {layer!r} with weights")

    def _common_prefix(self, state: State) -> str:
        """The prefix of all keys, as DataParallel's 'module.', up to a name that is a layer's."""
        prefix = ""
        while True:
            rest = [key.removeprefix(prefix) for key in state]
            first = {key.split(".")[0] for key in rest}
            if len(first) != 1 or not all("." in key for key in rest):
                return prefix
            name = first.pop()
            if _plain(name) in self.layers:
                return prefix
            prefix += f"{name}."

    def place(self, key: str, values: torch.Tensor) -> None:
        module, _, leaf = key.rpartition(".")
        if leaf == "num_batches_tracked":
            return
        layer = self._layer(module)
        target = None if layer is None else self._parameter(layer, leaf)
        if target is None:
            self.left.append(key)
            return
        layer, index = target
        self.found[layer.name, index] = self._fitted(key, values, layer, index)
        for other, value in layer.torch_defaults.items():
            self.found.setdefault((layer.name, other), torch.full((1,), value))

    def _layer(self, module: str) -> Layer | None:
        """The layer of a module; '.' in the table of names is the module whose keys have none."""
        parts = module.split(".") if module else []
        tails = [".".join(parts[i:]) for i in range(min(self.prefix.count("."), len(parts)) + 1)]
        name = next((self.names[t or "."] for t in tails if (t or ".") in self.names), tails[-1])
        exact = self.net.wiring.by_name.get(name)
        return exact if exact and exact.blobs else self.layers.get(_plain(name))

    def _parameter(self, layer: Layer, leaf: str) -> tuple[Layer, int] | None:
        if leaf.isdecimal():
            index = int(leaf)
        else:
            if layer.torch_affine and leaf not in layer.torch_names:
                layer = self._affine_behind(layer)
            index = layer.torch_names.get(leaf, -1) if layer else -1
        return (layer, index) if layer and 0 <= index < len(layer.blobs) else None

    def _affine_behind(self, layer: Layer) -> Layer | None:
        """The layer that takes the top and holds PyTorch's weight and bias: a BatchNorm's Scale."""
        wiring = self.net.wiring
        i = wiring.layers.index(layer)
        tops = wiring.names(wiring.tops[i])
        for other, bottoms, _ in list(wiring)[i + 1 :]:
            if other.type == layer.torch_affine and wiring.names(bottoms[:1]) == tops:
                return other
        return None

    def _fitted(self, key: str, values: torch.Tensor, layer: Layer, index: int) -> torch.Tensor:
        """The values in the parameter's shape; CaffeError if more than axes of one differ."""
        shape = layer.blobs[index].shape
        values = layer.from_torch(index, values.detach())
        ours, theirs = ([n for n in dims if n != 1] for dims in (shape, values.shape))
        if ours != theirs:
            raise CaffeError(
                f"{key}: shape {tuple(values.shape)}, but layer {layer.name!r} has {shape} "
                f"in its parameter {index}"
            )
        return values.float().reshape(shape)

    def check_complete(self) -> None:
        bare = any("." not in key for key in self.left)
        hint = "; a line '. LAYER' in --names says whose a key without a module is" if bare else ""
        weights.check_complete(self.net.wiring, set(self.found), "state dict", self.left, hint)


def _plain(name: str) -> str:
    return re.sub(r"[./]", "_", name)


def read_names(path: str | os.PathLike[str]) -> dict[str, str]:
    """Read a table from modules to layers: 'MODULE LAYER' on each line; '#' begins a comment.

    The module '.' is the one whose own state dict it is: its keys are `weight` and `bias` alone.

    Raises CaffeError for a line that holds anything else.
    """
    names = {}
    for number, line in enumerate(read_lines(path, CaffeError), 1):
        words = line.partition("#")[0].split()
        if words and len(words) != 2:
            raise CaffeError(f"{path}:{number}: expected a module and a layer, got {line!r}")
        if words:
            names[words[0]] = words[1]
    return names
