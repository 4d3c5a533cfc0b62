"""JfdaLoss: the losses of a face detector's cascade in one layer."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from caffe.layers.base import Layer, Shape, Tensors, register, with_gradient_of
from caffe.layers.look import OUTPUT

OTHER, FACE, PART = 0, 1, 2  # labels; all others: a sample with landmarks
FLT_MIN_LOG = math.log(1.1754943508222875e-38)


@register("JfdaLoss")
class JfdaLoss(Layer):
    """Whether samples are faces, where their boxes are, and perhaps their landmarks.

    Bottoms: scores (N, 2); boxes (N, B); perhaps landmarks (N, M); the boxes' targets; perhaps the
    landmarks'; labels (N), sorted: 0 no face, 1 face, 2 part of a face, 3 landmarks. Tops: the loss
    of the scores of the first two kinds, of the boxes of faces and parts, perhaps of the landmarks
    of the last kind, and the shares of no faces and of faces that are told right. Losses are over
    N, those of places halves of squares. A share drop_loss_rate of the scores, those with the least
    loss, has no gradient (lincolnhard's jfda_loss_layer.cpp).
    """

    fork = "mtcnn-head-detection"
    judge = "recorded"
    bottoms = (4, 6)
    tops = (4, 5)
    loss = True
    reads = ("jfda_loss_param",)
    differs = (
        "Four bottoms without landmarks, as the fork's nets have them; its code takes six. Labels "
        "out of order are an error. A share of no samples is 0, not NaN."
    )
    look = OUTPUT

    def setup(self, shapes: Sequence[Shape]) -> None:
        self.landmarks = len(shapes) == 6
        self.check(len(shapes) != 5, "takes 4 bottoms, or 6 with landmarks, got 5")
        tops = 5 if self.landmarks else 4
        self.check(self.num_tops == tops, f"makes {tops} tops of {len(shapes)} bottoms")

        rate = self.layer_param.jfda_loss_param.drop_loss_rate
        self.check(not math.isnan(rate), "drop_loss_rate is nan, expected a number")

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        n = shapes[0][:1]
        for i, shape in enumerate(shapes):
            self.check(
                shape[:1] == n != (),
                f"bottom {i} has the shape {shape}; its first axis must be as in bottom 0, "
                f"{shapes[0]}",
            )
        self.check(
            math.prod(shapes[0][1:]) == 2 and math.prod(shapes[-1][1:]) == 1,
            f"scores of the shape {shapes[0]} and labels of {shapes[-1]}, expected (N, 2) and (N)",
        )
        half = 2 + self.landmarks
        for a, b in zip(range(1, half), range(half, len(shapes) - 1), strict=True):
            self.check(
                math.prod(shapes[a]) == math.prod(shapes[b]),
                f"bottoms {a} and {b} have the shapes {shapes[a]} and {shapes[b]}, expected "
                "equally many values",
            )
        return [()] * self.num_tops

    def forward(self, bottom: Tensors, blobs: Tensors) -> Tensors:
        self.top_shapes(bottom)
        n = len(bottom[0])
        labels = bottom[-1].detach().reshape(-1).trunc()
        kinds = torch.where(
            (labels >= OTHER) & (labels <= PART), labels, torch.full_like(labels, 3)
        )
        self.check(
            bool((kinds.diff() >= 0).all()), "labels are not in the order 0, 1, 2, 3 of their kinds"
        )
        scored = kinds <= FACE
        loss, shares = self._scores(bottom[0].reshape(n, 2)[scored], kinds[scored].long(), n)
        half = 2 + self.landmarks
        tops = [loss, self._places(bottom[1], bottom[half], (kinds == FACE) | (kinds == PART))]
        if self.landmarks:
            tops.append(self._places(bottom[2], bottom[half + 1], kinds > PART))
        return [*tops, *shares]

    def _scores(
        self, scores: torch.Tensor, kinds: torch.Tensor, n: int
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """The loss of the scores, and the shares of both kinds that are told right."""
        logs = scores.log_softmax(1).gather(1, kinds[:, None])[:, 0]
        each = -logs.clamp(min=FLT_MIN_LOG).detach()
        rate = min(max(self.layer_param.jfda_loss_param.drop_loss_rate, 0), 1)
        count = int(len(each) * (1 - rate))
        hardest = each.argsort(descending=True)[:count]
        loss = with_gradient_of(each.sum() / max(1, n), -logs[hardest].sum() / max(1, n))
        right = scores.detach().gather(1, kinds[:, None]) > scores.detach().gather(
            1, 1 - kinds[:, None]
        )
        return loss, [
            right[kinds == kind].sum().to(scores) / max(1, int((kinds == kind).sum()))
            for kind in (OTHER, FACE)
        ]

    def _places(
        self, values: torch.Tensor, targets: torch.Tensor, chosen: torch.Tensor
    ) -> torch.Tensor:
        gap = (values - targets.detach().reshape(values.shape))[chosen]
        return gap.square().sum() / max(1, len(chosen)) / 2
