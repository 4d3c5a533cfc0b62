"""Conditional random fields over all pairs of pixels: mean field inference by Gaussian filters."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from caffe.blob import Blob
from caffe.kernels.permutohedral import Lattice
from caffe.layers.base import Layer, Shape, Tensors, register
from caffe.layers.look import Look

FIELD = Look("Other")
TINY = torch.finfo(torch.float32).tiny
NEVER = 1e-20  # keeps a division by no weight at all finite
CCNN_STEPS = 10
MOST_STEPS = 1000  # nets take ten


def _places(height: int, width: int, like: torch.Tensor) -> torch.Tensor:
    """x and y of each pixel, row by row, (H W, 2), float32."""
    rows = torch.arange(height, device=like.device, dtype=torch.float32)
    columns = torch.arange(width, device=like.device, dtype=torch.float32)
    x, y = columns.expand(height, width), rows[:, None].expand(height, width)
    return torch.stack([x.flatten(), y.flatten()], 1)


def _colours(image: torch.Tensor) -> torch.Tensor:
    """The channels of an image (C, H, W) at each pixel, (H W, C), float32."""
    return image.detach().float().flatten(1).t()


class Filter:
    """A Gaussian filter of pixels with these features (N, d), after which weights add up to 1."""

    def __init__(self, features: torch.Tensor) -> None:
        self.lattice = Lattice(features)
        ones = features.new_ones(len(features), 1)
        self.norm = 1 / (self.lattice.filter(ones) + NEVER)

    def __call__(self, values: torch.Tensor) -> torch.Tensor:
        """values: (N, channels)."""
        return self.lattice.filter(values) * self.norm.to(values.dtype)


class _Field(Layer):
    """What both layers share: bottoms of scores and an image, and positive widths."""

    look = FIELD

    def check_positive(self, message: object, *names: str) -> None:
        """Raise CaffeError unless the fields of the message are positive numbers."""
        for name in names:
            given = getattr(message, name)
            for value in [given] if isinstance(given, float) else given:
                self.check(0 < value < math.inf, f"{name} is {value:g}, expected above 0")

    def check_scores(self, scores: Shape, image: Shape) -> None:
        """Raise CaffeError unless there are scores, and colours for each pixel."""
        self.check(
            len(scores) == 4 and min(scores[1:]) > 0,
            f"scores have the shape {scores}, expected (N, C, H, W)",
        )
        expected = (scores[0], 3, *scores[2:])
        self.check(image == expected, f"the image has the shape {image}, expected {expected}")


@register("MultiStageMeanfield")
class MultiStageMeanfield(_Field):
    """CRF-RNN: a few steps of mean field inference whose weights learn (Zheng et al., 2015).

    Bottoms: unary scores (N, C, H, W), the scores to start from, the image (N, 3, H, W). Top: the
    scores behind `num_iterations` steps. Each step takes the softmax, filters it by place (with
    `theta_gamma`) and by place and colour (theta_alpha, theta_beta), mixes the classes of both by
    two matrices, adds these, mixes them by the third, and subtracts this from the unary scores.
    Blobs, (1, 1, C, C): the weights of the filters by place and by colour, the compatibility. The
    first two start with `spatial_filter_weights_str` and `bilateral_filter_weights_str` on their
    diagonals, or with spatial_filter_weight and bilateral_filter_weight, the third with -1
    (multi_stage_meanfield.cpp, meanfield_iteration.cpp of torrvision/caffe).
    """

    fork = "CRF-RNN"
    judge = "recorded"
    bottoms = (3, 3)
    labels = (2,)
    reads = ("multi_stage_meanfield_param",)
    takes = (
        *("multi_stage_meanfield_param.num_iterations", "multi_stage_meanfield_param.theta_alpha"),
        *("multi_stage_meanfield_param.theta_beta", "multi_stage_meanfield_param.theta_gamma"),
        "multi_stage_meanfield_param.spatial_filter_weight",
        "multi_stage_meanfield_param.bilateral_filter_weight",
        "multi_stage_meanfield_param.spatial_filter_weights_str",
        "multi_stage_meanfield_param.bilateral_filter_weights_str",
        "multi_stage_meanfield_param.compatibility_mode",
        "multi_stage_meanfield_param.threshold",
        "multi_stage_meanfield_param.force_cpu",
    )
    differs = (
        "Each sample of a batch has its own inference; the fork repeats the first one's. Without "
        "the texts of weights, the numbers count; older code read files spatial.par and "
        "bilateral.par. `threshold`, `compatibility_mode` and `force_cpu` are without effect, as "
        "in the fork."
    )

    def setup(self, shapes: Sequence[Shape]) -> None:
        p = self.layer_param.multi_stage_meanfield_param
        self.check(
            0 < p.num_iterations <= MOST_STEPS,
            f"num_iterations is {p.num_iterations}, expected 1 to {MOST_STEPS}",
        )
        self.check_positive(p, "theta_alpha", "theta_beta", "theta_gamma")
        self.check_scores(shapes[0], shapes[2])
        self.classes = shapes[0][1]
        for kind in ("spatial", "bilateral"):
            self._diagonal(self._weights(kind))
        self._diagonal([-1.0] * self.classes)
        self._by_place: tuple[object, Filter] | None = None

    def _weights(self, kind: str) -> list[float]:
        p = self.layer_param.multi_stage_meanfield_param
        name = f"{kind}_filter_weights_str"
        if not p.HasField(name):
            return [getattr(p, f"{kind}_filter_weight")] * self.classes
        try:
            weights = [float(word) for word in getattr(p, name).split()]
        except ValueError:
            weights = []
        self.check(
            len(weights) >= self.classes, f"{name} needs {self.classes} numbers, one a class"
        )
        return weights[: self.classes]

    def _diagonal(self, values: Sequence[float]) -> None:
        """Declare one more matrix of classes with these numbers on its diagonal."""

        def fill(matrix: torch.Tensor) -> None:
            matrix.zero_()[0, 0].diagonal().copy_(torch.tensor(values))

        with self.named():
            self.blobs.append(Blob((1, 1, self.classes, self.classes), fill))

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        unary, start, image = shapes
        self.check_scores(unary, image)
        self.check(start == unary, f"bottom 1 has the shape {start}, expected bottom 0's, {unary}")
        self.check(unary[1] == self.classes, f"{unary[1]} classes, expected {self.classes}")
        return [unary]

    def macs(self, shapes: Sequence[Shape]) -> int:
        n, c, height, width = shapes[0]
        steps = self.layer_param.multi_stage_meanfield_param.num_iterations
        return 3 * steps * n * c * c * height * width

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        self.top_shapes(bottom)
        unary, start, images = bottom
        tops = [
            self._infer(*sample, [b[0, 0] for b in blobs])
            for sample in zip(unary, start, images, strict=True)
        ]
        return torch.stack(tops) if tops else unary.clone()

    def _infer(
        self, unary: torch.Tensor, start: torch.Tensor, image: torch.Tensor, blobs: Tensors
    ) -> torch.Tensor:
        """One sample: scores (C, H, W) and an image (3, H, W)."""
        p = self.layer_param.multi_stage_meanfield_param
        height, width = unary.shape[1:]
        places = _places(height, width, unary)
        by_place = self._place_filter(places / p.theta_gamma, (height, width, unary.device))
        features = torch.cat([places / p.theta_alpha, _colours(image) / p.theta_beta], 1)
        with self.named():
            by_colour = Filter(features)
        scores, own = start.flatten(1).t(), unary.flatten(1).t()
        for _ in range(p.num_iterations):
            shares = scores.softmax(1)
            message = by_place(shares) @ blobs[0].t() + by_colour(shares) @ blobs[1].t()
            scores = own - message @ blobs[2].t()
        return scores.t().reshape(unary.shape)

    def _place_filter(self, features: torch.Tensor, key: object) -> Filter:
        """The filter by place, which is the same for all images of one size."""
        if self._by_place is None or self._by_place[0] != key:
            with self.named():
                self._by_place = key, Filter(features)
        return self._by_place[1]


@register("DenseCRF")
class DenseCRF(_Field):
    """Mean field inference with fixed weights (Kraehenbuehl and Koltun, 2011).

    - DeepLab's, with dense_crf_param. Bottoms: scores (N, C, H, W), the height and width of each
      image (N, 2, ...), the image (N, 3, H, W) for the filters by colour (`bi_w`, `bi_xy_std`,
      `bi_rgb_std`); `pos_w` and `pos_xy_std` are those by place. Top: the probabilities behind
      `max_iter` steps, or with `output_probability: false` their logarithms; 0 outside the image.
    - CCNN's, with densecrf_param. Bottoms: scores (N, C, H, W), the image (N, 3, H, W), blue first.
      Top: the best class behind 10 steps, (N, 1, H, W).

    No gradient, as in the forks (densecrf_layer.cpp of DeepLab and pathak22/caffe-ccnn).
    """

    fork = "DeepLab; CCNN"
    judge = "recorded"
    bottoms = (2, 3)
    labels = (0, 1, 2)
    reads = ("dense_crf_param", "densecrf_param")
    differs = "Each sample of a batch has its own image; DeepLab's takes the first one's for all."

    def setup(self, shapes: Sequence[Shape]) -> None:
        self.ccnn = self.layer_param.HasField("densecrf_param")
        if self.ccnn:
            self.check(len(shapes) == 2, "CCNN's takes 2 bottoms, scores and image")
            names = ("x_gauss", "y_gauss", "x_bilateral", "y_bilateral")
            names += ("r_bilateral", "g_bilateral", "b_bilateral")
            self.check_positive(self.layer_param.densecrf_param, *names)
            return
        p = self.layer_param.dense_crf_param
        self.check(
            0 <= p.max_iter <= MOST_STEPS, f"max_iter is {p.max_iter}, expected 0 to {MOST_STEPS}"
        )
        self.check_positive(p, "pos_xy_std", "bi_xy_std", "bi_rgb_std")
        for names in (("pos_w", "pos_xy_std"), ("bi_w", "bi_xy_std", "bi_rgb_std")):
            counts = {len(getattr(p, name)) for name in names}
            self.check(len(counts) == 1, f"{', '.join(names)} must be given equally often")
        self.check(
            len(p.bi_w) > 0 if len(shapes) == 3 else not p.bi_w,
            "filters by colour (bi_w) and an image (bottom 2) belong together",
        )

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        scores = shapes[0]
        if self.ccnn:
            self.check_scores(scores, shapes[1])
            return [(scores[0], 1, *scores[2:])]
        image = shapes[2] if len(shapes) == 3 else (scores[0], 3, *scores[2:]) if scores else ()
        self.check_scores(scores, image)
        self.check(
            shapes[1][:1] == scores[:1] and math.prod(shapes[1][1:]) >= 2,
            f"bottom 1 has the shape {shapes[1]}, expected a height and a width for each image",
        )
        return [scores]

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        (top,) = self.top_shapes(bottom)
        with torch.no_grad():
            if self.ccnn:
                tops = [self._best(*sample) for sample in zip(*bottom, strict=True)]
            else:
                images = bottom[2] if len(bottom) == 3 else [None] * len(bottom[0])
                samples = zip(bottom[0], bottom[1].flatten(1).tolist(), images, strict=True)
                tops = [self._probabilities(*sample) for sample in samples]
        return torch.stack(tops) if tops else bottom[0].new_zeros(top)

    def _probabilities(
        self, scores: torch.Tensor, size: list[float], image: torch.Tensor | None
    ) -> torch.Tensor:
        """DeepLab's: the top of one sample."""
        p = self.layer_param.dense_crf_param
        height, width = scores.shape[1:]
        if height > size[0] or width > size[1]:  # it is filled up behind the image
            self.check(
                1 <= size[0] <= height and 1 <= size[1] <= width,
                f"an image's size {size[0]:g} x {size[1]:g} is out of range, {height} x {width}",
            )
            height, width = int(size[0]), int(size[1])
        places = _places(height, width, scores)
        pairs = list(zip(p.pos_w, p.pos_xy_std, strict=True))
        filters = [(weight, places / std) for weight, std in pairs]
        if image is not None:
            colours = _colours(image[:, :height, :width])
            for weight, xy, rgb in zip(p.bi_w, p.bi_xy_std, p.bi_rgb_std, strict=True):
                filters.append((weight, torch.cat([places / xy, colours / rgb], 1)))
        shares = self._infer(scores[:, :height, :width], filters, p.max_iter)
        if not p.output_probability:
            shares = shares.clamp(min=TINY).log()
        top = torch.zeros_like(scores)
        top[:, :height, :width] = shares
        return top

    def _best(self, scores: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        """CCNN's: the top of one sample."""
        p = self.layer_param.densecrf_param
        places = _places(*scores.shape[1:], scores)
        gauss = places / places.new_tensor([p.x_gauss, p.y_gauss])
        bytes_ = (image.flip(0).trunc().long() & 255).float()  # red first, as unsigned char
        stds = (p.x_bilateral, p.y_bilateral, p.r_bilateral, p.g_bilateral, p.b_bilateral)
        features = torch.cat([places, _colours(bytes_)], 1) / places.new_tensor(stds)
        filters = [(p.wt_gauss, gauss), (p.wt_bilateral, features)]
        shares = self._infer(scores, filters, CCNN_STEPS)
        return shares.argmax(0, keepdim=True).to(scores.dtype)

    def _infer(
        self,
        scores: torch.Tensor,
        filters: Sequence[tuple[float, torch.Tensor]],
        steps: int,
    ) -> torch.Tensor:
        """The probabilities (C, H, W) behind some steps; filters: (weight, features)."""
        with self.named():
            made = [(weight, Filter(features)) for weight, features in filters]
        own = scores.flatten(1).t()
        shares = own.softmax(1)
        for _ in range(steps):
            total = own
            for weight, gaussian in made:
                total = total + weight * gaussian(shares)
            shares = total.softmax(1)
        return shares.t().reshape(scores.shape)
