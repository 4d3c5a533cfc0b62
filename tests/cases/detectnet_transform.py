"""Cases of DetectNetTransformation."""

from random import Random

import caffe
from cases import Case, row


@row(
    "DetectNetTransformation",
    "detectnet_groundtruth_param { stride: 16 image_size_x: 1248 image_size_y: 384 }",
    gradient=(),
    learns=False,
)
def detectnet(rng: Random, name: str) -> Case:
    n, stride = rng.randint(1, 2), rng.randint(2, 5)
    text = (
        f"stride: {stride} image_size_x: {rng.randint(5, 20)} image_size_y: {rng.randint(5, 20)} "
    )
    text += f"obj_norm: {rng.choice(['true', 'false'])} object_class {{ src: 1 dst: 2 }}"
    text = f"detectnet_groundtruth_param {{ {text} }} transform_param {{ mean_value: 127 }} "
    text += 'top: "a" top: "b"'
    bottoms = [[n, 3, rng.randint(4, 16), rng.randint(4, 16)], [n, 1, rng.randint(3, 5), 16]]
    return Case(text, bottoms, ("below 256", "below 2"), phase=caffe.TEST)
