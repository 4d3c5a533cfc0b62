"""Label Studio's export as JSON."""

import json

import pytest
from drawn import SIZE, art, labels

from data_tools.annotations import kinds
from data_tools.cli import DataError

WIDE, HIGH = SIZE


def region(kind, value, label="wall", identity="r1", **more):
    told = {
        "original_width": WIDE,
        "original_height": HIGH,
        "image_rotation": 0,
        "value": {**value, f"{kind}labels": [label]},
        "id": identity,
        "from_name": "label",
        "to_name": "image",
        "type": f"{kind}labels",
        "origin": "manual",
    }
    return {**told, **more}


def polygon(corners, label="wall", identity="r1", **more):
    points = [[100 * x / WIDE, 100 * y / HIGH] for x, y in corners]
    return region("polygon", {"points": points, "closed": True}, label, identity, **more)


def rectangle(x, y, width, height, label="wall", identity="r1", rotation=0):
    sides = {"x": 100 * x / WIDE, "width": 100 * width / WIDE}
    sides |= {"y": 100 * y / HIGH, "height": 100 * height / HIGH, "rotation": rotation}
    return region("rectangle", sides, label, identity)


def task(results, image="/data/upload/1/0a1b2c3d-a.png", **more):
    done = {"id": 5, "completed_by": 1, "result": results, "was_cancelled": False}
    told = {
        "id": 1,
        "annotations": [{**done, "ground_truth": False}],
        "file_upload": "0a1b2c3d-a.png",
    }
    return {**told, "drafts": [], "predictions": [], "data": {"image": image}, **more}


def file(root, *tasks):
    path = root / "project-1-at-2026-01-15.json"
    path.write_text(json.dumps(list(tasks)))
    return path


def bits(text):
    """Zeros and ones, blanks left out, as the bytes of a code."""
    text = "".join(text.split())
    text += "0" * (-len(text) % 8)
    return [int(text[i : i + 8], 2) for i in range(0, len(text), 8)]


# 12 x 8 x 4 = 384 words of 8 bits; counts have 3, 4, 8 or 16 bits.
STROKE_HEAD = f"{384:032b} {7:05b} {2:04b} {3:04b} {7:04b} {15:04b}"
# A run of 8 zeros (3 bits: 7); 8 single words, of two opaque pixels; a run of the 368 others.
STROKE = bits(
    STROKE_HEAD
    + f"1 00 111 {0:08b}"
    + "0 00 111" + "".join(f"{word:08b}" for word in (9, 8, 7, 255, 9, 8, 7, 1))
    + f"1 11 {367:016b} {0:08b}"
)  # fmt: skip


def test_each_region_covers_the_pixels_that_were_drawn(tmp_path):
    results = [
        polygon([(1, 1), (5, 1), (5, 3), (1, 3)], "wall", "r1"),
        rectangle(7, 1, 2, 2, "sofa", "r2"),
        region("brush", {"format": "rle", "rle": STROKE}, "lamp", "r3"),
        region("ellipse", {"x": 100 * 4 / WIDE, "y": 100 * 5 / HIGH, "radiusX": 100 * 2 / WIDE,
                           "radiusY": 0.0, "rotation": 0}, "sofa", "r4"),
    ]  # fmt: skip
    expected = art("""
        ..11........
        .3333..22...
        .3333..22...
        ............
        ............
        ..22222.....
        """)
    found = labels(file(tmp_path, task(results)))
    assert (found["/data/upload/1/0a1b2c3d-a.png"] == expected).all()


def test_rectangles_turn_about_their_upper_left_corner(tmp_path):
    turned = file(tmp_path, task([rectangle(6, 2, 3, 2, rotation=90)]))
    (found,) = labels(turned).values()
    assert (found == art("............ " * 2 + "....11...... " * 3)).all()


def test_later_regions_lie_on_top(tmp_path):
    regions = [rectangle(0, 0, 4, 1, "a", "r1"), rectangle(2, 0, 4, 1, "b", "r2")]
    (found,) = labels(file(tmp_path, task(regions))).values()
    assert (found == art("112222......")).all()


def test_a_label_may_have_a_result_of_its_own(tmp_path):
    shape = rectangle(0, 0, 4, 1, identity="r1") | {"type": "rectangle"}
    shape["value"].pop("rectanglelabels")
    named = {**shape, "type": "labels", "value": {**shape["value"], "labels": ["b"]}}
    alone = {**shape, "id": "r2"}
    choice = {"type": "choices", "value": {"choices": ["indoor"]}, "id": "r9"}
    keypoint = region("keypoint", {"x": 1, "y": 1, "width": 0.3}, identity="r8")
    path = file(tmp_path, task([shape, named, alone, choice, keypoint]))
    (found,) = labels(path).values()
    assert (found == art("1111........")).all()
    read = kinds.read(path)
    assert list(read.names) == ["b"]
    assert read.left_out == {"region without a label": 1, "keypointlabels": 1}


