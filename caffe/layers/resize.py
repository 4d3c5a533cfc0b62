"""Layers that change the size of images: Interp, Upsample, MergeCrop."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from caffe.formats.onnx import Graph, Value
from caffe.layers.base import Layer, Shape, Tensors, register, with_gradient_of
from caffe.layers.look import Look
from caffe.layers.pooling import unpool, unpooled_onnx
from caffe.proto import caffe_pb2 as pb

RESIZE = Look("Deconvolution", color="#FF5050")


class _Resizing(Layer):
    """A layer that makes images (N, C, H, W) of another height and width."""

    look = RESIZE

    def check_image(self, shape: Shape) -> None:
        """Raise CaffeError unless there are images of some pixels."""
        self.check(
            len(shape) == 4,
            f"bottom has the shape {shape}, expected 4 axes: samples, channels, height, width",
        )
        self.check(min(shape[1:]) > 0, f"bottom {shape} has no pixels")


def _bilinear(x: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """x with the corners of old and new image on each other."""
    if tuple(x.shape[2:]) == size:
        return x.clone()
    if x.numel() == 0:
        return x.new_zeros(*x.shape[:2], *size)
    return F.interpolate(x, size, mode="bilinear", align_corners=True)


def _nearest(x: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """x's value at the place below each new one."""
    for axis, n in enumerate(size, 2):
        places = torch.arange(n, device=x.device) * x.shape[axis] // n
        x = x.index_select(axis, places)
    return x


def _onnx_resize(graph: Graph, x: Value, shape: Shape, linear: bool) -> str:
    size = graph.shape_like(x, shape)
    if linear:
        mode = {"mode": "linear", "coordinate_transformation_mode": "align_corners"}
    else:
        mode = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric"}
        mode["nearest_mode"] = "floor"
    return graph.add("Resize", x, "", "", size, **mode)


