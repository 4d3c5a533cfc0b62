"""Cases of EvalDetection."""

from random import Random

from cases import Case, row
from cases.yolo import anchors


@row(
    "EvalDetection",
    "eval_detection_param { side: 7 num_class: 20 num_object: 2 nms: 0.5 }",
    gradient=(),
    learns=False,
)
def eval_detection(rng: Random, name: str) -> Case:
    n, side, objects = (rng.randint(1, 2) for _ in range(3))
    classes = rng.randint(2, 3)
    text = f"side: {side} num_class: {classes} num_object: {objects} nms: {rng.choice([-1, 0.5])} "
    text += f"score_type: {rng.choice(['OBJ', 'PROB', 'MULTIPLY'])} "
    if rng.random() < 0.5:
        bottoms = [[n, side**2 * (classes + 5 * objects)], [n, 7 * side**2]]
        return Case(f"eval_detection_param {{ {text} }}", bottoms, ("real", "below 2"))
    text += anchors(rng, objects, 2)
    bottoms = [[n, objects * (5 + classes), side, side], [1, 1, rng.randint(1, 3), 8]]
    bottoms += [[n, 3, side, side]] * rng.randint(0, 1)  # pictures
    return Case(f"eval_detection_param {{ {text} }}", bottoms, ("real", "positive", "real"))
