"""Connectionist temporal classification: its losses, a decoder, and accuracies of sequences."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from caffe.formats.onnx import Graph, Names, Value
from caffe.layers.base import Layer, Shape, Tensors, register, with_gradient_of
from caffe.layers.look import OUTPUT

NOTHING = -1e30  # the logarithm of a probability of zero; sums of it stay finite


def ctc_cost(
    logits: torch.Tensor, labels: Sequence[int], blank: int, merge: bool = True
) -> torch.Tensor:
    """-log p of a sequence of labels, by Graves' forward variables (Graves et al., 2006).

    logits: (T, C), before the softmax. merge: equal labels in a row are one label. Returns infinity
    if the steps are too few.
    """
    log_p = logits.double().log_softmax(1)
    path = [blank]
    for label in labels:
        path += [label, blank]
    states = torch.tensor(path, device=logits.device)
    emitted = log_p[:, states]
    size = len(path)
    # Where a path may come from, besides the state before: itself, and the last state but one.
    stays = torch.tensor([merge or s == blank for s in path], device=logits.device)
    skips = torch.tensor(
        [
            i > 1 and path[i] != blank and not (merge and path[i] == path[i - 2])
            for i in range(size)
        ],
        device=logits.device,
    )
    nothing = emitted.new_full((2,), NOTHING)
    alpha = torch.cat([emitted[0, :2], emitted.new_full((max(size - 2, 0),), NOTHING)])
    for t in range(1, len(logits)):
        before = torch.cat([nothing, alpha])
        ways = [
            torch.where(stays, alpha, NOTHING),
            before[1:-1],
            torch.where(skips, before[:-2], NOTHING),
        ]
        alpha = torch.logsumexp(torch.stack(ways), 0) + emitted[t]
    cost = -torch.logsumexp(alpha[-2:], 0)
    return torch.where(cost > -NOTHING / 2, math.inf, cost).to(logits.dtype)


class _Ctc(Layer):
    """A loss of scores (T, N, C), before the softmax, and sequences of labels."""

    auto_tops = True
    loss = True
    look = OUTPUT
    judge = "worked cases"
    reads = ("ctc_loss_param",)

    def scores_shape(self, shape: Shape) -> tuple[int, int, int]:
        """Steps, samples and classes of bottom 0."""
        self.check(
            len(shape) >= 3 and math.prod(shape[3:]) == 1 and min(shape[:3]) > 0,
            f"scores (bottom 0) have the shape {shape}, expected (T, N, C)",
        )
        return shape[0], shape[1], shape[2]

    def costs(
        self,
        scores: torch.Tensor,
        steps: Sequence[int],
        labels: Sequence[Sequence[int]],
        blank: int,
        merge: bool = True,
    ) -> torch.Tensor:
        """The cost of each sample (N); 0 for samples without steps."""
        scores = scores.reshape(scores.shape[:3])
        found = []
        for n, (length, sequence) in enumerate(zip(steps, labels, strict=True)):
            logits = scores[:length, n]
            found.append(
                ctc_cost(logits, sequence, blank, merge) if length else scores[:0, n].sum()
            )
        return torch.stack(found)

    def whole_labels(self, labels: torch.Tensor, classes: int) -> list[list[int]]:
        """Rows of labels as numbers. Raises CaffeError for those that are no class."""
        rows = labels.detach().reshape(labels.shape[0], -1).long()
        self.check_range(rows, classes, "label", f", the {classes} classes of the scores")
        return rows.tolist()

    def starts_and_ends(self, bottom: Tensors) -> tuple[list[int], list[list[int]]]:
        """The steps and labels of each sample, from indicators (bottom 1: 0 where a sequence
        begins, behind the first step) and labels (bottom 2: negative behind the last), (T, N).
        """
        steps, samples = bottom[0].shape[:2]
        begins = (bottom[1].detach().reshape(steps, samples) + 0.5).long() == 0
        ended = bottom[2].detach().reshape(-1, samples)
        self.check(bool(ended.isfinite().all()), "a label is out of range: it is no number")
        lengths, labels = [], []
        for n in range(samples):
            sequence = ended[:, n].tolist()
            kept = next((i for i, label in enumerate(sequence) if label < 0), len(sequence))
            after = begins[1:, n].nonzero()
            length = int(after[0]) + 1 if len(after) else steps
            self.check(kept > 0 or length <= 1, f"sample {n} has {length} steps, but no label")
            length = length if kept else 0
            self.check(
                kept <= length or not kept,
                f"sample {n} has {kept} labels in {length} steps, which is out of range",
            )
            lengths.append(length)
            labels.append([int(label + 0.5) for label in sequence[:kept]])
        return lengths, labels

    def check_labels(self, labels: Sequence[Sequence[int]], classes: int) -> None:
        for sequence in labels:
            for label in sequence:
                self.check(
                    0 <= label < classes,
                    f"label {label} is out of range, expected 0 to {classes - 1}",
                )


def _finite(costs: torch.Tensor) -> torch.Tensor:
    """The costs, 0 for samples whose labels do not fit into their steps, as warp-ctc has it."""
    return torch.where(costs.detach().isfinite(), costs, 0)


@register("CtcLoss")
class CtcLoss(_Ctc):
    """The mean of -log p(labels) over the samples, by warp-ctc (warpctc-caffe's
    ctc_loss_layer.cpp).

    Bottoms: scores (T, N, C), before the softmax, of which `time_step` steps count; labels (N, L),
    in which blank_label is left out. `alphabet_size` is C. A sample whose labels need more steps
    costs nothing, as in warp-ctc. The gradient is that of the sum, not of the mean.
    """

    bottoms = (2, 2)
    labels = (1,)
    fork = "warpctc-caffe"
    judge = "recorded"
    takes = tuple(f"ctc_loss_param.{n}" for n in ("alphabet_size", "time_step", "blank_label"))

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        p = self.layer_param.ctc_loss_param
        steps, samples, classes = self.scores_shape(shapes[0])
        self.check(
            p.alphabet_size == classes,
            f"alphabet_size is {p.alphabet_size}, expected the {classes} classes of the scores",
        )
        self.check(
            0 < p.time_step <= steps,
            f"time_step is {p.time_step}, expected 1 to the {steps} steps of the scores",
        )
        self.check(
            0 <= p.blank_label < classes,
            f"blank_label is {p.blank_label}, expected a class, 0 to {classes - 1}",
        )
        self.check(
            len(shapes[1]) >= 2 and shapes[1][0] == samples,
            f"labels (bottom 1) have the shape {shapes[1]}, expected ({samples}, labels)",
        )
        return [()]

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        self.top_shapes(bottom)
        p, scores = self.layer_param.ctc_loss_param, bottom[0]
        labels = [
            [label for label in row if label != p.blank_label]
            for row in self.whole_labels(bottom[1], scores.shape[2])
        ]
        steps = [p.time_step] * scores.shape[1]
        total = _finite(self.costs(scores, steps, labels, p.blank_label)).sum()
        return with_gradient_of(total / scores.shape[1], total)


@register("WarpCTCLoss")
class WarpCTCLoss(_Ctc):
    """The mean of -log p(labels) over the samples, by warp-ctc (caffe_ocr's
    warp_ctc_loss_layer.cpp).

    Bottoms: scores (T, N, C), before the softmax. Then labels (N, L), in which the blank is left
    out; or indicators (T, N), 0 where a sequence begins, and labels (T, N), negative behind the
    last, from which 1 is missing if the blank is 0; or the samples' steps (N), numbers of labels
    (N) and labels (L, N). A sample whose labels need more steps costs nothing, as in warp-ctc. The
    gradient is that of the sum, not of the mean.
    """

    bottoms = (2, 4)
    labels = (1, 2, 3)
    fork = "caffe_ocr"
    takes = ("ctc_loss_param.blank_index",)

    def setup(self, shapes: Sequence[Shape]) -> None:
        p = self.layer_param.ctc_loss_param
        self.blank = p.blank_index if p.HasField("blank_index") else 0

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        steps, samples, classes = self.scores_shape(shapes[0])
        self.check(
            0 <= self.blank < classes,
            f"blank_index is {self.blank}, expected a class, 0 to {classes - 1}",
        )
        others = shapes[1:]
        fits = {
            1: len(others[0]) >= 2 and others[0][0] == samples,
            2: all(len(s) >= 2 and s[1] == samples and math.prod(s[2:]) == 1 for s in others)
            and others[0][0] == steps,
            3: [math.prod(s) for s in others[:2]] == [samples] * 2
            and len(others[-1]) >= 2
            and others[-1][1] == samples
            and math.prod(others[-1][2:]) == 1,
        }[len(others)]
        self.check(
            fits,
            f"bottoms have the shapes {', '.join(map(str, shapes))}, which do not fit "
            f"{samples} samples of {steps} steps",
        )
        return [()]

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        self.top_shapes(bottom)
        scores = bottom[0]
        steps, labels = self._sequences(bottom)
        self.check_labels(labels, scores.shape[2])
        total = _finite(self.costs(scores, steps, labels, self.blank)).sum()
        return with_gradient_of(total / scores.shape[1], total)

    def _sequences(self, bottom: Tensors) -> tuple[list[int], list[list[int]]]:
        """The steps and the labels of each sample."""
        steps, samples = bottom[0].shape[:2]
        if len(bottom) == 2:
            rows = bottom[1].detach().reshape(samples, -1).long().tolist()
            return [steps] * samples, [[x for x in row if x != self.blank] for row in rows]
        if len(bottom) == 3:
            lengths, labels = self.starts_and_ends(bottom)
            shift = 1 if self.blank == 0 else 0
            return lengths, [[label + shift for label in row] for row in labels]
        lengths, counts = (x.detach().flatten().long() for x in bottom[1:3])
        table = bottom[3].detach().reshape(-1, samples).long()
        self.check_range(lengths, steps + 1, "number of steps")
        self.check_range(counts, len(table) + 1, "number of labels")
        rows = [table[:count, n].tolist() for n, count in enumerate(counts.tolist())]
        return lengths.tolist(), rows


@register("CTCLoss")
class CTCLoss(_Ctc):
    """The mean of -log p(labels) over the samples (TextBoxes++'s ctc_loss_layer.cpp, by jsemilla).

    Bottoms: scores (T, N, C), before the softmax; indicators (T, N), 0 where a sequence begins;
    labels (T, N), negative behind the last. The blank is blank_index, by default the last class.
    The first output_delay steps do not count; preprocess_collapse_repeated takes equal labels in
    a row for one; without ctc_merge_repeated equal outputs in a row are as many labels. The
    gradient is that of the sum, not of the mean; where no path fits, it is the probabilities.
    """

    bottoms = (3, 3)
    labels = (1, 2)
    fork = "TextBoxes++"
    judge = "recorded"
    takes = tuple(
        f"ctc_loss_param.{n}"
        for n in (
            *("output_delay", "blank_index", "preprocess_collapse_repeated"),
            *("ctc_merge_repeated", "loss_calculation_t"),
        )
    )

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        steps, samples, classes = self.scores_shape(shapes[0])
        p = self.layer_param.ctc_loss_param
        self.check(
            p.blank_index < classes,
            f"blank_index is {p.blank_index}, expected a class, 0 to {classes - 1}, or -1",
        )
        self.check(
            0 <= p.output_delay < steps,
            f"output_delay is {p.output_delay}, expected 0 to {steps - 1}",
        )
        self.check(
            all(s[:2] == (steps, samples) and math.prod(s[2:]) == 1 for s in shapes[1:]),
            f"bottoms have the shapes {', '.join(map(str, shapes))}, expected indicators and "
            f"labels ({steps}, {samples})",
        )
        return [()]

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        self.top_shapes(bottom)
        p, scores = self.layer_param.ctc_loss_param, bottom[0]
        samples, classes = scores.shape[1:3]
        blank = p.blank_index if p.blank_index >= 0 else classes - 1
        lengths, labels = self.starts_and_ends(bottom)
        labels = [self._clean(row, blank, classes) for row in labels]
        self.check_labels(labels, classes)
        steps = [max(length - p.output_delay, 0) for length in lengths]
        rest = scores[p.output_delay :]
        costs = self.costs(rest, steps, labels, blank, p.ctc_merge_repeated)
        stand_in = torch.where(costs.detach().isfinite(), costs, self._expected(rest, steps))
        return with_gradient_of(costs.sum() / samples, stand_in.sum())

    def _clean(self, labels: Sequence[int], blank: int, classes: int) -> list[int]:
        """The labels without those that end a sequence early, and perhaps without repetitions."""
        kept: list[int] = []
        collapse = self.layer_param.ctc_loss_param.preprocess_collapse_repeated
        ended = False
        for i, label in enumerate(labels):
            if collapse and i and label == labels[i - 1]:
                continue
            if label >= classes or label == blank:
                ended = True
                continue
            self.check(not ended, f"label {label} is out of range: it follows a blank")
            kept.append(label)
        return kept

    def _expected(self, scores: torch.Tensor, steps: Sequence[int]) -> torch.Tensor:
        """For each sample a value whose gradient is the probabilities."""
        scores = scores.reshape(scores.shape[:3])
        p = scores.detach().softmax(2)
        return torch.stack([(p[:n, i] * scores[:n, i]).sum() for i, n in enumerate(steps)])


def collapsed(classes: Sequence[int], blank: int, merge: bool = True) -> list[int]:
    """The labels that a sequence of outputs stands for."""
    before = [-1, *classes]
    return [
        c
        for c, last in zip(classes, before, strict=False)
        if c != blank and not (merge and c == last)
    ]


def edit_distance(a: Sequence[int], b: Sequence[int]) -> int:
    """How many labels must be put in, left out or replaced to make b of a (Levenshtein, 1966)."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        last, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (x != y))
    return row[-1]


@register("CTCGreedyDecoder")
class CTCGreedyDecoder(Layer):
    """The labels that each step's best class stands for: blanks left out, and equal ones in a row
    taken for one, unless ctc_merge_repeated is false (ctc_decoder_layer.cpp).

    Bottom 0: scores (T, N, C). Two layers have this name. TextBoxes++'s has indicators (T, N) as
    bottom 1, 0 where a sequence begins, and perhaps labels (T, N), negative behind the last, as
    bottom 2; tops: the sequences (N, T, 1, 1), -1 behind the last label; with one more top and no
    labels the scores, minus the sums of the best, (N, 1, 1, 1); with labels the accuracy (1, 1, 1,
    1) as the last top, 1 minus the mean share of labels to edit. caffe_ocr's has no indicators:
    with bottom 0 alone the sequences; with labels (N, L) as bottom 1 two accuracies (1, 2, 1, 1),
    the one above and the share of sequences without fault. Bottom 1 is taken for indicators where
    it has the shape (T, N), unless it may be labels, too. The blank is blank_index, -1 the last
    class; where it is not set, the last class in TextBoxes++'s, and 0 in caffe_ocr's.
    """

    bottoms = (1, 3)
    tops = (1, 3)
    labels = (0, 1, 2)
    fork = "TextBoxes++, caffe_ocr"
    judge = "recorded"
    look = OUTPUT
    reads = ("ctc_decoder_param",)

    def setup(self, shapes: Sequence[Shape]) -> None:
        scores = self._scores_shape(shapes[0])
        flags = tuple(shapes[1][:2]) if len(shapes) > 1 else ()
        like_flags = flags == scores[:2] and math.prod(shapes[1][2:]) == 1
        like_labels = flags[:1] == scores[1:2] and self.num_tops == 1
        self.indicated = len(shapes) == 3 or (like_flags and not like_labels)

    def _scores_shape(self, shape: Shape) -> Shape:
        self.check(
            len(shape) >= 3 and math.prod(shape[3:]) == 1 and min(shape[:3]) > 0,
            f"scores (bottom 0) have the shape {shape}, expected (T, N, C)",
        )
        return shape[:3]

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        steps, samples, classes = self._scores_shape(shapes[0])
        blank = self.layer_param.ctc_decoder_param.blank_index
        self.check(blank < classes, f"blank_index is {blank}, expected at most {classes - 1}")
        sequences, score, accuracy = (samples, steps, 1, 1), (samples, 1, 1, 1), (1, 1, 1, 1)
        shown = ", ".join(map(str, shapes))
        if not self.indicated:
            self.check(self.num_tops == 1, f"makes one top, got {self.num_tops}")
            if len(shapes) == 1:
                return [sequences]
            self.check(
                len(shapes[1]) >= 2 and shapes[1][0] == samples and math.prod(shapes[1][2:]) == 1,
                f"bottoms have the shapes {shown}, expected labels ({samples}, L), or indicators "
                f"({steps}, {samples})",
            )
            return [(1, 2, 1, 1)]
        self.check(
            all(s[:2] == (steps, samples) and math.prod(s[2:]) == 1 for s in shapes[1:]),
            f"bottoms have the shapes {shown}, expected indicators and labels ({steps}, {samples})",
        )
        if len(shapes) == 2:
            self.check(self.num_tops <= 2, f"makes one or two tops, got {self.num_tops}")
            return [sequences, score][: self.num_tops]
        return [[sequences], [sequences, accuracy], [sequences, score, accuracy]][self.num_tops - 1]

    def forward(self, bottom: Tensors, blobs: Tensors) -> Tensors:
        shapes = self.top_shapes(bottom)
        best, classes = bottom[0].reshape(bottom[0].shape[:3]).max(2)
        blank = self._blank(bottom[0].shape[2])
        merge = self.layer_param.ctc_decoder_param.ctc_merge_repeated
        lengths = self._lengths(bottom)
        found = [
            collapsed(classes[:length, n].tolist(), blank, merge)
            for n, length in enumerate(lengths)
        ]
        if not self.indicated and len(bottom) == 2:
            rows = bottom[1].reshape(len(found), -1).tolist()
            shares = self._accuracies(found, rows, blank)
            return [bottom[0].new_tensor(shares).view(shapes[0])]
        steps, samples = classes.shape
        rows = [row + [-1] * (steps - len(row)) for row in found]
        tops = [bottom[0].new_tensor(rows).view(shapes[0])]
        if self.num_tops == 3 or (self.num_tops == 2 and len(bottom) == 2):
            sums = [-best[:length, n].sum() for n, length in enumerate(lengths)]
            tops.append(torch.stack(sums).view(samples, 1, 1, 1))
        if len(bottom) == 3 and self.num_tops > 1:
            rows = bottom[2].reshape(steps, samples).t().tolist()
            tops.append(
                bottom[0].new_tensor(self._accuracies(found, rows, None)[:1]).view(1, 1, 1, 1)
            )
        return tops

    def onnx(self, graph: Graph, x: Value, *others: Value) -> Names:
        """The kept classes move to the front, the others to one more place, which is cut off."""
        self.check(not others, "has an ONNX form for scores alone")
        steps, samples, classes = x.shape[:3]
        self.check(not graph.dynamic_batch, "its samples are on axis 1: their number is not free")
        merge = self.layer_param.ctc_decoder_param.ctc_merge_repeated
        flat = graph.reshape(x, (steps, samples, classes), keeps_batch=False)
        best = graph.add("ArgMax", flat, axis=2, keepdims=0)
        best = graph.add("Transpose", best, perm=[1, 0])
        blank = graph.constant(self._blank(classes), np.int64)
        dropped = graph.add("Equal", best, blank)
        if merge:
            none = graph.constant(np.full((samples, 1), -1), np.int64)
            before = graph.add("Concat", none, graph.slice(best, [1], [0], [steps - 1]), axis=1)
            dropped = graph.add("Or", dropped, graph.add("Equal", best, before))
        kept = graph.to_int(graph.add("Not", dropped))
        place = graph.add("CumSum", kept, graph.constant(1, np.int64))
        place = graph.add("Sub", place, graph.constant(1, np.int64))
        place = graph.add("Where", dropped, graph.constant(steps, np.int64), place)
        empty = graph.constant(np.full((samples, steps + 1), -1), np.int64)
        sequences = graph.add("ScatterElements", empty, place, best, axis=1)
        sequences = graph.to_float(graph.slice(sequences, [1], [0], [steps]))
        return graph.reshape(sequences, (samples, steps, 1, 1), keeps_batch=False)

    def _blank(self, classes: int) -> int:
        p = self.layer_param.ctc_decoder_param
        given = p.blank_index if p.HasField("blank_index") or self.indicated else 0
        return given if given >= 0 else classes - 1

    def _lengths(self, bottom: Tensors) -> list[int]:
        """The steps of each sample: up to the next that an indicator begins."""
        steps, samples = bottom[0].shape[:2]
        if not self.indicated:
            return [steps] * samples
        begins = bottom[1].detach().reshape(steps, samples)[1:] == 0
        ends = [begins[:, n].nonzero() for n in range(samples)]
        return [int(end[0]) + 1 if len(end) else steps for end in ends]

    def _accuracies(
        self, found: Sequence[list[int]], rows: Sequence[list[float]], blank: int | None
    ) -> list[float]:
        """1 minus the mean share of labels to edit, and the share of sequences without fault."""
        edited, right = 0.0, 0
        for sequence, row in zip(found, rows, strict=True):
            end = next((i for i, label in enumerate(row) if label < 0), len(row))
            target = [int(label + 0.5) for label in row[:end]]
            target = [label for label in target if label != blank]
            if longest := max(len(target), len(sequence)):
                distance = edit_distance(target, sequence)
                edited += distance / longest
                right += distance == 0
        return [1 - edited / len(found), right / len(found)]


class _SequenceAccuracy(Layer):
    """The share of samples whose decoded labels are all right.

    Bottoms: scores (N, T, C); labels (N, L), in which blank_label is left out. Top: one value.
    """

    bottoms = (2, 2)
    measures = True
    labels = (0, 1)
    look = OUTPUT

    def blank(self) -> int:
        """The class that is no label."""
        raise AssertionError("set by the subclass")

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        scores, labels = shapes
        self.check(
            len(scores) >= 3 and math.prod(scores[3:]) == 1 and min(scores[:3]) > 0,
            f"scores (bottom 0) have the shape {scores}, expected (N, T, C)",
        )
        self.check(
            len(labels) >= 2 and labels[0] == scores[0] and math.prod(labels[2:]) == 1,
            f"labels (bottom 1) have the shape {labels}, expected ({scores[0]}, L)",
        )
        return [()]

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        self.top_shapes(bottom)
        scores, blank = bottom[0], self.blank()
        best = scores.reshape(scores.shape[:3]).argmax(2).tolist()
        self.check(bool(bottom[1].isfinite().all()), "a label is out of range: it is no number")
        truth = bottom[1].reshape(len(best), -1).tolist()
        right = sum(
            collapsed(row, blank) == [int(label) for label in labels if label != blank]
            for row, labels in zip(best, truth, strict=True)
        )
        return scores.new_tensor(right / len(best))


@register("LabelsequenceAccuracy")
class LabelsequenceAccuracy(_SequenceAccuracy):
    """The share of samples whose decoded labels are all right (warpctc-caffe's
    labelsequence_accuracy_layer.cpp).

    Bottoms: scores (N, T, C); labels (N, L), in which blank_label is left out. Top: one value.
    """

    fork = "warpctc-caffe"
    judge = "recorded"
    reads = ("labelsequence_accuracy_param",)

    def blank(self) -> int:
        return self.layer_param.labelsequence_accuracy_param.blank_label


@register("SequenceAccuracy")
class SequenceAccuracy(_SequenceAccuracy):
    """The share of samples whose decoded labels are all right, with Sequence_accuracy_param.

    Bottoms: scores (N, T, C); labels (N, L), in which blank_label is left out. Top: one value. The
    net that uses it (LPAIS/HDSR-with-RNN) comes without its source; it is taken to compute what
    LabelsequenceAccuracy does.
    """

    fork = "LPAIS/HDSR-with-RNN"
    judge = "worked cases"
    reads = ("Sequence_accuracy_param",)
    takes = ("Sequence_accuracy_param.blank_label",)

    def blank(self) -> int:
        return self.layer_param.Sequence_accuracy_param.blank_label
