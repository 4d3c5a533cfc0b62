"""MultiBoxLoss: how far predictions for default boxes are from the ground truth (SSD)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from caffe.kernels import boxes as box
from caffe.layers.base import Layer, Shape, Tensors, can_look, register, with_gradient_of
from caffe.layers.detection_output import DENSER, check_priors, split_priors
from caffe.layers.look import OUTPUT
from caffe.layers.loss import LOG_FLT_MIN, loss_settings, normalizer
from caffe.proto import caffe_pb2 as pb

P = pb.MultiBoxLossParameter
_LEAST_AREA = 1e-5  # smaller boxes are no examples where non-maximum suppression chooses them


@dataclass
class Truths:
    """The ground truth of a batch: boxes (G, 4), labels (G), and the image of each (G)."""

    boxes: torch.Tensor
    labels: torch.Tensor
    images: torch.Tensor


@register("MultiBoxLoss")
class MultiBoxLoss(Layer):
    """The sum of a localization and a confidence loss of default boxes (Liu et al., 2016).

    Bottoms: codes of locations (N, priors x classes or 1 x 4), confidences before the softmax
    (N, priors x classes), priors and variances (1, 2, priors x 4), ground truth (1, 1, G, 8): image
    (-1: no box), label, instance, xmin, ymin, xmax, ymax, difficult. Top: the loss, over the number
    of matched priors or as loss_param says.

    Priors (or, without use_prior_for_matching, predicted boxes) are matched to the ground truth;
    matched ones count for both losses. Of the others those count that mining chooses, as
    background: the most wrong (MAX_NEGATIVE, neg_pos_ratio for each match), or the most wrong of
    all, matched or not (HARD_EXAMPLE, sample_size an image); all without mining (NONE).

    multibox_loss_layer.cpp, bbox_util.cpp. As there, an image without ground truth gives no
    negatives to mining; with encode_variance_in_target the gradient is that of the codes before
    they are divided by the variances; and without mining, LOGISTIC's targets of image i stand
    i priors, not i priors x classes, behind the first image's.
    """

    bottoms = (4, 4)
    auto_tops = True
    loss = True
    labels = (2, 3)
    in_place = False
    look = OUTPUT
    fork = "SSD, NVCaffe, OpenCV training toolbox"
    judge = "recorded"
    reads = ("multibox_loss_param", "loss_param")
    takes = tuple(
        f"multibox_loss_param.{f}"
        for f in (
            *("loc_loss_type", "conf_loss_type", "loc_weight", "num_classes", "share_location"),
            *("match_type", "overlap_threshold", "use_prior_for_matching", "background_label_id"),
            *("use_difficult_gt", "do_neg_mining", "neg_pos_ratio", "neg_overlap", "code_type"),
            *("encode_variance_in_target", "map_object_to_agnostic", "bp_inside", "mining_type"),
            *("ignore_cross_boundary_bbox", "nms_param", "sample_size", "use_prior_for_nms"),
        )
    )
    differs = "Of equal losses, those of the first priors are mined; SSD leaves it to std::sort."

    def setup(self, shapes: Sequence[Shape]) -> None:
        p = self.p = self.layer_param.multibox_loss_param
        self.check(p.num_classes >= 1, "must give num_classes of at least 1")
        self.mines = p.mining_type != P.NONE
        kind = P.MiningType.Name(p.mining_type)
        self.check(
            not p.HasField("do_neg_mining") or p.do_neg_mining == self.mines,
            f"do_neg_mining is {p.do_neg_mining}, but mining_type is {kind}",
        )
        self.check(not self.mines or p.share_location, "mining needs share_location: true")
        self.check(
            p.conf_loss_type != P.SOFTMAX or p.background_label_id < p.num_classes,
            f"background_label_id is {p.background_label_id}, expected 0 to {p.num_classes - 1}",
        )
        self.check(p.sample_size > 0, f"sample_size is {p.sample_size}, expected more than 0")
        self.check(
            not p.map_object_to_agnostic or p.num_classes == 2,
            "map_object_to_agnostic needs 2 num_classes, background and object",
        )
        self.places = 1 if p.share_location else p.num_classes
        self.mode, _ = loss_settings(self.layer_param.loss_param, pb.LossParameter.VALID)
        down = [*self.layer_param.propagate_down, *[True] * 2]
        self.counts_locations, self.counts_confidences = down[:2]

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        locations, confidences, priors, truth = (tuple(shape) for shape in shapes)
        self.check(
            locations[:1] == confidences[:1] and len(locations) > 1 and len(confidences) > 1,
            f"bottoms have the shapes {locations} and {confidences}: expected the same samples",
        )
        count = check_priors(self, priors)
        for shape, each, what in (
            (locations, 4 * self.places, "location"),
            (confidences, self.p.num_classes, "confidence"),
        ):
            given = math.prod(shape[1:])
            self.check(
                given == count * each,
                f"{given} {what} predictions do not fit {count} priors, expected "
                f"{count * each}{DENSER}",
            )
        self.check(
            len(truth) == 4 and truth[:2] == (1, 1) and truth[3] == 8,
            f"the ground truth has the shape {truth}, expected 1, 1, boxes, 8",
        )
        return [()]

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        self.top_shapes(bottom)
        count = len(bottom[0])
        codes = bottom[0].reshape(count, -1, self.places, 4)
        scores = bottom[1].reshape(count, -1, self.p.num_classes)
        priors, variances = (x.to(codes.dtype) for x in split_priors(bottom[2]))
        with torch.no_grad():
            truths = self._truths(bottom[3].to(codes.dtype))
            matches, overlap = self._match(codes, priors, variances, truths)
            negatives = None
            if self.mines:
                matches, negatives = self._mine(
                    codes, scores, priors, variances, truths, matches, overlap
                )
        matched = int((matches > -1).sum())
        total = codes.new_zeros(())
        if self.counts_locations and matched:
            each = self._location_losses(codes, priors, variances, truths, matches)
            total = total + self.p.loc_weight * each.sum()
        if self.counts_confidences:
            total = total + self._confidence_loss(scores, truths, matches, negatives)
        inner = codes.shape[1]
        return total / normalizer(self.mode, count, inner, (matches > -1))

    # -- ground truth and matches ---------------------------------------------------------------

    def _truths(self, rows: torch.Tensor) -> Truths:
        rows = rows.reshape(-1, 8)
        rows = rows[rows[:, 0] != -1]
        if not self.p.use_difficult_gt:
            rows = rows[rows[:, 7] == 0]
        labels = rows[:, 1].long()
        background = self.p.background_label_id
        if can_look(labels):
            self.check(
                not bool((labels == background).any()),
                f"label {background} in the ground truth is out of range: it is the background's",
            )
        if self.p.map_object_to_agnostic:
            labels = torch.full_like(labels, background + 1)
        self.check_range(labels, self.p.num_classes, "label")
        return Truths(rows[:, 3:7], labels, rows[:, 0].long())

    def _match(
        self,
        codes: torch.Tensor,
        priors: torch.Tensor,
        variances: torch.Tensor,
        truths: Truths,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """For each image, place and prior the number of its truth, -1 or IGNORED, and its overlap:
        both (N, places, priors).
        """
        shape = (len(codes), self.places, len(priors))
        matches = torch.full(shape, -1, dtype=torch.long, device=codes.device)
        overlap = codes.new_zeros(shape)
        for image in range(len(codes)):
            mine = (truths.images == image).nonzero()[:, 0]
            if not len(mine):
                continue
            if self.p.use_prior_for_matching:
                found, overlap[image] = self._match_boxes(priors, truths.boxes[mine])
                numbers = self._numbers(found, mine)
                if self.p.share_location:
                    matches[image, 0] = numbers
                else:
                    matches[image] = self._of_classes(numbers, truths.labels)
            else:
                self._match_predictions(
                    matches[image], overlap[image], codes[image], priors, variances, truths, mine
                )
        return matches, overlap

    def _match_boxes(
        self, boxes: torch.Tensor, truth: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        p, ignored = self.p, None
        if p.ignore_cross_boundary_bbox:
            ignored = ((boxes < 0) | (boxes > 1)).any(1)
        threshold = p.overlap_threshold if p.match_type == P.PER_PREDICTION else None
        return box.match(box.overlaps(boxes, truth), threshold, ignored)

    def _match_predictions(
        self,
        matches: torch.Tensor,
        overlap: torch.Tensor,
        codes: torch.Tensor,
        priors: torch.Tensor,
        variances: torch.Tensor,
        truths: Truths,
        mine: torch.Tensor,
    ) -> None:
        """Match predicted boxes instead of priors; writes to matches and overlap of one image."""
        boxes = self._decoded(codes, priors, variances)
        for place in range(self.places):
            chosen = mine
            if not self.p.share_location:
                if place == self.p.background_label_id:
                    continue
                chosen = mine[truths.labels[mine] == place]
            if len(chosen):
                found, overlap[place] = self._match_boxes(boxes[:, place], truths.boxes[chosen])
                matches[place] = self._numbers(found, chosen)

    @staticmethod
    def _numbers(found: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
        """Indices into `chosen` as its values; negative ones stay."""
        return torch.where(found >= 0, chosen[found.clamp(min=0)], found)

    def _of_classes(self, numbers: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The matches (priors) shared out to the classes of their truths: (classes, priors)."""
        label = labels[numbers.clamp(min=0)]
        classes = torch.arange(self.places, device=numbers.device)[:, None]
        return torch.where((numbers >= 0) & (label == classes), numbers, -1)

    def _decoded(
        self, codes: torch.Tensor, priors: torch.Tensor, variances: torch.Tensor
    ) -> torch.Tensor:
        """The predicted boxes (priors, places, 4) of one image."""
        used = None if self.p.encode_variance_in_target else variances[:, None]
        return box.decode(codes, priors[:, None], used, self.p.code_type)

    # -- mining ---------------------------------------------------------------------------------

    def _mine(
        self,
        codes: torch.Tensor,
        scores: torch.Tensor,
        priors: torch.Tensor,
        variances: torch.Tensor,
        truths: Truths,
        matches: torch.Tensor,
        overlap: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The matches that are left, and which priors are negatives, (N, priors)."""
        p = self.p
        losses = self._confidence_losses(scores, self._labels(truths, matches)[0])
        hard = p.mining_type == P.HARD_EXAMPLE
        matches = matches.clone()
        if hard:
            places = (matches > -1).nonzero(as_tuple=True)
            each = self._location_losses(codes, priors, variances, truths, matches).sum(1)
            losses[places[0], places[2]] += each
        negatives = torch.zeros_like(matches[:, 0], dtype=torch.bool)
        for image in truths.images.unique().tolist():
            if not 0 <= image < len(codes):
                continue
            match = matches[image, 0]
            eligible = torch.ones_like(negatives[image])
            most = p.sample_size
            if not hard:
                eligible = (match == -1) & (overlap[image, 0] < p.neg_overlap)
                most = int(int((match > -1).sum()) * np.float32(p.neg_pos_ratio))
            boxes = priors
            if p.HasField("nms_param") and not p.use_prior_for_nms:
                boxes = self._decoded(codes[image], priors, variances)[:, 0]
            index = eligible.nonzero()[:, 0]
            chosen = torch.zeros_like(eligible)
            chosen[index[self._worst(losses[image, index], boxes[index], most)]] = True
            negatives[image] = chosen & (match == -1)
            if hard:
                match[(match > -1) & ~chosen] = -1
        return matches, negatives

    def _worst(self, losses: torch.Tensor, boxes: torch.Tensor, most: int) -> torch.Tensor:
        """The places of the largest losses, at most `most` of them."""
        nms = self.p.nms_param
        if not (self.p.HasField("nms_param") and nms.nms_threshold > 0):
            return losses.sort(descending=True, stable=True).indices[:most]
        order = losses.sort(descending=True, stable=True).indices
        order = order if nms.top_k < 0 else order[: nms.top_k]
        order = order[box.areas(boxes[order]) >= _LEAST_AREA]
        kept = box.suppress(
            boxes[order].cpu().numpy(), losses[order].cpu().numpy(), nms.nms_threshold
        )
        return order[torch.from_numpy(kept[:most]).to(order.device)]

    # -- losses ---------------------------------------------------------------------------------

    def _labels(self, truths: Truths, matches: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The label of each prior (N, priors), and where one is matched (N, places, priors). Of
        several classes that match, the last counts.
        """
        matched = matches > -1
        labels = torch.full_like(matches[:, 0], self.p.background_label_id)
        for place in range(self.places if len(truths.labels) else 0):
            of_place = truths.labels[matches[:, place].clamp(min=0)]
            labels = torch.where(matched[:, place], of_place, labels)
        return labels, matched

    def _location_losses(
        self,
        codes: torch.Tensor,
        priors: torch.Tensor,
        variances: torch.Tensor,
        truths: Truths,
        matches: torch.Tensor,
    ) -> torch.Tensor:
        """The losses of the matched codes, (matches, 4), by image, place and prior."""
        p = self.p
        image, place, prior = (matches > -1).nonzero(as_tuple=True)
        predicted = codes[image, prior, place]
        truth = truths.boxes[matches[image, place, prior]]
        variance = variances[prior]
        used = None if p.encode_variance_in_target else variance
        target = box.encode(truth, priors[prior], used, p.code_type)
        if p.bp_inside:
            boxes = priors[prior]
            if not p.use_prior_for_matching:
                boxes = box.decode(predicted.detach(), boxes, used, p.code_type)
            predicted = torch.where((boxes < 0) | (boxes > 1), target, predicted)
        if p.encode_variance_in_target:
            predicted = with_gradient_of(predicted / variance, predicted)
            target = target / variance
        if p.loc_loss_type == P.L2:
            return (predicted - target).square() / 2
        return F.smooth_l1_loss(predicted, target, reduction="none")

    def _confidence_losses(self, scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The loss of each prior (...), of scores (..., classes) and labels (...)."""
        if self.p.conf_loss_type == P.SOFTMAX:
            return -_log_softmax_at(scores, labels)
        targets = torch.zeros_like(scores)
        background = labels.clamp(max=scores.shape[-1] - 1)
        inside = (labels < scores.shape[-1])[..., None].to(scores.dtype)
        targets.scatter_(-1, background[..., None], inside)
        return _logistic(scores, targets).sum(-1)

    def softmax_losses(self, scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The losses that count, of scores (..., classes) and labels (...); mining takes plain
        ones.
        """
        return -_log_softmax_at(scores, labels)

    def _confidence_loss(
        self,
        scores: torch.Tensor,
        truths: Truths,
        matches: torch.Tensor,
        negatives: torch.Tensor | None,
    ) -> torch.Tensor:
        labels, matched = self._labels(truths, matches)
        if negatives is not None:
            counted = matched[:, 0] | negatives
            scores, labels = scores[counted], labels[counted]
        if self.p.conf_loss_type == P.SOFTMAX:
            return self.softmax_losses(scores, labels).sum()
        # SSD fills the targets with the background's number before it sets those that are 1.
        targets = torch.full_like(scores, float(self.p.background_label_id)).detach()
        if negatives is None:
            self._set_targets(targets, truths, matches)
        else:
            inside = labels < self.p.num_classes
            targets[inside.nonzero()[:, 0], labels[inside]] = 1
        return _logistic(scores, targets).sum()

    def _set_targets(self, targets: torch.Tensor, truths: Truths, matches: torch.Tensor) -> None:
        """Set the targets (N, priors, classes) of the matches, at the places that SSD takes."""
        image, place, prior = (matches > -1).nonzero(as_tuple=True)
        label = truths.labels[matches[image, place, prior]]
        places = image * targets.shape[1] + prior * targets.shape[2] + label
        targets.view(-1)[places] = 1


def _logistic(scores: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The logistic loss of each score; targets may be other numbers than 0 and 1."""
    return F.softplus(scores) - scores * targets


def _log_softmax_at(scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The logarithm of the probability of each label (...), from scores (..., classes)."""
    chosen = scores.log_softmax(-1).gather(-1, labels[..., None])[..., 0]
    return with_gradient_of(chosen.clamp(min=LOG_FLT_MIN), chosen)


@register("MultiBoxFocalLoss")
class MultiBoxFocalLoss(MultiBoxLoss):
    """MultiBoxLoss whose confidence loss is the focal one, -alpha (1 - p)^gamma log p for the
    probability p of the label (Lin et al., 2017), where conf_loss_type is SOFTMAX.

    Bottoms and top: as MultiBoxLoss's; mining goes by -log p (jiachen0212/ssd-focal_loss_caffe,
    multibox_focal_loss_layer.cpp).
    """

    fork = "jiachen0212/ssd-focal_loss_caffe"
    reads = (*MultiBoxLoss.reads, "focal_loss_param")
    takes = (*MultiBoxLoss.takes, "focal_loss_param.alpha", "focal_loss_param.gamma")

    def setup(self, shapes: Sequence[Shape]) -> None:
        super().setup(shapes)
        gamma = self.layer_param.focal_loss_param.gamma
        self.check(gamma >= 0, f"gamma is {gamma:g}, expected at least 0")

    def softmax_losses(self, scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        p, logs = self.layer_param.focal_loss_param, _log_softmax_at(scores, labels)
        return -p.alpha * (1 - logs.exp()).clamp(min=0).pow(p.gamma) * logs
