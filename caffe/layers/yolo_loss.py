"""YOLO's losses. Their gradient is what each prediction misses, and not the derivative of the loss,
which is the sum of its squares.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch

from caffe.kernels.center_boxes import CIOU, DIOU, GIOU, MSE, iou, overlap, slope
from caffe.layers.base import Shape, Tensors, register, with_gradient_of
from caffe.layers.eval_detection import absolute, split_grid
from caffe.layers.loss import _Loss
from caffe.layers.yolo import anchors_of, by_anchor, in_grid

GRADIENT = "The gradient is not the derivative, but the forks' own."
OUTSIDE = "An object on the right or lower edge belongs to the last cell; the forks leave the grid."


@dataclass
class _Missing:
    """What the predictions (A, L, H W) of a picture miss, in a few cells: (anchor, cell) -> (L)."""

    length: int
    cells: dict[tuple[int, int], torch.Tensor] = field(default_factory=dict)

    def __getitem__(self, place: tuple[int, int]) -> torch.Tensor:
        if place not in self.cells:
            self.cells[place] = torch.zeros(self.length)
        return self.cells[place]

    def write_to(self, missing: torch.Tensor, rows: slice) -> None:
        """Write the numbers `rows` of these cells into `missing` (A, L, H W)."""
        if self.cells:
            anchors, cells = torch.tensor(list(self.cells)).T.to(missing.device)
            values = torch.stack(list(self.cells.values())).to(missing)
            missing[anchors, rows, cells] = values[:, rows]


class _GridLoss(_Loss):
    """A loss of the predictions (N, A (5 + C), H, W) of a grid's cells.

    Truths are rows (class, x, y, width, height), fractions of the picture.
    """

    judge = "recorded"

    def cell_of(self, truth: torch.Tensor, grid: tuple[int, int]) -> tuple[int, int]:
        """Column and row of the cell that holds the centre of a truth."""
        h, w = grid
        return min(int(truth[1] * w), w - 1), min(int(truth[2] * h), h - 1)

    def check_grid(self, shape: Shape, anchors: int, classes: int) -> None:
        """Raise CaffeError unless the predictions have this shape."""
        channels = anchors * (5 + classes)
        self.check(
            len(shape) == 4 and shape[1] == channels and shape[2] > 0 and shape[3] > 0,
            f"bottom 0 has the shape {shape}, expected (N, {channels}, H, W), {anchors} boxes of "
            f"{5 + classes} numbers a cell",
        )

    def check_classes(self, truths: torch.Tensor, classes: int) -> None:
        """Raise CaffeError unless the truths' classes are 0 to `classes` - 1."""
        self.check_range(truths[:, 0].long(), classes, "label")
        places = truths[:, 1:3]
        self.check(
            bool(((places >= 0) & (places <= 1)).all()),
            "the centre of a box (bottom 1) is out of range, expected fractions of the picture, "
            "0 to 1",
        )


class _ListedTruths(_GridLoss):
    """The labels are lists (N, ...) of truths, five numbers each, that zeros end."""

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        count = math.prod(shapes[1][1:])
        self.check(
            count % 5 == 0,
            f"labels (bottom 1) have the shape {tuple(shapes[1])}, expected five numbers for each "
            "box: class, x, y, width, height",
        )
        return super().infer_shapes(shapes)

    def truths(self, labels: torch.Tensor, classes: int) -> Iterator[tuple[torch.Tensor, ...]]:
        """For each picture, the truths up to an x of 0, and those up to a width of 0."""
        count = math.prod(labels.shape[1:]) // 5
        for rows in labels.detach().float().cpu().reshape(labels.shape[0], count, 5):
            seen, given = rows[_before_zero(rows[:, 1])], rows[_before_zero(rows[:, 3])]
            self.check_classes(given, classes)
            yield seen, given


def _before_zero(values: torch.Tensor) -> torch.Tensor:
    """Which values come before the first zero."""
    return (values != 0).cumprod(0).bool()


def _best_fit(boxes: torch.Tensor, truths: torch.Tensor, kind: int) -> torch.Tensor:
    """How well each box (A, H W, 4) fits its best truth (T, 4), at least 0."""
    best = boxes.new_zeros(boxes.shape[:-1])
    for truth in truths.to(boxes):
        fit = overlap(boxes, truth, kind)
        best = torch.where(fit > best, fit, best)
    return best


