"""The log lines of debug_info: mean magnitudes of blobs, gradients and parameters (net.cpp)."""

from __future__ import annotations

import torch

from caffe.graph.wiring import Wiring
from caffe.process.log import ERROR, number
from caffe.process.ranks import announce


def show_forward(wiring: Wiring, i: int) -> None:
    """Log the tops and parameters of layer i after its forward pass."""
    name, layer = wiring.layer_names[i], wiring.layers[i]
    for j in wiring.tops[i]:
        mean = number(_mean_abs(wiring.blobs[j].tensor()))
        blob = wiring.blob_names[j]
        announce("net.cpp:593", f"    [Forward] Layer {name}, top blob {blob} data: {mean}")
    for k, blob in enumerate(layer.blobs):
        mean = number(_mean_abs(blob.tensor()))
        shown = wiring.parameters.display_name(layer, k)
        announce("net.cpp:605", f"    [Forward] Layer {name}, param blob {shown} data: {mean}")


def show_backward(wiring: Wiring, i: int) -> None:
    """Log the gradients of layer i's bottoms and parameters after its backward pass."""
    name, layer = wiring.layer_names[i], wiring.layers[i]
    for j, want in zip(wiring.bottoms[i], wiring.wants[i], strict=True):
        if want:
            mean = number(_mean_abs(wiring.blobs[j].diff_tensor()))
            text = f"    [Backward] Layer {name}, bottom blob {wiring.blob_names[j]} diff: {mean}"
            announce("net.cpp:621", text)
    for k, blob in enumerate(layer.blobs):
        if layer.param_propagate_down[k]:
            mean = number(_mean_abs(blob.diff_tensor()))
            announce("net.cpp:632", f"    [Backward] Layer {name}, param blob {k} diff: {mean}")


def show_parameters(wiring: Wiring) -> None:
    """Log the norms of all parameters and of their gradients."""
    data = [p.blob.tensor() for p in wiring.learnable]
    diff = [p.blob.diff_tensor() for p in wiring.learnable]
    l1 = [number(sum(float(t.abs().sum()) for t in ts)) for ts in (data, diff)]
    l2 = [number(sum(float(t.square().sum()) for t in ts) ** 0.5) for ts in (data, diff)]
    text = f"L1 norm = ({', '.join(l1)}); L2 norm = ({', '.join(l2)})"
    announce("net.cpp:721", f"    [Backward] All net params (data, diff): {text}", ERROR)


def _mean_abs(values: torch.Tensor) -> float:
    return float(values.abs().mean()) if values.numel() else 0.0
