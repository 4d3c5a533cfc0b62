"""Types of Intel's forks that are other types in one, or under another name."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from caffe.formats.onnx import Graph, Names, Value
from caffe.layers.activation import ReLU
from caffe.layers.base import Layer, Shape, Tensors, register, with_gradient_of
from caffe.layers.common import InnerProduct
from caffe.layers.look import Look
from caffe.layers.normalization import LRN
from caffe.layers.pooling import Pooling
from caffe.layers.vision import Convolution

FORK = "SkimCaffe"


class _Chain(Layer):
    """Layers one behind another, all with the parameters of one; the first has the blobs."""

    fork = FORK
    judge = "worked cases"
    in_place = False
    parts: tuple[type[Layer], ...] = ()
    look = Look("Convolution", color="#FF5050")

    def setup(self, shapes: Sequence[Shape]) -> None:
        slope = self.layer_param.relu_param.negative_slope
        self.check(slope == 0, f"negative_slope is {slope:g}; the fork's type takes 0 only")
        self.layers = [part(self.layer_param) for part in self.parts]
        for layer in self.layers:
            layer.setup(shapes)
            shapes = layer.infer_shapes(shapes)
        self.blobs = self.layers[0].blobs

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        shapes = list(shapes)
        for layer in self.layers:
            shapes = layer.infer_shapes(shapes)
        return shapes

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        self.top_shapes(bottom)
        tensors = list(bottom)
        for layer in self.layers:
            layer.phase = self.phase
            tops = layer.forward(tensors, blobs if layer is self.layers[0] else [])
            tensors = [tops] if isinstance(tops, torch.Tensor) else list(tops)
        return tensors[0]

    def _sum(self, method: str, shapes: Sequence[Shape]) -> list[int]:
        """What a method of each part gives for its bottoms."""
        found = []
        for layer in self.layers:
            found.append(getattr(layer, method)(shapes))
            shapes = layer.infer_shapes(shapes)
        return found

    def macs(self, shapes: Sequence[Shape]) -> int:
        return sum(self._sum("macs", shapes))

    def scratch(self, shapes: Sequence[Shape]) -> int:
        return max(self._sum("scratch", shapes))

    def onnx(self, graph: Graph, *bottoms: Value) -> Names:
        values = list(bottoms)
        for layer in self.layers:
            shapes = layer.infer_shapes([x.shape for x in values])
            names = layer.onnx(graph, *values)
            names = [names] if isinstance(names, str) else names
            values = [Value(name, shape) for name, shape in zip(names, shapes, strict=True)]
        return values[0].name


@register("ConvolutionReLU")
class ConvolutionReLU(_Chain):
    """A Convolution and a ReLU (Park et al., 2017; conv_relu_layer.cpp)."""

    multiplies = True
    reads = ("convolution_param", "relu_param")
    takes = Convolution.takes
    differs = "It has a gradient."
    parts = (Convolution, ReLU)


@register("ConvolutionReLUPool")
class ConvolutionReLUPool(_Chain):
    """A Convolution, a ReLU and a Pooling (Park et al., 2017; conv_relu_pool_layer.cpp)."""

    multiplies = True
    reads = ("convolution_param", "pooling_param", "relu_param")
    takes = (*Convolution.takes, *Pooling.takes)
    differs = "It has a gradient."
    parts = (Convolution, ReLU, Pooling)


@register("ConvolutionReLUPoolLRN")
class ConvolutionReLUPoolLRN(_Chain):
    """A Convolution, a ReLU, a Pooling and an LRN (Park et al., 2017;
    conv_relu_pool_lrn_layer.cpp).
    """

    reads = ("convolution_param", "pooling_param", "relu_param", "lrn_param")
    takes = (*Convolution.takes, *Pooling.takes)
    differs = "It has a gradient."
    parts = (Convolution, ReLU, Pooling, LRN)


@register("ReLUPooling")
class ReLUPooling(_Chain):
    """A ReLU and a Pooling (Park et al., 2017; relu_pooling_layer.cpp)."""

    reads = ("pooling_param", "relu_param")
    takes = Pooling.takes
    differs = "It has a gradient."
    look = Look("Pooling", color="#FF9900")
    parts = (ReLU, Pooling)


@register("InnerProductReLUDropout")
class InnerProductReLUDropout(_Chain):
    """An InnerProduct and a ReLU; nothing is dropped in either phase.

    The gradient passes the ReLU as if it was not there (Park et al., 2017;
    inner_product_relu_dropout_layer.cpp).
    """

    multiplies = True
    reads = ("inner_product_param", "relu_param")
    takes = InnerProduct.takes
    differs = "`dropout_param` is without effect, as in the fork."
    look = Look("InnerProduct", color="#CC33FF")
    parts = (InnerProduct, ReLU)

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        self.top_shapes(bottom)
        y = self.layers[0].forward(bottom, blobs)
        return with_gradient_of(y.detach().relu(), y)


@register("MKLConvolution")
class MKLConvolution(Convolution):
    """Convolution (mkl_convolution_layer.cpp)."""

    fork = FORK
    judge = "worked cases"


@register("MKLPooling")
class MKLPooling(Pooling):
    """Pooling (mkl_pooling_layer.cpp)."""

    fork = FORK
    judge = "worked cases"


@register("MKLLRN")
class MKLLRN(LRN):
    """LRN (mkl_lrn_layer.cpp)."""

    fork = FORK
    judge = "worked cases"


@register("MKLReLU")
class MKLReLU(ReLU):
    """ReLU (mkl_relu_layer.cpp)."""

    fork = FORK
    judge = "worked cases"
