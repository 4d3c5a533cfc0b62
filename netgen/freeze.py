"""Frozen layers: parts of a net that keep, in training, what they have learned before."""

from __future__ import annotations

import difflib
import fnmatch
import re
from collections.abc import Collection, Mapping, Sequence

from caffe.errors import CaffeError
from caffe.proto.caffe_pb2 import LayerParameter, NetParameter, ParamSpec


def freeze(net: NetParameter, what: Sequence[str], branches: Mapping[str, Collection[str]]) -> None:
    """Freeze layers of a net for training.

    Learning rates and decays of their parameters become 0. BatchNorm normalises by the statistics
    that it has, which then stay, and Dropout drops nothing: what is frozen gives in TRAIN what it
    gives in TEST.

    what: names of branches, or patterns of layers' names as fnmatch's ("conv[12]_*"). branches: the
    names of each branch's layers.

    Raises CaffeError for a branch that the net lacks, for a pattern that matches no layer with
    parameters, and if nothing is left to learn.
    """
    layers = {layer.name: layer for layer in net.layer}
    able = [name for name, layer in layers.items() if _params(layer)]
    chosen: set[str] = set()
    for pattern in what:
        found = set(branches.get(pattern) or fnmatch.filter(layers, pattern))
        if found.isdisjoint(able):
            raise CaffeError(f"--freeze {pattern}: {_why(pattern, branches, found, able)}")
        chosen |= found
    for name in chosen & layers.keys():
        _freeze(layers[name])
    if not any(spec.lr_mult for layer in layers.values() for spec in _params(layer)):
        raise CaffeError(f"--freeze {','.join(what)}: nothing is left to learn")


def _params(layer: LayerParameter) -> Sequence[ParamSpec]:
    """A ParamSpec for each of a layer's parameters: netgen states those of all types but Scale."""
    if layer.type == "Scale" and not layer.param:
        return [ParamSpec()] * (1 + layer.scale_param.bias_term)
    return layer.param


def _freeze(layer: LayerParameter) -> None:
    specs = [ParamSpec(lr_mult=0, decay_mult=0) for _ in _params(layer)]
    del layer.param[:]
    layer.param.extend(specs)
    if layer.type == "BatchNorm":
        layer.batch_norm_param.use_global_stats = True
    elif layer.type == "Dropout":
        layer.dropout_param.dropout_ratio = 0


def _why(
    pattern: str,
    branches: Mapping[str, Collection[str]],
    found: Collection[str],
    able: Sequence[str],
) -> str:
    known = ", ".join(name for name, has in branches.items() if has)
    if pattern in branches:
        return f"the net has no such branch; expected {known} or layers' names"
    if found:
        return f"of {', '.join(sorted(found)[:3])}, nothing is learned"
    plain = re.sub(r"\[.*?\]|[*?]", "", pattern)
    near = difflib.get_close_matches(plain, [*branches, *able], n=4, cutoff=0.5)
    if near:
        return f"no layer has such a name; did you mean one of {', '.join(near)}?"
    return f"no layer has such a name; expected {known} or layers' names"
