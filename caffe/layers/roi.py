"""Layers that look at regions of interest: pooling, sampling and masking them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from caffe.formats.onnx import Graph, Names, Value
from caffe.formats.onnx_regions import PositionSensitive, grid, grown, rounded, scaled
from caffe.kernels.regions import (
    LargestOfEach,
    Windows,
    alike,
    as_rows,
    between,
    blend,
    by_integers,
    corners,
    half_away,
    largest,
    take,
    windows,
)
from caffe.layers.base import Layer, Shape, Tensors, register, with_gradient_of


class OfRegions(Layer):
    """Bottoms: images (N, C, H, W); regions (R, 5), each the number of an image and the corners
    x1, y1, x2, y2 in pixels of the net's input, which spatial_scale brings to the images'.

    The regions have no gradient.
    """

    bottoms = (2, 2)
    in_place = False
    numbers = 5  # of a region

    def settings(self) -> tuple[int, int, float]:
        """Rows and columns of a region's top, and the spatial scale."""
        raise AssertionError("set by the subclass")

    def setup(self, shapes: Sequence[Shape]) -> None:
        self.rows, self.columns, self.scale = self.settings()
        self.check(self.rows > 0, f"pooled_h is {self.rows}, expected at least 1")
        self.check(self.columns > 0, f"pooled_w is {self.columns}, expected at least 1")

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        images, regions = shapes
        self.check(
            len(images) == 4 and math.prod(images[1:]) > 0,
            f"images (bottom 0) have the shape {images}, expected (N, C, H, W), not empty",
        )
        self.check(len(regions) >= 1, "regions (bottom 1) have no axis, expected (R, 5)")
        return [(regions[0], self.channels(images), self.rows, self.columns)]

    def channels(self, images: Shape) -> int:
        """The channels of the top."""
        return images[1]

    def regions(self, bottom: Tensors) -> tuple[torch.Tensor, torch.Tensor]:
        """The image numbers (R), int64, in range, and the rest (R, 4), without gradient."""
        self.top_shapes(bottom)
        # Not in infer_shapes: nets are made with (1, 4), and get their regions later.
        shape = tuple(bottom[1].shape)
        self.check(
            math.prod(shape[1:]) == self.numbers,
            f"regions (bottom 1) have the shape {shape}, which is out of range: expected "
            f"(R, {self.numbers})",
        )
        given = bottom[1].detach().reshape(shape[0], self.numbers)
        image = torch.nan_to_num(given[:, 0], -1).long()
        self.check_range(image, bottom[0].shape[0], "image number of a region")
        return image, given[:, 1:]

    def padded(self, corners: torch.Tensor, ratio: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Regions grown by a share of their sides on each, at the images' scale: (R, 2) first and
        last corners.
        """
        first, last = corners[:, :2], corners[:, 2:4]
        if ratio:
            pad = (last - first + 1) * ratio
            first, last = first - pad, last + pad
        return first * self.scale, last * self.scale


class Pooled(OfRegions):
    """A region's top has pooled_h x pooled_w values of each channel."""

    def settings(self) -> tuple[int, int, float]:
        p = getattr(self.layer_param, self.reads[0])
        return p.pooled_h, p.pooled_w, p.spatial_scale

    def bins(self, first: torch.Tensor, last: torch.Tensor) -> tuple[Windows, Windows]:
        """The windows of regions with whole corners (R, 2), along height and width."""
        size = (last - first + 1).clamp(min=1).float()
        zero = torch.zeros_like(size[:, 0])
        height = windows(zero, size[:, 1], self.rows).shifted(first[:, 1])
        return height, windows(zero, size[:, 0], self.columns).shifted(first[:, 0])


@register("ROIPooling")
class ROIPooling(Pooled):
    """The largest values of pooled_h x pooled_w overlapping windows in each region.

    Bottoms: images (N, C, H, W); regions (R, 5). Top: (R, C, pooled_h, pooled_w). Corners are
    rounded at the images' scale; a window outside the image gives 0 (Fast R-CNN's
    roi_pooling_layer.cu; Girshick, 2015). MS-CNN's pad_ratio grows a region by that share of its
    sides first. Intel's pooled_size stands for pooled_h and pooled_w.
    """

    fork = "Fast R-CNN, MS-CNN, Intel Caffe"
    judge = "recorded"
    reads = ("roi_pooling_param",)

    def settings(self) -> tuple[int, int, float]:
        p = self.layer_param.roi_pooling_param
        self.ratio = p.pad_ratio
        sizes = list(p.pooled_size)
        self.check(len(sizes) <= 2, f"pooled_size is given {len(sizes)} times, expected 1 or 2")
        if sizes:
            return sizes[0], sizes[-1], p.spatial_scale
        return super().settings()

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        image, region = self.regions(bottom)
        high, wide = bottom[0].shape[2:]
        first, last = (half_away(x).long() for x in self.padded(region, self.ratio))
        plain = (first >= 0).all(1) & (first <= last).all(1)
        plain = plain & (last[:, 0] < wide) & (last[:, 1] < high)
        tall, broad = self.bins(first, last)
        size = last - first + 1
        for axis, at in ((1, tall), (0, broad)):
            plain = plain & by_integers(size[:, axis], at.shifted(-first[:, axis]))
        ends = [image, first[:, 1], last[:, 1] + 1, first[:, 0], last[:, 0] + 1]
        regions = torch.stack(ends, 1)
        counts = self.rows, self.columns
        whole = LargestOfEach.apply(bottom[0], regions[plain].tolist(), counts)
        if plain.all():
            return whole
        odd = (~plain).nonzero().flatten()
        rest = self._one_by_one(bottom[0], image[odd], last[odd], tall.of(odd), broad.of(odd))
        order = torch.cat([plain.nonzero().flatten(), odd])
        return torch.cat([whole, rest])[order.argsort()]

    def _one_by_one(
        self,
        images: torch.Tensor,
        image: torch.Tensor,
        last: torch.Tensor,
        tall: Windows,
        broad: Windows,
    ) -> torch.Tensor:
        """The tops of regions that reach beyond the images, or have odd windows."""
        _, channels, high, wide = images.shape
        tall, broad = tall.clipped(high), broad.clipped(wide)
        rows = as_rows(images)
        at = image.new_empty((len(image), channels, self.rows, self.columns))
        for part, h, w in alike(tall, broad, channels):
            lines = tall.of(part).positions(h).clamp(max=high - 1)
            columns = broad.of(part).positions(w).clamp(max=wide - 1)
            pixels = (image[part, None] * high + lines)[..., None] * wide + columns[:, None]
            at[part] = largest(rows.detach(), pixels, (h, w))[1]
        empty = tall.empty[..., None] | broad.empty[:, None]
        at.masked_fill_(empty[:, None], -1)
        # A pixel behind the last corner has no gradient: in regions whose corners are the wrong way
        # round, and in last windows that are rounded up.
        line, column = at // wide % high, at % wide
        behind = (line > last[:, 1].view(-1, 1, 1, 1)) | (column > last[:, 0].view(-1, 1, 1, 1))
        return with_gradient_of(take(rows, at), take(rows, at.masked_fill(behind, -1)))

    def onnx(self, graph: Graph, *bottoms: Value) -> Names:
        regions = graph.reshape(bottoms[1], (-1, 5), keeps_batch=False)
        if self.ratio:
            regions = grown(graph, regions, self.ratio)
        return graph.add(
            "MaxRoiPool",
            bottoms[0],
            regions,
            pooled_shape=[self.rows, self.columns],
            spatial_scale=self.scale,
        )


@register("PSROIPooling")
class PSROIPooling(OfRegions):
    """Position-sensitive means: each of group_size x group_size windows has channels of its own.

    Bottoms: images (N, output_dim * group_size^2, H, W); regions (R, 5). Top: (R, output_dim,
    group_size, group_size): the mean of channel (d * group_size + row) * group_size + column over
    the window. A window outside the image gives 0 (R-FCN's psroi_pooling_layer.cu; Dai et al.,
    2016).
    """

    fork = "R-FCN"
    judge = "recorded"
    reads = ("psroi_pooling_param",)

    def settings(self) -> tuple[int, int, float]:
        p = self.layer_param.psroi_pooling_param
        return p.group_size, p.group_size, p.spatial_scale

    def setup(self, shapes: Sequence[Shape]) -> None:
        p = self.layer_param.psroi_pooling_param
        self.check(p.group_size > 0, f"group_size is {p.group_size}, expected at least 1")
        self.check(p.output_dim > 0, f"output_dim is {p.output_dim}, expected at least 1")
        super().setup(shapes)

    def channels(self, images: Shape) -> int:
        outputs = self.layer_param.psroi_pooling_param.output_dim
        expected = outputs * self.rows**2
        self.check(
            images[1] == expected,
            f"images (bottom 0) have {images[1]} channels, expected output_dim * group_size^2 = "
            f"{expected}",
        )
        return outputs

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        image, region = self.regions(bottom)
        _, planes, high, wide = bottom[0].shape
        tall, broad = self._windows(region)
        tall, broad = tall.clipped(high), broad.clipped(wide)
        # The sum of a window is a difference of sums from the image's corner on. In float64 no
        # digit of float32 is lost.
        sums = bottom[0].double().cumsum(2).cumsum(3)
        sums = torch.nn.functional.pad(sums, (1, 0, 1, 0)).flatten()
        plane = torch.arange(planes, device=image.device).view(1, -1, self.rows, self.columns)
        plane = (plane + image.view(-1, 1, 1, 1) * planes) * (high + 1)

        def corner(line: torch.Tensor, column: torch.Tensor) -> torch.Tensor:
            at = (plane + line[:, None, :, None]) * (wide + 1) + column[:, None, None]
            return sums.gather(0, at.flatten()).view(at.shape)

        total = corner(tall.end, broad.end) - corner(tall.start, broad.end)
        total = total - corner(tall.end, broad.start) + corner(tall.start, broad.start)
        area = (tall.end - tall.start)[:, :, None] * (broad.end - broad.start)[:, None]
        empty = (tall.empty[..., None] | broad.empty[:, None])[:, None]
        mean = total / area[:, None].clamp(min=1)
        return torch.where(empty, torch.zeros_like(mean), mean).to(bottom[0].dtype)

    def _windows(self, region: torch.Tensor) -> tuple[Windows, Windows]:
        """The windows along height and width, not clipped."""
        first = half_away(region[:, :2]) * self.scale
        last = (half_away(region[:, 2:]) + 1) * self.scale
        size = (last - first).clamp(min=0.1)
        return (
            windows(first[:, 1], size[:, 1], self.rows),
            windows(first[:, 0], size[:, 0], self.columns),
        )

    def onnx(self, graph: Graph, *bottoms: Value) -> Names:
        return PositionSensitive(graph, bottoms[0], self.rows, self.scale).mean(bottoms[1])


def around(
    shape: Shape, image: torch.Tensor, line: torch.Tensor, column: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The four pixels around each point of R grids, as rows of as_rows, and their weights, both
    (R, P, Q, 4).

    shape: of the images. image: (R). line, column: (R, P) and (R, Q) float positions.
    """
    _, _, high, wide = shape
    rows, columns, weights = corners(between(line, high), between(column, wide))
    return (image.view(-1, 1, 1, 1) * high + rows) * wide + columns, weights


def points(top: Shape) -> int:
    """The values that around() and blend() need for a top (R, C, P, Q)."""
    return 24 * top[0] * top[2] * top[3]  # of four pixels: two numbers, a place and a weight


@register("ROIAlign")
class ROIAlign(OfRegions):
    """Values between pixels at the corners of pooled_h x pooled_w windows in each region.

    Bottoms: images (N, C, H, W); regions (R, 5). Top: (R, C, pooled_h + 1, pooled_w + 1): a region
    is no longer rounded, and each corner of a window is a point between four pixels (MS-CNN's and
    Cascade R-CNN's roi_align_layer.cu; He et al., 2017). pad_ratio is ROIPooling's. Points more
    than half a pixel outside the image, and regions without an area, give 0.
    """

    fork = "Cascade R-CNN, MS-CNN"
    judge = "recorded"
    reads = ("roi_pooling_param",)
    takes = (
        "roi_pooling_param.pooled_h",
        "roi_pooling_param.pooled_w",
        "roi_pooling_param.spatial_scale",
        "roi_pooling_param.pad_ratio",
    )
    differs = "crpn's ROIAlign, which has a `roi_align_param`, is not here."

    def settings(self) -> tuple[int, int, float]:
        p = self.layer_param.roi_pooling_param
        self.ratio = p.pad_ratio
        return p.pooled_h, p.pooled_w, p.spatial_scale

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        [(regions, channels, rows, columns)] = super().infer_shapes(shapes)
        return [(regions, channels, rows + 1, columns + 1)]

    def scratch(self, shapes: Sequence[Shape]) -> int:
        """The pixels around all points."""
        return points(self.infer_shapes(shapes)[0])

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        image, region = self.regions(bottom)
        first, last = (x - 0.5 for x in self.padded(region, self.ratio))
        size = last - first
        steps = [torch.arange(n + 1, device=size.device) for n in (self.columns, self.rows)]
        column = first[:, :1] + steps[0] * (size[:, :1] / self.columns)
        line = first[:, 1:] + steps[1] * (size[:, 1:] / self.rows)
        flat = (size <= 0).any(1)[:, None]
        line = torch.where(flat, torch.full_like(line, -1), line)  # outside
        return blend(as_rows(bottom[0]), *around(bottom[0].shape, image, line, column))

    def onnx(self, graph: Graph, *bottoms: Value) -> Names:
        regions = graph.reshape(bottoms[1], (-1, 5), keeps_batch=False)
        if self.ratio:
            regions = grown(graph, regions, self.ratio)
        x1, y1, x2, y2 = (scaled(graph, regions, i, i + 1, self.scale, -0.5) for i in range(1, 5))
        counts = self.rows, self.columns
        return grid(graph, bottoms[0], regions, (x1, y1), (x2, y2), counts, 1)


@register("ROIWarping")
class ROIWarping(Pooled):
    """Values between pixels at pooled_h x pooled_w points of each region, also for its corners.

    Bottoms: images (N, C, H, W); regions (R, 5). Top: (R, C, pooled_h, pooled_w): the first point
    is the region's first corner, rounded at the images' scale. The regions have a gradient (MNC's
    roi_warping_layer.cu; Dai et al., 2016).
    """

    fork = "MNC"
    judge = "recorded"
    reads = ("roi_warping_param",)

    def scratch(self, shapes: Sequence[Shape]) -> int:
        """The pixels around all points."""
        return points(self.infer_shapes(shapes)[0])

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        image, region = self.regions(bottom)
        first, last = (half_away(x) for x in self.padded(region, 0))
        size = (last - first).clamp(min=0)
        line, column = (
            first[:, axis, None] + torch.arange(n, device=size.device) * (size[:, axis, None] / n)
            for axis, n in ((1, self.rows), (0, self.columns))
        )
        rows = as_rows(bottom[0])
        pixels, weights = around(bottom[0].shape, image, line, column)
        top = blend(rows.detach(), pixels, weights)
        shares = self._shares(bottom[0], first, last, line, column)
        down = blend(rows, pixels, weights * shares)
        if bottom[1].requires_grad:
            values = rows.detach()[pixels]
            down = down + self._by_corners(bottom, values, first, last, line, column)
        return with_gradient_of(top, down)

    def _shares(
        self,
        x: torch.Tensor,
        first: torch.Tensor,
        last: torch.Tensor,
        line: torch.Tensor,
        column: torch.Tensor,
    ) -> torch.Tensor:
        """Whether the gradient reaches each of the four pixels, (R, P, Q, 4): MNC looks for the
        points around a pixel among fewer points than there are.
        """
        low, high = [], []
        for axis, position, extent in ((1, line, x.shape[2]), (0, column, x.shape[3])):
            start, end = first[:, axis, None], last[:, axis, None]
            count = position.shape[1]
            each = (end - start + 1).clamp(min=1) / count
            steps = torch.arange(count, device=x.device)
            at = between(position, extent)
            for pixel, sides in ((at.low, low), (at.high, high)):
                least = ((pixel - start - 1) / each - 1).floor().clamp(0, count)
                most = ((pixel - start + 1) / each).ceil().clamp(0, count)
                near = (pixel >= start) & (pixel <= end)
                sides.append(near & (steps >= least) & (steps < most))
        return both(low, high)

    def _by_corners(
        self,
        bottom: Tensors,
        values: torch.Tensor,
        first: torch.Tensor,
        last: torch.Tensor,
        line: torch.Tensor,
        column: torch.Tensor,
    ) -> torch.Tensor:
        """0, with the gradient for the regions that MNC states (backward of coordinates).

        values: of the four pixels around each point, (R, P, Q, 4, C).
        """
        _, _, high, wide = bottom[0].shape
        regions = bottom[1].reshape(-1, self.numbers)
        y, x = between(line, high), between(column, wide)
        v = values.permute(3, 0, 4, 1, 2)  # 00, 01, 10, 11
        dy, dx = y.share[:, None, :, None], x.share[:, None, None]
        along_x = (1 - dy) * (v[1] - v[0]) + dy * (v[3] - v[2])
        along_y = (1 - dx) * (v[2] - v[0]) + dx * (v[3] - v[1])
        # MNC reads stray memory for points outside; here they have no gradient.
        tall, broad = y.inside & (y.low + 1 < high), x.inside & (x.low + 1 < wide)
        within = tall[:, None, :, None] & broad[:, None, None]
        # Where a point lies in its region; MNC's divisor is that of a region one pixel larger.
        size = (last - first + 1).clamp(min=1)
        y_share = ((y.low + y.share - first[:, 1:]) / size[:, 1:])[:, None, :, None]
        x_share = ((x.low + x.share - first[:, :1]) / size[:, :1])[:, None, None]
        total = torch.zeros((), device=regions.device, dtype=regions.dtype)
        for axis, along, share in ((1, along_x, x_share), (2, along_y, y_share)):
            along = torch.where(within, along, torch.zeros_like(along)) * self.scale
            for index, factor in ((axis, 1 - share), (axis + 2, share)):
                moved = regions[:, index] - regions[:, index].detach()
                total = total + moved.view(-1, 1, 1, 1) * (along * factor)
        return total

    def onnx(self, graph: Graph, *bottoms: Value) -> Names:
        regions = graph.reshape(bottoms[1], (-1, 5), keeps_batch=False)
        ends = rounded(graph, scaled(graph, regions, 1, 5, self.scale, 0))
        first = [graph.slice(ends, [1], [i], [i + 1]) for i in (0, 1)]
        last = [graph.slice(ends, [1], [i], [i + 1]) for i in (2, 3)]
        last = [graph.add("Max", a, b) for a, b in zip(last, first, strict=True)]
        return grid(graph, bottoms[0], regions, first, last, (self.rows, self.columns), 0)


def both(low: Sequence[torch.Tensor], high: Sequence[torch.Tensor]) -> torch.Tensor:
    """What holds for the lower and the upper pixels along the height (R, P) and the width (R, Q),
    for the four pixels in the order of corners(): (R, P, Q, 4).
    """
    rows = torch.stack([low[0], low[0], high[0], high[0]], -1)[:, :, None]
    return rows & torch.stack([low[1], high[1], low[1], high[1]], -1)[:, None]


@register("MaskResize")
class MaskResize(Layer):
    """Images of another size, by values between pixels.

    Bottom: (N, C, H, W). Top: (N, C, output_height, output_width); SSTD's factor_height and
    factor_width, times H and W, stand for these. A pixel of the top at y lies at
    y H / output_height in the bottom; it is 0 where that is more than half a pixel outside (MNC's
    mask_resize_layer.cu).
    """

    fork = "MNC, SSTD"
    judge = "recorded"
    reads = ("mask_resize_param",)
    in_place = False

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        [shape] = shapes
        self.check(
            len(shape) == 4 and math.prod(shape[1:]) > 0,
            f"the bottom has the shape {shape}, expected (N, C, H, W), not empty",
        )
        p = self.layer_param.mask_resize_param
        sizes = []
        for name, extent in (("height", shape[2]), ("width", shape[3])):
            factor, size = getattr(p, f"factor_{name}"), getattr(p, f"output_{name}")
            self.check(factor < math.inf, f"factor_{name} is {factor:g}, expected a number")
            size = int(extent * factor) if factor > 0 else size
            self.check(size > 0, f"output_{name} is {size}, expected at least 1")
            sizes.append(size)
        return [(*shape[:2], *sizes)]

    def scratch(self, shapes: Sequence[Shape]) -> int:
        """The pixels around all points."""
        return points(self.infer_shapes(shapes)[0])

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        [(count, _, *sizes)] = self.top_shapes(bottom)
        x = bottom[0]
        places, low, high = [], [], []
        for size, extent in zip(sizes, x.shape[2:], strict=True):
            ratio = torch.tensor(extent, dtype=x.dtype, device=x.device) / size
            steps = torch.arange(size, device=x.device)
            places.append((steps * ratio).expand(count, -1))
            at = between(places[-1], extent)
            # MNC looks for a pixel's gradient at two points of the top, though it may reach more.
            for pixel, sides in ((at.low, low), (at.high, high)):
                nearest = (pixel / ratio).floor()
                sides.append((steps == nearest) | (steps == nearest + 1))
        image = torch.arange(count, device=x.device)
        rows = as_rows(x)
        pixels, weights = around(x.shape, image, *places)
        down = blend(rows, pixels, weights * both(low, high))
        return with_gradient_of(blend(rows.detach(), pixels, weights), down)

    def onnx(self, graph: Graph, *bottoms: Value) -> Names:
        [shape] = self.infer_shapes([bottoms[0].shape])
        top = graph.add(
            "Resize",
            bottoms[0],
            "",
            "",
            graph.shape_like(bottoms[0], shape),
            mode="linear",
            coordinate_transformation_mode="asymmetric",
        )
        line, column = (
            torch.arange(size) * (extent / size) <= extent - 0.5
            for size, extent in zip(shape[2:], bottoms[0].shape[2:], strict=True)
        )
        inside = line[:, None] & column
        return top if inside.all() else graph.add("Mul", top, graph.constant(inside.numpy()))


@register("MaskPooling")
class MaskPooling(Layer):
    """The product of features (N, C, H, W) and a mask (N, 1, H, W) (MNC's mask_pooling_layer.cu).

    Both have a gradient.
    """

    fork = "MNC, SSTD"
    judge = "recorded"
    bottoms = (2, 2)
    in_place = False

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        features, mask = shapes
        self.check(
            len(features) == 4 and mask == (features[0], 1, *features[2:]),
            f"bottoms of shapes {features} and {mask}: expected (N, C, H, W) and (N, 1, H, W)",
        )
        return [features]

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        self.top_shapes(bottom)
        return bottom[0] * bottom[1]

    def onnx(self, graph: Graph, *bottoms: Value) -> Names:
        return graph.add("Mul", *bottoms)
