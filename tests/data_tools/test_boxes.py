"""Boxes of rendered objects, and the LMDBs in which they are written."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest
from google.protobuf import text_format

import caffe
from boundary.lmdb_file import LmdbFile
from caffe.proto import caffe_pb2 as pb
from data_tools import boxes, synth
from data_tools.boxes import Box, Picture
from data_tools.cli import DataError
from data_tools.render import Material, Renderer, Scene, Solid
from data_tools.synth import CABINET, COLUMN

GREY = Material((0.5, 0.5, 0.5), 0.0)
CORNERS = (64.4, 44.4, 96.6, 108.8)  # of cabinet()'s front in the image, see below


def cabinet(**changes) -> Solid:
    """1 x 2 x 1 m, its front 2.5 m before the camera.

    The image is 161 x 121 pixels for 90 degrees, so a tangent of 1 is 80.5 pixels from its middle
    (80.5, 60.5). The front spans -0.5..0.5 m to the sides, and from 0.5 m above the camera to 1.5 m
    below: tangents -0.2, 0.2, 0.2, -0.6.
    """
    settings = {"kind": "box", "center": (2.0, 4.0), "size": (1.0, 2.0, 1.0), "yaw": 0.0}
    return Solid(**{**settings, "material": GREY, "label": CABINET, "painted_label": 9, **changes})


# It hides the right half of the image, from 1.4 m before the camera on.
SCREEN = cabinet(center=(2.5, 2.5), size=(1.0, 2.9, 0.2), label=COLUMN)


def seen(*solids: Solid):
    """What the image shows of solids in a room of 4 x 3 x 6 m, from (2, 1.5, 1) along z."""
    room, camera, light = (4.0, 3.0, 6.0), (2.0, 1.5, 1.0), (2.0, 2.7, 3.0)
    scene = Scene(room, camera, 0.0, 0.0, light, (GREY,) * 3, (1, 2, 3), (), solids)
    renderer = Renderer(161, 121, np.radians(90))
    renderer.render(scene)
    return renderer.seen()


def test_a_box_is_that_of_the_projected_corners() -> None:
    (found,) = seen(cabinet())
    assert np.abs(np.subtract(found.box, CORNERS)).max() <= 1
    assert found.share == 1
    assert found.pixels == (found.box[2] - found.box[0]) * (found.box[3] - found.box[1])


def test_what_is_hidden_does_not_count() -> None:
    behind, before = seen(cabinet(), SCREEN)
    assert np.abs(np.subtract(behind.box, (*CORNERS[:2], 80.5, CORNERS[3]))).max() <= 1
    assert behind.share == pytest.approx(0.5, abs=0.03)
    assert before.share == 1
    assert seen(cabinet(size=(0.4, 1.0, 0.2), center=(2.7, 4)), SCREEN)[0].solid == SCREEN


@pytest.mark.parametrize(
    ("solid", "more", "difficult"),
    [
        (cabinet(), (), False),
        (cabinet(), (SCREEN,), False),
        (cabinet(painted=True), (), True),
        (cabinet(center=(2.35, 4.0)), (SCREEN,), True),  # a sixth of it is left
        (cabinet(size=(0.05, 2.0, 0.05)), (), True),  # 2 pixels wide
    ],
    ids=["whole", "half", "painted", "hidden", "small"],
)
def test_which_boxes_are_difficult(solid, more, difficult) -> None:
    first = next(item for item in seen(solid, *more) if item.solid == solid)
    box = synth._box(first, (161, 121), 3)
    assert (box.label, box.instance, box.difficult) == (1, 3, difficult)
    sides = np.multiply((box.left, box.top, box.right, box.bottom), (161, 121, 161, 121))
    assert sides == pytest.approx(first.box)


def annotated(path):
    """(key, AnnotatedDatum) of an LMDB."""
    for key, value in LmdbFile(path, DataError).every(0, 1):
        yield bytes(key).decode(), pb.AnnotatedDatum.FromString(bytes(value))


def flat(boxes_of_one) -> list[list[float]]:
    """Boxes as AnnotatedData gives them: label, instance, sides, difficult; in order."""
    return sorted(
        [b.label, b.instance, b.left, b.top, b.right, b.bottom, b.difficult] for b in boxes_of_one
    )


def test_synth_writes_what_it_rendered(command, tmp_path) -> None:
    said = command("synth", "db", "--count", 4, "--size", "64x48", "--boxes", "boxes", "--seed", 2)
    source = synth.Synth(4, (64, 48), 2)
    wanted = [source.picture(i) for i in range(4)]
    total = sum(len(picture.boxes) for picture in wanted)
    assert f"boxes: 4 pictures with {total} boxes" in said.stdout
    for i, (key, found) in enumerate(annotated(tmp_path / "boxes")):
        assert key == f"{i:08d}_synth{i}"
        assert found.type == found.BBOX
        image = cv2.imdecode(np.frombuffer(found.datum.data, np.uint8), cv2.IMREAD_COLOR)
        assert (image == source.load(i).color).all()
        got = [
            [group.group_label, a.instance_id, a.bbox.xmin, a.bbox.ymin, a.bbox.xmax, a.bbox.ymax]
            for group in found.annotation_group
            for a in group.annotation
        ]
        np.testing.assert_allclose(sorted(got), [row[:6] for row in flat(wanted[i].boxes)], 1e-6)


def test_annotated_data_reads_it(command, tmp_path) -> None:
    command("synth", "db", "--count", 3, "--size", "64x48", "--boxes", "boxes", "--seed", 5)
    layer = pb.LayerParameter(name="d", type="AnnotatedData", top=["data", "label"])
    layer.data_param.source, layer.data_param.batch_size = str(tmp_path / "boxes"), 3
    layer.data_param.backend = pb.DataParameter.LMDB
    layer.annotated_data_param.label_map_file = str(tmp_path / "boxes" / "labelmap.prototxt")
    net = caffe.Net(pb.NetParameter(layer=[layer]), caffe.TEST)
    rows = net.forward()["label"].reshape(-1, 8)
    source = synth.Synth(3, (64, 48), 5)
    for i in range(3):
        picture = source.picture(i)
        image = cv2.imdecode(np.frombuffer(picture.data, np.uint8), cv2.IMREAD_COLOR)
        assert (net.blobs["data"].data[i] == image.transpose(2, 0, 1)).all()
        got = sorted(rows[rows[:, 0] == i][:, 1:].tolist())
        np.testing.assert_allclose(got, flat(picture.boxes), 1e-6)


def test_the_label_map(command, tmp_path) -> None:
    command("synth", "db", "--count", 1, "--size", "64x48", "--boxes", "boxes")
    text = (tmp_path / "boxes" / "labelmap.prototxt").read_text()
    items = text_format.Parse(text, pb.LabelMap()).item
    names = [(item.label, item.name, item.display_name) for item in items]
    assert names == [
        (0, "none_of_the_above", "background"),
        (1, "cabinet", "cabinet"),
        (2, "fridge", "fridge"),
        (3, "column", "column"),
    ]


def test_names_with_quotes_and_line_ends_come_back() -> None:
    labels = boxes.numbered(['a "b"\\', "c\nd"])
    items = text_format.Parse(boxes.label_map(labels), pb.LabelMap()).item
    assert [item.name for item in items[1:]] == ['a "b"\\', "c\nd"]


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("item { name: 'a' label: 1 } item { name: 'a' label: 2 }", "name 'a' stands there 2"),
        ("item { name: 'a' label: 1 } item { name: 'b' label: 1 }", "label 1 stands there 2"),
        ("item { name: 'a' label: 0 }", "names no label from 1 up"),
        ("", "names no label from 1 up"),
        ("item { title: 'a' }", "not a label map: 1:8"),
    ],
)
def test_label_maps_that_are_none(text, wrong, tmp_path) -> None:
    (tmp_path / "l.prototxt").write_text(text)
    with pytest.raises(DataError, match=wrong):
        boxes.read_label_map(tmp_path / "l.prototxt")


class Few:
    """Four pictures of one box each; `fails` is the number of one that raises an exception."""

    names = ("a", "b", "c", "d")

    def __init__(self, fails: dict[int, BaseException] | None = None):
        self.fails, self.asked = fails or {}, []

    def picture(self, index: int) -> Picture:
        self.asked.append(index)
        if index in self.fails:
            raise self.fails[index]
        image = np.full((4, 4, 3), index, np.uint8)
        data = cv2.imencode(".png", image)[1].tobytes()
        return Picture(self.names[index], data, (4, 4), [Box(1, 0.25, 0.5, 0.75, 1.0)])


def write(path, source, **more):
    return boxes.write(path, source, boxes.numbered(["x"]), {}, more.pop("force", False), **more)


def test_an_interrupted_run_goes_on(tmp_path) -> None:
    whole = write(tmp_path / "whole", Few())
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "db", Few({2: KeyboardInterrupt()}))
    assert not (tmp_path / "db").exists()
    again = Few()
    assert write(tmp_path / "db", again) == whole
    assert again.asked == [2, 3]
    assert list(annotated(tmp_path / "db")) == list(annotated(tmp_path / "whole"))


def test_pictures_that_cannot_be_used(tmp_path, capsys) -> None:
    bad = {1: DataError("torn"), 3: DataError("worn")}
    with pytest.raises(DataError, match=r"2 of 4 pictures cannot be used \(named above\); mend"):
        write(tmp_path / "db", Few(bad))
    assert "cannot use picture b: torn" in capsys.readouterr().err
    info = write(tmp_path / "db", Few(bad), skip_bad=True)
    assert (info["records"], info["skipped"]) == (2, ["b", "d"])
    assert [key for key, _ in annotated(tmp_path / "db")] == ["00000000_a", "00000002_c"]
    with pytest.raises(DataError, match="none of its pictures can be used"):
        write(tmp_path / "none", Few(dict.fromkeys(range(4), bad[1])), skip_bad=True)


def test_an_lmdb_is_replaced_by_force_only(tmp_path) -> None:
    write(tmp_path / "db", Few())
    with pytest.raises(DataError, match="exists"):
        write(tmp_path / "db", Few())
    other = dataclasses.replace(Few().picture(0), boxes=[])
    source = Few()
    source.picture = lambda index: other
    assert write(tmp_path / "db", source, force=True)["boxes"] == {}


@pytest.mark.parametrize("there", [False, True], ids=["new", "there"])
def test_both_outputs_of_synth_in_one_place(command, there) -> None:
    if there:
        command("synth", "db", "--count", 1, "--size", "64x48")
    said = command("synth", "db", "--count", 1, "--boxes", "./db", "--force", code=1).stderr
    assert said.count("\n") == 1
    assert "--boxes would overwrite OUT_LMDB (db)" in said


@pytest.mark.parametrize("tool", ["inspect", "convert", "class_weights"])
def test_commands_for_other_records_refuse_it(tool, command, tmp_path) -> None:
    write(tmp_path / "db", Few())
    said = command(tool, "db", *(["other"] if tool == "convert" else []), code=1).stderr
    assert said.endswith(": db: holds pictures with boxes (for AnnotatedData layers)\n")
    assert said.count("\n") == 1
