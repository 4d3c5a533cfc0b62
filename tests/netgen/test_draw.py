"""Drawings: what is folded, where boxes go, and the files."""

from __future__ import annotations

import itertools
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import cv2
import numpy as np
import pytest
from google.protobuf import text_format

from caffe import TEST, TRAIN
from caffe.errors import CaffeError
from caffe.graph.rules import layers_in
from caffe.graph.sketch import sketch
from caffe.proto.caffe_pb2 import NetParameter
from netgen import Architecture, Training, deploy_net, train_net
from netgen.cli import main
from netgen.draw import compose, draw
from netgen.graph import build
from netgen.picture import Circle, Line, Rectangle, Text

ARCH = Architecture("sf5", 40, (320, 240))
SF5 = deploy_net(ARCH)
INTEROP = Path(__file__).parents[1] / "golden" / "interop"


@pytest.mark.parametrize("name", ["sf1", "sf3", "df2", "rgb", "rgbd"])
@pytest.mark.parametrize("scenes", [0, 10])
def test_no_two_boxes_share_a_place(name: str, scenes: int) -> None:
    arch = Architecture(name, 5, (64, 64), scene_classes=scenes)
    for net, phase in ((deploy_net(arch), TEST), (train_net(arch, Training("a", "b")), TRAIN)):
        picture = compose(net, phase)
        boxes = [
            (s.x, s.y, s.x + s.width, s.y + s.height)
            for s in picture.shapes
            if isinstance(s, Rectangle) and s.hint
        ]
        boxes += [
            (s.x - s.radius, s.y - s.radius, s.x + s.radius, s.y + s.radius)
            for s in picture.shapes
            if isinstance(s, Circle)
        ]
        for a, b in itertools.combinations(boxes, 2):
            assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
        for x0, y0, x1, y1 in boxes:
            assert 0 <= x0 < x1 <= picture.width
            assert 0 <= y0 < y1 <= picture.height


def test_arrows_end_at_their_boxes_and_masks_are_dashed() -> None:
    picture = compose(SF5, TEST, sketch(SF5, TEST))
    lines = [s for s in picture.shapes if isinstance(s, Line)]
    boxes, arrows = build(layers_in(SF5, TEST))
    # One more in the legend.
    assert len(lines) == len(arrows) + 1
    assert sum(line.dashed for line in lines) == 5 + 1
    for line in lines:
        for x, y in line.points:
            assert 0 <= x <= picture.width
            assert 0 <= y <= picture.height
    names = {s.text for s in picture.shapes if isinstance(s, Text)}
    drawn = {box.layer.name for box in boxes}
    assert names >= {name for name in drawn if not name.endswith("_fuse")}


def test_boxes_are_as_tall_as_their_blobs() -> None:
    picture = compose(SF5, TEST, sketch(SF5, TEST))
    height = {
        s.hint.split(" ")[0]: s.height
        for s in picture.shapes
        if isinstance(s, Rectangle) and s.hint
    }
    tall = [height[f"conv{k}_1"] for k in range(1, 6)]
    assert tall == sorted(tall, reverse=True)
    assert len(set(tall)) == 5


def test_svg_is_well_formed_and_says_what_the_net_is(tmp_path: Path) -> None:
    out = tmp_path / "net.svg"
    draw(SF5, out, TEST, sketch(SF5, TEST), title="A & <B>")
    root = ElementTree.parse(out).getroot()
    space = "{http://www.w3.org/2000/svg}"
    assert root.find(f"{space}title").text == "A & <B>"
    texts = [element.text for element in root.iter(f"{space}text")]
    assert "conv1_1_pair1ch" in texts
    assert any("44.2 M parameters" in text for text in texts)
    assert [path.name for path in tmp_path.iterdir()] == ["net.svg"]


def test_png_is_the_same_picture(tmp_path: Path) -> None:
    draw(SF5, tmp_path / "net.png", TEST)
    image = cv2.imread(str(tmp_path / "net.png"))
    picture = compose(SF5, TEST)
    height, width, _ = image.shape
    assert width / height == pytest.approx(picture.width / picture.height, rel=0.01)
    assert width >= 1.9 * picture.width
    # White ground, and the colours of the boxes.
    assert (image[0, 0] == 255).all()
    for bgr in ((0xF0, 0xCB, 0xA9), (0x7A, 0xE0, 0xFF)):  # Convolution, Fusion
        assert (image == np.array(bgr, np.uint8)).all(-1).any()


def test_nothing_is_left_where_a_file_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(CaffeError, match="cannot be written"):
        draw(SF5, tmp_path / "none" / "net.svg", TEST)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["v0", "v1", "train"])
def test_old_and_foreign_nets_can_be_drawn(name: str, tmp_path: Path) -> None:
    out = tmp_path / "net.svg"
    assert main(["draw", str(INTEROP / f"{name}.prototxt"), str(out)]) == 0
    assert ElementTree.parse(out).getroot().tag.endswith("svg")


def test_a_skip_past_other_boxes_keeps_clear_of_them() -> None:
    text = """
    layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 1 dim: 4 dim: 8 dim: 8 } } }
    layer { name: "a" type: "Convolution" bottom: "x" top: "a" }
    layer { name: "b" type: "Convolution" bottom: "a" top: "b" }
    layer { name: "sum" type: "Eltwise" bottom: "x" bottom: "b" top: "sum" }
    """
    picture = compose(text_format.Parse(text, NetParameter()), TEST)
    boxes = [s for s in picture.shapes if isinstance(s, Rectangle) and s.hint]
    arc = max((s for s in picture.shapes if isinstance(s, Line)), key=lambda s: len(s.points))
    assert len(arc.points) == 4
    level = arc.points[1][1]
    assert all(not box.y <= level <= box.y + box.height for box in boxes)


@pytest.mark.parametrize(
    "name", ["<script>x</script>", '"><img onerror=x>', "a\x1b[31m", "$x^$ ]]>"]
)
def test_names_are_text_in_drawings(tmp_path: Path, name: str) -> None:
    net = NetParameter(name=name)
    net.layer.add(name=name, type="Input", top=[name]).input_param.shape.add(dim=[1, 3, 8, 8])
    net.layer.add(name=f"{name} 2", type=f"Odd{name}", bottom=[name], top=["y"])
    for out in (tmp_path / "net.svg", tmp_path / "net.png"):
        draw(net, out, TEST)
    root = ElementTree.parse(tmp_path / "net.svg").getroot()
    shown = name.replace("\x1b", " ")
    assert shown in "".join(root.itertext())
    kinds = {element.tag.rpartition("}")[2] for element in root.iter()}
    assert kinds <= {"svg", "title", "rect", "circle", "text", "path", "polygon"}
    assert cv2.imread(str(tmp_path / "net.png")) is not None