@register("Yolov3")
class Yolov3(_ListedTruths):
    """YOLOv3's loss: for each cell and anchor the sum of squares of what box, objectness and
    classes miss, over N.

    Bottoms: predictions (N, num (5 + num_class), H, W); labels (N, ...), up to 300 boxes of five
    numbers each, class, x, y, width and height as fractions of the picture, then zeros. `mask`
    numbers the anchors in `biases`; a cell has anchors_scale pixels. An object belongs to the cell
    of its centre, with the anchor that fits its size best, if `mask` has it, and all others that
    fit better than iou_thresh. Boxes that fit some object better than `thresh` need not be
    background. iou_loss: MSE compares numbers; IOU, GIOU, DIOU and CIOU boxes, and the loss then
    has 1 minus the mean overlap, times iou_normalizer (Redmon and Farhadi, 2018; yolov3_layer.cpp
    of MobileNet-YOLO).
    """

    fork = "MobileNet-YOLO, Caffe-YOLOv3-Windows"
    reads = ("yolov3_param",)
    differs = (
        f"{GRADIENT} {OUTSIDE} Caffe-YOLOv3-Windows is older: iou_thresh: 1 label_smooth_eps: 0 "
        "give its loss."
    )

    def setup(self, shapes: Sequence[Shape]) -> None:
        p = self.layer_param.yolov3_param
        self.all_anchors = anchors_of(self, p.biases)
        self.check(p.num_class > 0, "num_class must be positive")
        self.check(0 < p.num <= len(p.mask), f"num is {p.num}, but mask has {len(p.mask)} numbers")
        self.mask = list(p.mask[: p.num])
        self.check(
            max(self.mask) < len(self.all_anchors),
            f"mask has the number {max(self.mask)}, expected 0 to {len(self.all_anchors) - 1}, as "
            f"biases has {len(self.all_anchors)} anchors",
        )
        self.check(p.anchors_scale > 0, "anchors_scale must be positive")

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        p = self.layer_param.yolov3_param
        tops = super().infer_shapes(shapes)
        self.check_grid(tuple(shapes[0]), p.num, p.num_class)
        return tops

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        self.top_shapes(bottom)
        p, (x, labels) = self.layer_param.yolov3_param, bottom
        raw = by_anchor(x.detach(), p.num)
        cells = raw.sigmoid()
        cells[:, :, 2:4] = raw[:, :, 2:4]
        missing, misfit = self._missing(cells, labels, (x.shape[2], x.shape[3]))
        counted = missing if p.iou_loss == MSE else missing[:, :, 4:]
        total = counted.square().sum() + misfit
        if p.use_logic_gradient:
            if p.iou_loss != MSE:
                cells[:, :, :2] = raw[:, :, :2]  # the fork forgets the sigmoid here
            inner = cells * (1 - cells)
            inner[:, :, 2:4] = 1
            missing = missing * inner
        pictures = max(1, x.shape[0])
        gradient = (missing.reshape(x.shape) * x).sum() / pictures
        return with_gradient_of(total / pictures, gradient)

    def _missing(
        self, cells: torch.Tensor, labels: torch.Tensor, grid: tuple[int, int]
    ) -> tuple[torch.Tensor, float]:
        """What the predictions miss, in their shape (N, A, L, H W), and the loss of overlaps."""
        p = self.layer_param.yolov3_param
        pixels = torch.tensor([float(grid[1] * p.anchors_scale), float(grid[0] * p.anchors_scale)])
        sizes = self.all_anchors / pixels
        boxes = in_grid(cells[:, :, :2], cells[:, :, 2:4], sizes[self.mask], grid)
        missing = torch.zeros_like(cells)
        fits: list[float] = []
        for i, (seen, given) in enumerate(self.truths(labels, p.num_class)):
            objects = cells[i, :, 4]
            found = _best_fit(boxes[i], seen[:, 1:], p.iou_loss) > p.thresh
            missing[i, :, 4] = torch.where(found, 0, objects)
            own = _Missing(cells.shape[2])
            for truth in given:
                fits += self._assign(truth, cells[i], sizes, grid, own)
            own.write_to(missing[i], slice(None))
        if p.iou_loss == MSE or not fits:
            return missing, 0.0
        return missing, p.iou_normalizer * sum(1 - fit for fit in fits) / len(fits)

    def _assign(
        self,
        truth: torch.Tensor,
        cells: torch.Tensor,
        sizes: torch.Tensor,
        grid: tuple[int, int],
        own: _Missing,
    ) -> list[float]:
        """Add what the cells (A, L, H W) miss of one truth; how well their boxes fit it."""
        p = self.layer_param.yolov3_param
        column, row = self.cell_of(truth, grid)
        here = cells[:, :, row * grid[1] + column].float().cpu()
        centered = torch.cat([torch.zeros_like(sizes), sizes], 1)
        fits = overlap(centered, torch.cat([torch.zeros(2), truth[3:]]), p.iou_loss)
        best = int(torch.where(fits > 0, fits, 0).argmax()) if bool((fits > 0).any()) else -1
        chosen = [self.mask.index(best)] if best in self.mask else []
        # The fork compares the numbers of other anchors with the best one's place in `mask`.
        taken = chosen[0] if chosen else best
        for n, fit in enumerate(fits):
            if n in self.mask and n != taken and p.iou_thresh < 1 and fit > p.iou_thresh:
                chosen.append(self.mask.index(n))
        found = []
        for a in chosen:
            out = own[a, row * grid[1] + column]
            spot = torch.tensor([column, row])
            found.append(self._box(out, here[a], truth, sizes[self.mask[a]], spot, grid))
            out[4] = (here[a, 4] - 1) * (p.object_scale if p.use_logic_gradient else 1)
            self._classes(out[5:], here[a, 5:], int(truth[0]))
        return found

    def _box(
        self,
        out: torch.Tensor,
        here: torch.Tensor,
        truth: torch.Tensor,
        anchor: torch.Tensor,
        spot: torch.Tensor,
        grid: tuple[int, int],
    ) -> float:
        """Set what a cell's box misses, out[:4]; how well the box fits."""
        p, box = self.layer_param.yolov3_param, truth[1:]
        extent = torch.tensor([grid[1], grid[0]])
        size = here[2:4].exp() * anchor
        predicted = torch.cat([(spot + here[:2]) / extent, size])
        if p.iou_loss == MSE:
            wanted = torch.cat([box[:2] * extent - spot, (box[2:] / anchor).log()])
            out[:4] = p.coord_scale * (2 - box[2] * box[3]) * (here[:4] - wanted)
            return float(iou(predicted, box))
        measure = p.iou_loss if p.iou_loss in (GIOU, CIOU) else DIOU
        fit = float(overlap(predicted, box, measure))
        predicted[2:] = torch.where(size == 0, 1, size)
        growth = slope(predicted, box, p.iou_loss)
        growth[2:] *= here[2:4].exp()
        growth = torch.nan_to_num(growth * p.iou_normalizer, 0, 0, 0)
        growth = growth.clamp(-p.max_delta, p.max_delta)
        out[:4] = (out[:4] if p.accumulate else 0) - growth
        return fit

    def _classes(self, out: torch.Tensor, here: torch.Tensor, label: int) -> None:
        """Set what a cell's class probabilities miss. A further object adds its class."""
        p = self.layer_param.yolov3_param
        smooth = p.label_smooth_eps
        wanted = torch.zeros_like(here)
        wanted[label] = 1
        smoothed = wanted * (1 - smooth) + smooth / 2
        if out[label] != 0:
            out[label] = p.class_scale * (here[label] - smoothed[label])
        elif p.use_focal_loss:  # with alpha 0.5, gamma 2, as darknet's
            share = here[label] + 1e-15
            factor = -(1 - share) * (2 * share * share.log() + share - 1)
            out[:] = p.class_scale * (here - wanted) * factor / 2
        else:
            out[:] = p.class_scale * (here - smoothed)