def test_cancelled_annotations_do_not_count_and_the_truth_goes_first(tmp_path):
    def done(label, **more):
        return {"result": [rectangle(0, 0, 1, 1, label)], "was_cancelled": False, **more}

    tasks = [
        task([], annotations=[done("a"), done("b")]),
        task([], annotations=[done("c", ground_truth=True), done("d")]),
        task([], annotations=[done("e"), done("f", was_cancelled=True)]),
        task([], annotations=[done("g", was_cancelled=True)]),
        task([], annotations=[]),
    ]
    found = kinds.read(file(tmp_path, *tasks))
    assert list(found.names) == ["b", "c", "e"]
    assert found.notes == [
        "2 tasks have no annotation and are left out",
        "2 pictures have several annotations: the one marked as ground truth, else the last one, "
        "is taken",
    ]


@pytest.mark.parametrize(
    ("address", "names"),
    [
        ("/data/upload/1/0a1b2c3d-a.png", ["/data/upload/1/0a1b2c3d-a.png", "data/upload/1/a.png"]),
        ("/data/local-files/?d=rooms/rgb/a%201.png", ["rooms/rgb/a 1.png"]),
        ("s3://bucket/rooms/a.png", ["/rooms/a.png"]),
        ("https://host/rooms/a%201.png?token=5", ["/rooms/a 1.png"]),
        ("a.png", ["a.png"]),
    ],
)
def test_names_of_pictures_are_found_in_addresses(tmp_path, address, names):
    (picture,) = kinds.read(file(tmp_path, task([rectangle(0, 0, 1, 1)], address))).pictures
    assert picture.names == names


def test_the_short_form(tmp_path):
    value = rectangle(0, 0, 4, 1)
    told = {**value["value"], "original_width": WIDE, "original_height": HIGH}
    short = {"image": "/data/upload/1/0a1b2c3d-a.png", "id": 1, "label": [told], "annotator": 1}
    (found,) = labels(file(tmp_path, short)).values()
    assert (found == art("1111........")).all()


BAD = {
    "format": ({"format": "png", "rle": []}, "its format is 'png', expected 'rle'"),
    "cut": ({"format": "rle", "rle": STROKE[:12]}, "its run-length code is cut off"),
    "empty": ({"format": "rle", "rle": []}, "its run-length code is cut off"),
    "words": (
        {"format": "rle", "rle": bits(f"{383:032b}") + STROKE[4:]},
        "its stroke has 383 words",
    ),
    "bits": ({"format": "rle", "rle": [*STROKE[:4], 0, *STROKE[5:]]}, "384 words of 1 bits"),
    "beyond": (
        {"format": "rle", "rle": bits(STROKE_HEAD + f"1 11 {384:016b} {0:08b}")},
        "its stroke goes beyond 12x8 pixels",
    ),
    "no bytes": ({"format": "rle", "rle": [256]}, "not a shape that can be drawn"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_with_a_stroke_names_task_and_region(tmp_path, case):
    told, message = BAD[case]
    path = file(tmp_path, task([region("brush", told)]))
    with pytest.raises(DataError, match=rf"task 1, picture .*a.png.*: shape 1 \(wall\).*{message}"):
        labels(path)


@pytest.mark.parametrize(
    ("told", "message"),
    [
        (task([polygon([(0, 0)])]), r"task 1, .*shape 1 \(wall\): a polygon of 1 points"),
        (task([polygon([], image_rotation=90)]), "was turned in Label Studio"),
        (task([rectangle(0, 0, 1, 1) | {"original_width": None}]), "width is 'None'"),
        (task([rectangle(0, 0, 1, 1, identity=[])]), "not Label Studio's JSON"),
        (task([], data={"text": "x"}), "its data names 0 pictures, expected one"),
        (task([], data={"rgb": "a.png", "depth": "b.png"}), "its data names 2 pictures"),
        (task([region("polygon", {"points": [], "labels": ["a", "b"]}) | {"value": {
            "points": [], "labels": ["a", "b"]}}]), "a region has the labels a, b, expected one"),
        (task([5]), "not Label Studio's JSON"),
        ({"id": 1, "annotations": 5, "data": {}}, "not Label Studio's JSON"),
        (task([], annotations=[]), "no task has an annotation"),
    ],
)  # fmt: skip
def test_spoiled_files_have_their_line(tmp_path, told, message):
    with pytest.raises(DataError, match=rf"project-1-at-2026-01-15.json: .*{message}"):
        labels(file(tmp_path, told))


@pytest.mark.filterwarnings("error")
def test_numbers_beyond_all_pictures_have_their_line(tmp_path):
    """They overflow in silence."""
    path = file(tmp_path, task([polygon([(0, 0), (9, 0), (1e308, 1e308)])]))
    with pytest.raises(DataError, match="far outside the picture"):
        labels(path)
