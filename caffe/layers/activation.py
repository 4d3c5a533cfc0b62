"""Layers that work on each value by itself."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from caffe.layers.base import Layer, Tensors, register
from caffe.proto import caffe_pb2 as pb


@register("ReLU")
class ReLU(Layer):
    """max(x, 0) + negative_slope min(x, 0)."""

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        slope = self.layer_param.relu_param.negative_slope
        return F.leaky_relu(bottom[0], slope) if slope else F.relu(bottom[0])


@register("Dropout")
class Dropout(Layer):
    """In TRAIN: zero a share of the values and scale the rest by 1 / (1 - ratio)."""

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        ratio = self.layer_param.dropout_param.dropout_ratio
        self.check(0 <= ratio < 1, f"dropout_ratio is {ratio:g}, expected 0 <= ratio < 1")
        return F.dropout(bottom[0], ratio, training=self.phase == pb.TRAIN)


@register("Power")
class Power(Layer):
    """(shift + scale x) ^ power."""

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        p = self.layer_param.power_param
        if p.power * p.scale == 0:  # constant, with a gradient of zero, whatever x holds
            return (bottom[0] * 0).nan_to_num(0) + p.shift**p.power
        y = bottom[0] * p.scale + p.shift
        return y if p.power == 1 else y.pow(p.power)
