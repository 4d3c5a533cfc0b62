"""Conditions on nodes that several rewrites share."""

from __future__ import annotations

from caffe.layers.activation import ReLU
from caffe.layers.common import Eltwise
from caffe.layers.normalization import Scale
from caffe.plan.ir import Node, Program


def scales_channels(node: Node | None) -> bool:
    """Whether this is a Scale with one learned gain (and bias) per channel."""
    if node is None or not node.is_a(Scale) or len(node.bottom) != 1:
        return False
    p = node.layer.layer_param.scale_param
    return p.axis == 1 and p.num_axes == 1 and not node.layer.limited


def plain_relu(node: Node | None) -> bool:
    """Whether this is a ReLU without a slope."""
    if node is None or not node.is_a(ReLU) or len(node.top) != 1:
        return False
    return not node.layer.layer_param.relu_param.negative_slope


def plain_sum(node: Node | None) -> bool:
    """Whether this adds two blobs as they are."""
    if node is None or not node.is_a(Eltwise) or len(node.bottom) != 2:
        return False
    p = node.layer.layer_param.eltwise_param
    return p.operation == p.SUM and all(c == 1 for c in p.coeff)


def image_misfit(node: Node) -> str:
    """Why a (de)convolution's bottom is not samples x channels x height x width; empty if it is."""
    layer = node.layer
    if len(node.bottom) != 1:
        return "has several bottoms"
    if layer.channel_axis != 1 or layer.spatial != 2:
        return "convolves another number of axes than two behind axis 1"
    return ""


def memory_misfit(program: Program, value: int) -> str:
    """Why the node that takes a value must not overwrite it; empty if it may."""
    maker = program.maker(value)
    if maker is None or not any(layer.fresh for layer in maker.layers):
        return "has a bottom whose memory may belong to others"
    if program.takers()[value] != 1:
        return "has a bottom that others take, too"
    return ""