@register("Interp")
class Interp(_Resizing):
    """Bilinear interpolation; the corners of bottom and top fall on each other.

    Bottom: (N, C, H, W), perhaps a second one whose height and width the top gets. Otherwise the
    size follows from H and W: `shrink_factor` s gives (H - 1) / s + 1, rounded down,
    `zoom_factor` z gives (H - 1) z + 1, both give first the one and then the other; `height` and
    `width` count if only one factor or none is set. `pad_beg` and `pad_end`, at most 0, cut the
    bottom's edges off before. `is_seglabel` takes the nearest value and has no gradient.
    Source: interp_layer.cpp of DeepLab (Papandreou); two bottoms: soeaver's and fwang91's nets.
    """

    fork = "DeepLab, PSPNet, DORN"
    judge = "recorded"
    bottoms = (1, 2)
    bounded = True
    reads = ("interp_param",)

    def setup(self, shapes: Sequence[Shape]) -> None:
        p = self.layer_param.interp_param
        for name in ("pad_beg", "pad_end"):
            value = getattr(p, name)
            self.check(value <= 0, f"{name} is {value}, expected at most 0: it cuts edges off")
        for name in ("shrink_factor", "zoom_factor"):
            value = getattr(p, name)
            self.check(value >= 1, f"{name} is {value}, expected at least 1")
        given = any(p.HasField(name) for name in ("shrink_factor", "zoom_factor"))
        both = p.HasField("height") and p.HasField("width")
        self.check(
            given or both or len(shapes) == 2,
            "give shrink_factor, zoom_factor, height and width, or a second bottom",
        )

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        p, shape = self.layer_param.interp_param, shapes[0]
        self.check_image(shape)
        inside = tuple(n + p.pad_beg + p.pad_end for n in shape[2:])
        self.check(
            min(inside) > 0,
            f"pad_beg {p.pad_beg} and pad_end {p.pad_end} leave nothing of the bottom {shape}",
        )
        if len(shapes) == 2:
            self.check(
                len(shapes[1]) == 4,
                f"bottom 1, whose size counts, has the shape {shapes[1]}, expected 4 axes",
            )
            size = shapes[1][2:]
        else:
            size = self._size(inside)
        self.check(min(size) > 0, f"the top's size is {size}, expected at least 1 x 1")
        return [(*shape[:2], *size)]

    def _size(self, inside: Shape) -> Shape:
        p = self.layer_param.interp_param
        shrinks, zooms = p.HasField("shrink_factor"), p.HasField("zoom_factor")
        if shrinks == zooms and p.HasField("height") and p.HasField("width"):
            return p.height, p.width
        size = tuple((n - 1) // p.shrink_factor + 1 for n in inside) if shrinks else inside
        return tuple((n - 1) * p.zoom_factor + 1 for n in size) if zooms else size

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        (top,) = self.top_shapes(bottom)
        p, x = self.layer_param.interp_param, bottom[0]
        height, width = (n + p.pad_end for n in x.shape[2:])
        x = x[:, :, -p.pad_beg : height, -p.pad_beg : width]
        if p.is_seglabel:
            return _aligned_nearest(x.detach(), top[2:])
        return _bilinear(x, top[2:])

    def allow_force_backward(self, index: int) -> bool:
        return index == 0 and not self.layer_param.interp_param.is_seglabel

    def onnx(self, graph: Graph, x: Value, size: Value | None = None) -> str:
        p = self.layer_param.interp_param
        (top,) = self.infer_shapes([x.shape] if size is None else [x.shape, size.shape])
        if p.pad_beg or p.pad_end:
            begin, ends = -p.pad_beg, [n + p.pad_end for n in x.shape[2:]]
            cut = (*x.shape[:2], *(end - begin for end in ends))
            x = Value(graph.slice(x, [2, 3], [begin] * 2, ends), cut)
        self.check(not p.is_seglabel, "labels' nearest values have no ONNX form")
        return x.name if x.shape == top else _onnx_resize(graph, x, top, linear=True)


def _aligned_nearest(x: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """The nearest value where the corners of old and new image fall on each other."""
    for axis, n in enumerate(size, 2):
        step = (x.shape[axis] - 1) / (n - 1) if n > 1 else 0.0
        place = (torch.arange(n, device=x.device, dtype=torch.float32) * step + 0.5).floor().long()
        x = x.index_select(axis, place.clamp(max=x.shape[axis] - 1))
    return x


@register("Upsample")
class Upsample(_Resizing):
    """A larger image, in the three ways of three forks.

    - Two bottoms of one shape and no `mode` (SegNet, ENet): values (N, C, H, W) go to the places
      that the mask of a Pooling layer names. The top has `upsample_h` x `upsample_w`, or the
      bottom's size times `scale` (or scale_h, scale_w), less 1 with `pad_out_h`, `pad_out_w`.
    - One bottom (MobileNet-YOLO): each value fills `scale` x `scale` pixels.
    - With `mode`, `height_scale`, `height` (caffe-yolov5): the size is that of a second bottom, or
      height x width, or the bottom's times height_scale x width_scale; BILINEAR lets the corners
      fall on each other, NEAREST takes the value below. Its gradient, which the fork leaves out, is
      the derivative.
    Source: upsample_layer.cpp of alexgkendall/caffe-segnet, eric612/MobileNet-YOLO and
    Wulingtian/yolov5_caffe.
    """

    fork = "SegNet, ENet; MobileNet-YOLO; caffe-yolov5"
    judge = "recorded"
    bottoms = (1, 2)
    reads = ("upsample_param",)
    differs = "SegNet's size follows the bottom's; the fork's is fixed at set-up."

    def setup(self, shapes: Sequence[Shape]) -> None:
        p = self.layer_param.upsample_param
        yolov5 = ("height", "width", "height_scale", "width_scale", "mode")
        self.sized = any(p.HasField(name) for name in yolov5)
        self.masked = len(shapes) == 2 and not self.sized
        if self.sized:
            self._check_sized(len(shapes))
            return
        for name in ("scale", "scale_h", "scale_w", "upsample_h", "upsample_w"):
            least = 2 if self.masked else 1
            value = getattr(p, name)
            self.check(
                value >= least or not p.HasField(name),
                f"{name} is {value}, expected at least {least}",
            )
        self.check(
            p.HasField("scale_h") == p.HasField("scale_w")
            and not (p.HasField("scale") and p.HasField("scale_h")),
            "give upsample_h and upsample_w, or scale, or scale_h and scale_w",
        )
        factors = dict(zip(("h", "w"), self._factors(), strict=True))
        for side, factor in factors.items():
            self.check(
                not (self.masked and getattr(p, f"pad_out_{side}")) or factor == 2,
                f"pad_out_{side} needs a scale of 2; it is {factor}",
            )

    def _check_sized(self, bottoms: int) -> None:
        p = self.layer_param.upsample_param
        for names in (("height", "width"), ("height_scale", "width_scale")):
            if all(p.HasField(name) for name in names):
                for name in names:
                    value = getattr(p, name)
                    self.check(value >= 2, f"{name} is {value}, expected at least 2")
                return
        self.check(
            bottoms == 2,
            "give height and width, height_scale and width_scale, or a second bottom",
        )

    def _factors(self) -> tuple[int, int]:
        p = self.layer_param.upsample_param
        return (p.scale_h, p.scale_w) if p.HasField("scale_h") else (p.scale, p.scale)

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        shape = shapes[0]
        self.check_image(shape)
        if self.masked:
            self.check(
                shapes[1] == shape, f"the mask's shape {shapes[1]} must be the bottom's, {shape}"
            )
        return [(*shape[:2], *self._size(shapes))]

    def _size(self, shapes: Sequence[Shape]) -> tuple[int, int]:
        p, (height, width) = self.layer_param.upsample_param, shapes[0][2:]
        if self.sized:
            if len(shapes) == 2:
                self.check_image(shapes[1])
                return shapes[1][2], shapes[1][3]
            if p.HasField("height") and p.HasField("width"):
                return p.height, p.width
            return height * p.height_scale, width * p.width_scale
        if self.masked and p.HasField("upsample_h") and p.HasField("upsample_w"):
            return p.upsample_h, p.upsample_w
        down, across = self._factors()
        if not self.masked:
            return height * down, width * across
        return height * down - p.pad_out_h, width * across - p.pad_out_w

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        (top,) = self.top_shapes(bottom)
        if self.masked:
            return unpool(self, *bottom, top[2:], "upsample_h, upsample_w or scale")
        return (_bilinear if self._linear else _nearest)(bottom[0], top[2:])

    @property
    def _linear(self) -> bool:
        p = self.layer_param.upsample_param
        return self.sized and p.mode == pb.UpsampleParameter.BILINEAR

    def onnx(self, graph: Graph, x: Value, second: Value | None = None) -> str:
        shapes = [x.shape] if second is None else [x.shape, second.shape]
        (top,) = self.infer_shapes(shapes)
        if self.masked and second is not None:
            return unpooled_onnx(self, graph, x, second, top)
        return _onnx_resize(graph, x, top, self._linear)


@register("MergeCrop")
class MergeCrop(Layer):
    """The middle of bottom 1, as large as bottom 0, behind or added to it.

    Bottoms: (N, C, ...) and (N, D, ...), the second no smaller. Top: (N, C + D, ...) for STACK,
    (N, C, ...) for ADD. A bottom whose `forward` is false counts as 0, but gets the gradient; one
    whose `backward` is false gets none, which holds for bottom 1 by default (Project Greentea's
    mergecrop_layer.cu).
    """

    fork = "Project Greentea"
    judge = "worked cases"
    bottoms = (2, 2)
    in_place = False
    reads = ("mergecrop_param",)
    look = Look("Concat")
    differs = "STACK takes any numbers of channels; the fork mixes them up where D exceeds C."

    def setup(self, shapes: Sequence[Shape]) -> None:
        p = self.layer_param.mergecrop_param
        for name, values in (("forward", p.forward), ("backward", p.backward)):
            self.check(len(values) <= 2, f"{name} is given {len(values)} times, expected at most 2")
        self.counts = (*p.forward, *(True, True)[len(p.forward) :])
        self.learns = (*p.backward, *(True, False)[len(p.backward) :])
        self.adds = p.operation == pb.MergeCropParameter.ADD

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        a, b = shapes
        self.check(
            len(a) == len(b) >= 2 and a[0] == b[0],
            f"bottoms of shapes {a} and {b} must have the same samples and number of axes",
        )
        self.check(
            all(n <= m for n, m in zip(a[2:], b[2:], strict=True)),
            f"bottom 1 {b} is smaller than bottom 0 {a}",
        )
        self.check(
            not self.adds or a[1] == b[1], f"ADD needs equally many channels, got {a} and {b}"
        )
        return [a if self.adds else (a[0], a[1] + b[1], *a[2:])]

    def _starts(self, shapes: Sequence[Shape]) -> list[int]:
        return [(m - n) // 2 for n, m in zip(shapes[0][2:], shapes[1][2:], strict=True)]

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        self.top_shapes(bottom)
        a, b = (x if learn else x.detach() for x, learn in zip(bottom, self.learns, strict=True))
        starts = self._starts([tuple(x.shape) for x in bottom])
        for axis, start in enumerate(starts, 2):
            b = b.narrow(axis, start, a.shape[axis])
        a, b = (
            x if count else with_gradient_of(torch.zeros_like(x), x)
            for x, count in zip((a, b), self.counts, strict=True)
        )
        return a + b if self.adds else torch.cat([a, b], 1)

    def allow_force_backward(self, index: int) -> bool:
        return self.learns[index]

    def onnx(self, graph: Graph, *bottoms: Value) -> str:
        a, b = bottoms
        starts = self._starts([a.shape, b.shape])
        names = [a.name, b.name]
        if any(m != n for n, m in zip(a.shape[2:], b.shape[2:], strict=True)):
            ends = [start + n for start, n in zip(starts, a.shape[2:], strict=True)]
            names[1] = graph.slice(b, range(2, len(b.shape)), starts, ends)
        shapes = [a.shape, (*b.shape[:2], *a.shape[2:])]
        for i, count in enumerate(self.counts):
            if not count:
                zero = graph.constant(0)
                names[i] = graph.add("Expand", zero, graph.shape_like(bottoms[i], shapes[i]))
        return graph.add("Add", *names) if self.adds else graph.add("Concat", *names, axis=1)