@register("RegionLoss")
class RegionLoss(_ListedTruths):
    """YOLOv2's loss: for each cell and anchor the sum of squares of what box, objectness and
    classes miss.

    Bottoms: predictions (N, num (5 + num_class), S, S); labels. `biases` are the anchors, in cells.
    An object belongs to the cell of its centre, with the anchor that fits its size best (with
    bias_match: 0, the predicted size). Boxes that fit some object better than `thresh` need not be
    background.

    MobileNet-YOLO's labels (N, ...) list up to 300 boxes of five numbers each, class, x, y, width
    and height as fractions of the picture, then zeros; its loss is divided by N. Intel Caffe's
    are (1, 1, M, 8), as AnnotatedData makes them: picture, class from 1 on, number, left, top,
    right, bottom, difficult. There what a box misses is limited to 1 before the scales, and
    objectness has a focal factor (Redmon and Farhadi, 2017; region_loss_layer.cpp).
    """

    fork = "MobileNet-YOLO, Intel Caffe"
    reads = ("region_loss_param",)
    takes = tuple(
        f"region_loss_param.{name}"
        for name in (
            *("side", "num_class", "bias_match", "coords", "num", "softmax", "jitter", "rescore"),
            *("object_scale", "class_scale", "noobject_scale", "coord_scale", "absolute"),
            *("thresh", "random", "biases", "class_map"),
        )
    )
    differs = (
        f"{GRADIENT} {OUTSIDE} `side`, `softmax`, `jitter`, `absolute` and `random` are accepted "
        "and without effect, as in the forks; so is `class_map`, which Intel Caffe reads. "
        "Labels (1, 1, M, 8) are read as Intel Caffe's."
    )

    def setup(self, shapes: Sequence[Shape]) -> None:
        p = self.layer_param.region_loss_param
        self.check(p.coords == 4, f"coords is {p.coords}, expected 4")
        self.check(p.num > 0 and p.num_class > 0, "num and num_class must be positive")
        self.check(not p.softmax_tree, "softmax_tree is not supported, only plain classes are")
        anchors = anchors_of(self, p.biases)
        self.check(
            len(anchors) >= p.num,
            f"biases are {len(p.biases)} numbers, expected two for each of num, {p.num} anchors",
        )
        self.anchors = anchors[: p.num]
        self.intel = _is_detections(shapes[1])

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        p, x = self.layer_param.region_loss_param, tuple(shapes[0])
        tops = [()] if self.intel else super().infer_shapes(shapes)
        self.check(
            not self.intel or _is_detections(shapes[1]),
            f"labels (bottom 1) have the shape {tuple(shapes[1])}, expected (1, 1, M, 8)",
        )
        self.check_grid(x, p.num, p.num_class)
        self.check(x[2] == x[3], f"bottom 0 has the shape {x}, expected as many rows as columns")
        return tops

    def detections(self, labels: torch.Tensor, pictures: int) -> Iterator[tuple[torch.Tensor, ...]]:
        """`truths` of rows of eight numbers."""
        rows = labels.detach().float().cpu().reshape(-1, 8)
        low, high = rows[:, 3:5], rows[:, 5:7]
        boxes = torch.cat([rows[:, 1:2] - 1, (low + high) / 2, high - low], 1)
        for i in range(pictures):
            own = boxes[rows[:, 0] == i]
            self.check_classes(own, self.layer_param.region_loss_param.num_class)
            yield own, own

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        self.top_shapes(bottom)
        p, (x, labels) = self.layer_param.region_loss_param, bottom
        side, pictures = x.shape[2], x.shape[0]
        raw = by_anchor(x.detach(), p.num)
        cells = torch.cat([raw[:, :, :4], raw[:, :, 4:5].sigmoid(), raw[:, :, 5:].softmax(2)], 2)
        cells[:, :, :2] = raw[:, :, :2].sigmoid()
        boxes = in_grid(cells[:, :, :2], cells[:, :, 2:4], self.anchors / side, (side, side))
        missing = torch.zeros_like(cells)
        listed = self.truths(labels, p.num_class)
        for i, (seen, given) in enumerate(
            self.detections(labels, pictures) if self.intel else listed
        ):
            objects = cells[i, :, 4]
            found = _best_fit(boxes[i], seen[:, 1:], MSE) > p.thresh
            background = p.noobject_scale * objects.square() * (1 - objects)
            missing[i, :, 4] = torch.where(found, 0, background)
            own = _Missing(cells.shape[2])
            for truth in given:
                self._assign(truth, cells[i], boxes[i], side, own)
            own.write_to(missing[i], slice(None))
        pictures = max(1, pictures)
        total = missing.square().sum() / (1 if self.intel else pictures)
        return with_gradient_of(total, (missing.reshape(x.shape) * x).sum() / pictures)

    def _assign(
        self,
        truth: torch.Tensor,
        cells: torch.Tensor,
        boxes: torch.Tensor,
        side: int,
        own: _Missing,
    ) -> None:
        """Set what the cell and anchor of one truth miss."""
        p, box = self.layer_param.region_loss_param, truth[1:]
        column, row = self.cell_of(truth, (side, side))
        place = row * side + column
        sizes = self.anchors / side if p.bias_match else boxes[:, place, 2:].float().cpu()
        fits = iou(
            torch.cat([torch.zeros_like(sizes), sizes], 1),
            torch.cat([torch.zeros(2), box[2:]]),
        )
        best = int(torch.where(fits > 0, fits, 0).argmax())
        here, out = cells[best, :, place].float().cpu(), own[best, place]
        spot = torch.tensor([column, row])
        wanted = torch.cat([box[:2] * side - spot, (box[2:] * side / self.anchors[best]).log()])
        short = wanted - here[:4]
        if self.intel:
            short = short.clamp(-1, 1)
        elif not p.rescore:
            short = short * (2 - box[2] * box[3])
        short[:2] *= here[:2] * (1 - here[:2])
        out[:4] = -p.coord_scale * short
        out[4] = -p.object_scale * self._objectness(here[4], iou(boxes[best, place].cpu(), box))
        wanted = torch.zeros_like(here[5:])
        wanted[int(truth[0])] = 1
        out[5:] = p.class_scale * (here[5:] - wanted)

    def _objectness(self, here: torch.Tensor, fit: torch.Tensor) -> torch.Tensor:
        """What the objectness of a cell that holds an object misses."""
        inner = here * (1 - here)
        if self.intel:
            return 2 * (1 - here) ** 3 * inner
        wanted = fit if self.layer_param.region_loss_param.rescore else 1
        return (wanted - here) * inner


