"""Lists of pictures with a label for each pixel."""

from __future__ import annotations

import caffe
from caffe.proto import caffe_pb2 as pb
from fuzz.families import Draw, Target, family

LINES = (
    "p.png p.png", "p.png 3", "p.png", "p.png p.png 0 0 3 3 1 0", "p.png p.png -9 -9 99 99 1 1",
    "p.png p.png 0 0 2147483647 2147483647 1 1", "p.png p.png 9 9 0 0", "p.png 1e9", "\t",
    "p.png p.png 99999999999999999999 0 1 1", "p.png\0 p.png", "x.png p.png", "p.png \xff",
)  # fmt: skip


@family(0.5)
def scenes(draw: Draw) -> Target:
    """A layer of segmentation data that reads a list of odd lines."""
    draw.bytes("pictures/*.png", "p.png") if draw.chance(0.3) else draw.copy(
        "pictures/label.png", "p.png"
    )
    lines = [draw.pick(*LINES) for _ in range(draw.pick(1, 2, 5))]
    draw.write("l.txt", "\n".join(lines).encode("latin-1"))
    kinds = ("ImageSegData", "WindowSegData", "SelectSegBinary", "ImageLabelmapData")
    layer = pb.LayerParameter(name="d", type=draw.pick(*kinds, "DenseImageData"))
    layer.top.extend(["a", "b", "c"][: 3 if layer.type == "SelectSegBinary" else 2])
    p = layer.dense_image_data_param if layer.type == "DenseImageData" else layer.image_data_param
    p.source, p.batch_size = "l.txt", draw.pick(1, 2)
    if layer.type.endswith(("SegData", "Binary")):
        p.label_type = draw.pick(0, 1, 2)
    if draw.chance(0.3):
        p.new_height, p.new_width = draw.pick(1, 8, 2**31), draw.pick(1, 8, 2**31)
    if draw.chance(0.3):
        layer.transform_param.crop_size = draw.pick(1, 4, 2**32 - 1)

    def run() -> None:
        net = caffe.Net(pb.NetParameter(layer=[layer]), caffe.TRAIN)
        for _ in range(2):
            net.forward()

    return run
