"""Pieces of small nets as prototxt text, for tests of nets and plans."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

import caffe
from caffe.plan.plan import Plan

INPUT = 'layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }'
IP = """layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip"
  inner_product_param { num_output: 2 weight_filler { type: "gaussian" } } }"""
LOSS = """layer { name: "sum" type: "Reduction" bottom: "ip" top: "loss" loss_weight: 1
  reduction_param { operation: SUMSQ } }"""

# Each pass draws random numbers, so that weights depend on all draws before.
REGRESSION = """
layer { name: "in" type: "DummyData" top: "x" top: "t"
  dummy_data_param { shape { dim: 2 dim: 3 } shape { dim: 2 dim: 1 }
    data_filler { type: "gaussian" } } }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "y"
  inner_product_param { num_output: 1 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "EuclideanLoss" bottom: "y" bottom: "t" top: "loss" }
"""


def ip(name: str, bottom: str, top: str = "", more: str = "", outputs: int = 2) -> str:
    """An InnerProduct layer's text."""
    return f"""layer {{ name: "{name}" type: "InnerProduct" bottom: "{bottom}" top: "{top or name}"
      inner_product_param {{ num_output: {outputs} weight_filler {{ type: "gaussian" }} }}
      {more} }}"""


CHAIN = INPUT + "".join(
    f"""layer {{ name: "{name}" type: "Power" bottom: "{bottom}" top: "{name}"
      power_param {{ scale: {scale} }} }}"""
    for name, bottom, scale in (("a", "x", 2), ("b", "a", 3), ("c", "b", 5))
)


def shared(first: str, second: str, bottom: str = "a", outputs: int = 3) -> str:
    """Two InnerProducts, a and b, whose weight is one parameter w, and a loss."""
    return INPUT + "".join(
        (
            ip("a", "x", more=f'param {{ name: "w" {first} }}', outputs=3),
            ip("b", bottom, more=f'param {{ name: "w" {second} }}', outputs=outputs),
            LOSS.replace('"ip"', '"b"'),
        )
    )


NO_BIAS = (
    "pad: 1 kernel_size: 3 bias_term: false"  # before BatchNorm it has no gradient but rounding
)

# type, convolution_param, channels in and out, whether it has a bias
GEOMETRIES = {
    "plain": ("Convolution", "pad: 1 kernel_size: 3", 6, 4),
    "groups": ("Convolution", "pad: 1 kernel_size: 3 group: 2", 6, 4),
    "depthwise": ("Convolution", "pad: 1 kernel_size: 3 group: 4", 4, 4),
    "dilation": ("Convolution", "pad: 2 kernel_size: 3 dilation: 2", 6, 4),
    "stride": ("Convolution", "pad: 1 kernel_size: 3 stride: 2", 6, 4),
    "beyond the image": ("Convolution", "kernel_size: 11 stride: 4", 6, 4),
    "1x1": ("Convolution", "kernel_size: 1", 6, 4),
    "5x3": ("Convolution", "kernel_h: 5 kernel_w: 3 pad_h: 2 pad_w: 0", 6, 4),
    "one channel": ("Convolution", "pad: 1 kernel_size: 3", 1, 4),
    "winograd": ("Convolution", "pad: 1 kernel_size: 3", 64, 128),
    "transposed": ("Deconvolution", "pad: 1 kernel_size: 3", 6, 4),
    "transposed, stride": ("Deconvolution", "pad: 1 kernel_size: 4 stride: 2", 6, 4),
    "transposed, stride, groups": (
        "Deconvolution",
        "pad: 1 kernel_size: 4 stride: 2 group: 2",
        6,
        4,
    ),
    "transposed, groups": ("Deconvolution", "pad: 1 kernel_size: 3 group: 2", 6, 4),
    "transposed, dilation": ("Deconvolution", "kernel_size: 3 dilation: 2", 6, 4),
    "transposed, cut": ("Deconvolution", "pad: 3 kernel_size: 3", 6, 4),
    "transposed, one channel": ("Deconvolution", "pad: 1 kernel_size: 3", 1, 4),
    "transposed, winograd": ("Deconvolution", "pad: 1 kernel_size: 3", 64, 128),
}