def _is_detections(shape: Shape) -> bool:
    """Whether labels of this shape are rows of eight numbers, as AnnotatedData makes them."""
    return len(shape) == 4 and tuple(shape[:2]) == (1, 1) and shape[3] == 8


class GridLoss(_Loss):
    """YOLO's first loss, DetectionLoss without cls_num: squares of what classes, objectness and
    boxes miss.

    Bottoms: predictions (N, ...) of a grid of `side` x `side` cells: num_class probabilities,
    num_object objectnesses and num_object boxes (x, y, width, height) of all cells, each number of
    all cells side by side; labels (N, ...), of all cells: whether difficult, whether there is an
    object, its class, and its box, four numbers a cell. Boxes are fractions of the picture;
    with `constriant` the centre is a place in the cell, with `sqrt` sizes are roots. Of a cell with
    an object the box that overlaps it most, or else is nearest, is responsible. The parts of the
    loss are means over objects or over boxes without (Redmon et al., 2016; caffe-yolo's
    detection_loss_layer.cpp).
    """

    type = "DetectionLoss"

    def setup(self, shapes: Sequence[Shape]) -> None:
        p = self.layer_param.detection_loss_param
        self.check(
            min(p.side, p.num_class, p.num_object) > 0,
            "side, num_class and num_object must be positive; MS-CNN's loss has a cls_num",
        )

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        p = self.layer_param.detection_loss_param
        tops = super().infer_shapes(shapes)
        cells = p.side**2
        for i, count in enumerate((cells * (p.num_class + 5 * p.num_object), 7 * cells)):
            self.check(
                math.prod(shapes[i][1:]) == count,
                f"bottom {i} has the shape {tuple(shapes[i])}, expected {count} values a picture",
            )
        return tops

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        self.top_shapes(bottom)
        p, x = self.layer_param.detection_loss_param, bottom[0]
        n, cells = x.shape[0], p.side**2
        parts = split_grid(x, p.side, p.num_class, p.num_object)
        labels = bottom[1].detach().reshape(n, 7 * cells)
        held = labels[:, cells : 2 * cells] != 0
        classes = torch.where(held, labels[:, 2 * cells : 3 * cells], 0).long()
        self.check_range(classes, p.num_class, "label")
        truths = labels[:, 3 * cells :].reshape(n, 1, cells, 4)
        best, fit = self._responsible(parts[2].detach(), truths)
        chosen = (torch.arange(p.num_object, device=x.device)[:, None] == best) & held[:, None]
        wanted = torch.zeros_like(parts[0]).scatter(1, classes[:, None], 1)
        missed = [
            p.class_scale * torch.where(held[:, None], parts[0].detach() - wanted, 0),
            self._objectness(parts[1].detach(), chosen, fit[:, None]),
            p.coord_scale * torch.where(chosen[:, :, None], self._boxes(parts[2], truths), 0),
        ]
        gradient = sum((m * part).sum() for m, part in zip(missed, parts, strict=True))
        return with_gradient_of(self._loss(missed, parts[1].detach(), chosen), gradient / max(1, n))

    def _responsible(
        self, boxes: torch.Tensor, truths: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Which box of each cell is responsible, (N, 1, cells), and its overlap (N, cells)."""
        p = self.layer_param.detection_loss_param
        found = absolute(boxes, p.side, p.constriant, p.sqrt).mT
        fits = torch.nan_to_num(iou(found, truths), 0)
        far = (found - truths).square().sum(-1).sqrt()
        near = torch.where(far < 20, far, 20).argmin(1, keepdim=True)
        overlapping = (fits > 0).any(1, keepdim=True)
        best = torch.where(overlapping, fits.argmax(1, keepdim=True), near)
        return best, torch.where(overlapping, fits.amax(1, keepdim=True), 0)[:, 0]

    def _objectness(
        self, objects: torch.Tensor, chosen: torch.Tensor, fit: torch.Tensor
    ) -> torch.Tensor:
        p = self.layer_param.detection_loss_param
        return torch.where(chosen, p.object_scale * (objects - fit), p.noobject_scale * objects)

    def _boxes(self, boxes: torch.Tensor, truths: torch.Tensor) -> torch.Tensor:
        """What the boxes (N, B, 4, cells) miss, in their own terms."""
        p = self.layer_param.detection_loss_param
        wanted = truths.mT
        center, size = wanted[:, :, :2], wanted[:, :, 2:]
        if p.constriant:
            cells = torch.arange(p.side**2, device=boxes.device)
            center = center * p.side - torch.stack([cells % p.side, cells // p.side])
        return boxes.detach() - torch.cat([center, size.sqrt() if p.sqrt else size], 2)

    def _loss(
        self, missed: Sequence[torch.Tensor], objects: torch.Tensor, chosen: torch.Tensor
    ) -> torch.Tensor:
        """The loss; the gradient's target for objectness is the overlap, the loss's is 1."""
        p = self.layer_param.detection_loss_param
        count = chosen.sum()
        with_object = p.object_scale * torch.where(chosen, objects - 1, 0).square().sum()
        without = p.noobject_scale * torch.where(chosen, 0, objects).square().sum()
        for m, scale in ((missed[0], p.class_scale), (missed[2], p.coord_scale)):
            with_object = with_object + (m.square().sum() / scale if scale else 0)
        rest = chosen.numel() - count
        return with_object / count.clamp(min=1) + without / rest.clamp(min=1)


@register("YoloSeg")
class YoloSeg(_Loss):
    """The sum of squares of what the sigmoid of each score misses, times object_scale, over N.

    Bottoms: scores and targets (N, C, H, W), and the number of pixels of each class in each picture
    (N, C). Places whose target exceeds a half count 2 minus the class's share as much, which is the
    number of its pixels over that of all others (yolo_seg.cpp).
    """

    fork = "MobileNet-YOLO"
    judge = "recorded"
    bottoms = (3, 3)
    labels = (1, 2)
    reads = ("yolo_seg_param",)
    takes = tuple(
        f"yolo_seg_param.{name}"
        for name in ("num_class", "object_scale", "class_scale", "use_logic_gradient")
    )
    differs = (
        f"{GRADIENT} `num_class`, `class_scale` and `use_logic_gradient` are accepted and without "
        "effect, as in the fork."
    )

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        x, targets = tuple(shapes[0]), tuple(shapes[1])
        self.check(
            x == targets and len(x) == 4,
            f"bottoms of shapes {x} and {targets} must be equal, (N, C, H, W)",
        )
        self.check(
            math.prod(shapes[2]) == math.prod(x[:2]),
            f"counts (bottom 2) have the shape {tuple(shapes[-1])}, expected {x[:2]}",
        )
        return [()]

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        self.top_shapes(bottom)
        scale = self.layer_param.yolo_seg_param.object_scale
        x, targets = bottom[0], bottom[1].detach()
        missing = scale * (x.detach().sigmoid() - targets)
        counts = bottom[2].detach().reshape(x.shape[:2]).sum(0)
        share = counts / (x.shape[0] * math.prod(x.shape[2:]) - counts)
        missing = torch.where(targets > 0.5, (2 - share)[:, None, None] * missing, missing)
        pictures = max(1, x.shape[0])
        return with_gradient_of(missing.square().sum() / pictures, (missing * x).sum() / pictures)
