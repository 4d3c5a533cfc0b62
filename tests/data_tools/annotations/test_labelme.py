"""LabelMe's folders of JSON."""

import base64
import json

import cv2
import numpy as np
import pytest
from drawn import SIZE, art, labels

from data_tools.annotations import kinds
from data_tools.cli import DataError


def shape(label, kind, points, **more):
    told = {"label": label, "points": points, "group_id": None, "description": ""}
    return {**told, "shape_type": kind, "flags": {}, "mask": None, **more}


def png(mask):
    data = cv2.imencode(".png", np.array(mask, np.uint8))[1].tobytes()
    return base64.b64encode(data).decode()


def file(root, shapes, name="a", **more):
    told = {
        "version": "5.5.0",
        "flags": {},
        "shapes": shapes,
        "imagePath": f"../rgb/{name}.png",
        "imageData": None,
        "imageHeight": SIZE[1],
        "imageWidth": SIZE[0],
        **more,
    }
    (root / f"{name}.json").write_text(json.dumps(told, indent=2))
    return root


def test_each_shape_covers_the_pixels_that_were_drawn(tmp_path):
    shapes = [
        shape("wall", "polygon", [[1, 0], [5, 0], [5, 2], [1, 2]]),
        shape("chair", "rectangle", [[9.0, 2.0], [7.0, 0.0]]),
        shape("lamp", "circle", [[2, 5], [4, 5]]),
        shape("sofa", "mask", [[8, 4], [10, 5]], mask=png([[1, 0, 1], [0, 1, 1]])),
        shape("wall", "oriented_rectangle", [[6, 6], [11, 6], [11, 7], [6, 7]]),
    ]
    expected = art("""
        .44444.111..
        .44444.111..
        .44444.111..
        .222........
        22222...3.3.
        22222....33.
        22222.444444
        .222..444444
        """)
    # In the order of the alphabet: chair, lamp, sofa, wall.
    assert (labels(file(tmp_path, shapes))["../rgb/a.png"] == expected).all()


def test_later_shapes_lie_on_top(tmp_path):
    shapes = [
        shape("a", "rectangle", [[0, 0], [5, 1]]),
        shape("b", "rectangle", [[2, 0], [3, 0]]),
        shape("a", "rectangle", [[3, 0], [7, 0]]),
    ]
    expected = art("112111111111 111111......".replace("112111111111", "11211111...."))
    assert (labels(file(tmp_path, shapes))["../rgb/a.png"] == expected).all()


def test_words_for_nothing_are_0_and_lines_are_left_out(tmp_path):
    shapes = [
        shape("wall", "rectangle", [[0, 0], [5, 1]]),
        shape("__ignore__", "rectangle", [[0, 0], [1, 0]]),
        shape("_background_", "rectangle", [[4, 0], [4, 0]]),
        shape("wall", "linestrip", [[0, 7], [5, 7]]),
        shape("wall", "point", [[0, 7]]),
    ]
    expected = art("..11.1...... 111111......")
    assert (labels(file(tmp_path, shapes))["../rgb/a.png"] == expected).all()
    found = kinds.read(tmp_path)
    assert list(found.names) == ["wall"]
    assert found.left_out == {"linestrip": 1, "point": 1}


def test_old_files_tell_neither_size_nor_shape_type(tmp_path):
    told = {"label": "wall", "points": [[0, 0], [2, 0], [2, 1], [0, 1]], "line_color": None}
    file(tmp_path, [told], imageHeight=None, imageWidth=None)
    assert (labels(tmp_path)["../rgb/a.png"] == art("111......... 111.........")).all()


def test_masks_may_reach_beyond_the_picture(tmp_path):
    whole = np.ones((3, 3))
    file(tmp_path, [shape("wall", "mask", [[-1, 6], [1, 8]], mask=png(whole))])
    expected = art(f"{'............ ' * 6}11.......... 11..........")
    assert (labels(tmp_path)["../rgb/a.png"] == expected).all()


def test_a_spoiled_file_spoils_its_frame_alone(tmp_path):
    file(tmp_path, [shape("wall", "rectangle", [[0, 0], [5, 1]])])
    (tmp_path / "b.json").write_text('{"shapes": [')
    (tmp_path / "c.json").write_text('{"colours": []}')
    found = kinds.read(tmp_path)
    assert found.notes == ["1 JSON files without 'shapes' are left out"]
    names = {picture.names[0]: picture for picture in found.pictures}
    assert set(names) == {"../rgb/a.png", "b"}
    with pytest.raises(DataError, match=r"b\.json: not JSON"):
        names["b"].draw(lambda name: 1, SIZE)


BAD = {
    "two points": (shape("wall", "polygon", [[0, 0], [5, 1]]), "a polygon of 2 points"),
    "three": (shape("wall", "circle", [[0, 0], [5, 1], [1, 1]]), "a circle of 3 points"),
    "kind": (shape("wall", "cuboid", [[0, 0]]), "its shape_type is 'cuboid', expected polygon"),
    "far": (shape("wall", "polygon", [[0, 0], [5, 1], [1e9, 2]]), "far outside the picture"),
    "nan": (shape("wall", "polygon", [[0, 0], [5, 1], [float("nan"), 2]]), "far outside"),
    "text": (shape("wall", "polygon", [["x", 0], [5, 1], [1, 2]]), "could not convert"),
    "null": (shape("wall", "polygon", None), "no 'points'"),
    "base64": (shape("wall", "mask", [[0, 0], [1, 1]], mask="%%"), "not a shape that can be drawn"),
    "no png": (shape("wall", "mask", [[0, 0], [1, 1]], mask="AAAA"), "not a picture"),
    "size": (shape("wall", "mask", [[0, 0], [4, 1]], mask=png([[1]])), "a mask of 1x1 pixels, exp"),
    "no mask": (shape("wall", "mask", [[0, 0], [4, 1]]), "no 'mask'"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_with_a_shape_names_file_and_shape(tmp_path, case):
    told, message = BAD[case]
    with pytest.raises(DataError, match=rf"a.json: shape 1 \(wall\).*{message}"):
        labels(file(tmp_path, [told]))


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ([5], "a.json: not LabelMe's JSON"),
        ([{"points": []}], "a.json: not LabelMe's JSON: no 'label'"),
    ],
)
def test_files_of_another_form_have_their_line(tmp_path, told, message):
    file(tmp_path, told)
    with pytest.raises(DataError, match=message):
        labels(tmp_path)