def image(*shape: int, name: str = "x") -> str:
    dims = " ".join(f"dim: {d}" for d in shape)
    head = f'name: "{name}" type: "Input" top: "{name}"'
    return f"layer {{ {head} input_param {{ shape {{ {dims} }} }} }}"


def conv(
    name: str,
    bottom: str,
    top: str,
    outputs: int = 4,
    how: str = NO_BIAS,
    kind: str = "Convolution",
    more: str = "",
) -> str:
    return f"""
    layer {{ name: "{name}" type: "{kind}" bottom: "{bottom}" top: "{top}" {more}
      convolution_param {{ num_output: {outputs} {how} weight_filler {{ type: "msra" }}
        bias_filler {{ type: "gaussian" }} }} }}
    """


def norm(name: str, bottom: str, top: str = "", relu: bool = True, bias: str = "true") -> str:
    """BatchNorm, Scale and ReLU: layers NAME, NAME_s, NAME_r."""
    top = top or bottom
    text = f"""
    layer {{ name: "{name}" type: "BatchNorm" bottom: "{bottom}" top: "{top}" }}
    layer {{ name: "{name}_s" type: "Scale" bottom: "{top}" top: "{top}" scale_param {{
      bias_term: {bias} filler {{ type: "gaussian" mean: 1 std: 0.2 }}
      bias_filler {{ type: "gaussian" std: 0.3 }} }} }}
    """
    if relu:
        text += f'layer {{ name: "{name}_r" type: "ReLU" bottom: "{top}" top: "{top}" }}'
    return text


def losses(*blobs: str, more: str = "") -> str:
    """For each blob the distance of three weighted sums of it from given numbers."""
    return "".join(
        f"""
        layer {{ name: "{b}_ip" type: "InnerProduct" bottom: "{b}" top: "{b}_ip"
          inner_product_param {{ num_output: 3 weight_filler {{ type: "gaussian" std: 0.1 }} }} }}
        {image(2, 3, name=f"{b}_t")}
        layer {{ name: "{b}_loss" type: "EuclideanLoss" bottom: "{b}_ip" bottom: "{b}_t"
          top: "{b}_loss" loss_weight: {weight} }}
        """
        for weight, b in enumerate(blobs, 1)
    )


def set_statistics(nets: Sequence[caffe.Net], *names: str) -> None:
    for net in nets:
        rng = np.random.default_rng(7)
        for name in names:
            mean, variance, factor = net.params[name]
            mean.data[...] = rng.normal(size=mean.shape)
            variance.data[...] = rng.uniform(0.5, 2, variance.shape)
            factor.data[...] = 1.5


def names(net: caffe.Net) -> list[str]:
    return [node.name for node in Plan(net.wiring, train=net.phase == caffe.TRAIN).nodes]


def geometry(name: str, bias: bool) -> tuple[str, str]:
    """The convolution from y to z after a 1x1 one from x to y, and the input."""
    kind, how, inputs, outputs = GEOMETRIES[name]
    size = (24, 33) if inputs == 64 else (9, 10)
    how += "" if bias else " bias_term: false"
    before = conv("before", "x", "y", inputs, "kernel_size: 1 bias_term: false")
    return image(2, 3, *size) + before, conv("conv", "y", "z", outputs, how, kind)


def plan_of(net: caffe.Net) -> Plan:
    """The plan of a net, as it is before it runs."""
    return Plan(net.wiring, train=net.phase == caffe.TRAIN)


def acted(net: caffe.Net, rewrite: str) -> int:
    """How often a rewrite took part in a net's plan."""
    return plan_of(net).report.acted[rewrite]


def misfits(net: caffe.Net, rewrite: str) -> dict[str, str]:
    """Why a rewrite did not fit, by node."""
    found = plan_of(net).report.misfits
    return {misfit.node: misfit.reason for misfit in found if misfit.rewrite == rewrite}
