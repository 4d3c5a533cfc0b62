"""Cases of the layers in caffe/layers/ctc.py."""

from random import Random

from cases import Case, row


def sizes(rng: Random, samples: int) -> tuple[list[int], int]:
    """The shape of scores, and a blank."""
    classes = rng.randint(2, 4)
    return [rng.randint(2, 5), samples, classes], rng.randrange(classes)


# One sample: the gradient is that of a sum, the value a mean.
@row("CtcLoss", "ctc_loss_param { alphabet_size: 11 time_step: 15 blank_label: 10 }")
def ctc_loss(rng: Random, name: str) -> Case:
    scores, blank = sizes(rng, 1)
    text = f"alphabet_size: {scores[2]} time_step: {rng.randint(1, scores[0])} "
    text += f"blank_label: {blank}"
    kinds = ("real", f"below {scores[2]}")
    return Case(f"ctc_loss_param {{ {text} }}", [scores, [1, rng.randint(1, 3)]], kinds)


@row("WarpCTCLoss", "ctc_loss_param { blank_index: 0 }")
def warp_ctc_loss(rng: Random, name: str) -> Case:
    scores, blank = sizes(rng, 1)
    steps, _, classes = scores
    if rng.random() < 0.5:
        return Case(
            f"ctc_loss_param {{ blank_index: {blank} }}",
            [scores, [1, rng.randint(1, 3)]],
            ("real", f"below {classes}"),
        )
    few = rng.randint(1, steps)
    return Case(
        f"ctc_loss_param {{ blank_index: {blank} }}",
        [scores, [1], [1], [few, 1]],
        ("real", f"below {steps + 1}", f"below {few + 1}", f"below {classes}"),
    )


@row("CTCLoss", "ctc_loss_param { blank_index: 0 }")
def jsemilla_ctc_loss(rng: Random, name: str) -> Case:
    """Labels of whole length that are no blank: one step for each."""
    scores, _ = sizes(rng, 1)
    steps, _, classes = scores
    merge = str(rng.random() < 0.5).lower()
    text = f"ctc_merge_repeated: {merge} preprocess_collapse_repeated: true"
    return Case(
        f"ctc_loss_param {{ {text} }}",
        [scores, [steps, 1], [steps, 1]],
        ("real", "ones", f"below {classes - 1}"),
    )


@row("CTCGreedyDecoder", "ctc_decoder_param { blank_index: 0 }", gradient=(), learns=False)
def greedy(rng: Random, name: str) -> Case:
    scores, blank = sizes(rng, rng.randint(1, 3))
    steps, samples, classes = scores
    text = f"ctc_decoder_param {{ blank_index: {blank} }}"
    if rng.random() < 0.6:
        return Case(text, [scores], ("distinct",))
    if rng.random() < 0.5:
        labels = [samples, rng.randint(1, 3)]
        return Case(text, [scores, labels], ("distinct", f"below {classes}"))
    bottoms = [scores, [steps, samples], [steps, samples]]
    text += "".join(f' top: "t{i}"' for i in range(rng.randint(1, 3)))
    return Case(text, bottoms, ("distinct", "below 2", f"below {classes}"))


@row(
    "LabelsequenceAccuracy",
    "labelsequence_accuracy_param { blank_label: 32 }",
    gradient=(),
    learns=False,
)
@row("SequenceAccuracy", "Sequence_accuracy_param { blank_label: 10 }", gradient=(), learns=False)
def sequence_accuracy(rng: Random, name: str) -> Case:
    n, classes = rng.randint(1, 3), rng.randint(2, 4)
    field = "labelsequence" if name.startswith("Label") else "Sequence"
    text = f"{field}_accuracy_param {{ blank_label: {rng.randrange(classes)} }}"
    bottoms = [[n, rng.randint(1, 4), classes], [n, rng.randint(1, 3)]]
    return Case(text, bottoms, ("distinct", f"below {classes}"))
