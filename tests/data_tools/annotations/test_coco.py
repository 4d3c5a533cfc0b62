"""COCO: instances and panoptic pictures."""

import json

import cv2
import numpy as np
import pytest
from drawn import SIZE, art, labels

from data_tools.annotations import kinds
from data_tools.cli import DataError
from data_tools.record import UnknownLabel

CATEGORIES = [
    {"id": 62, "name": "chair", "supercategory": "furniture"},
    {"id": 1, "name": "person", "supercategory": "person"},
    {"id": 67, "name": "dining table", "supercategory": "furniture"},
]
IMAGE = {"id": 42, "file_name": "a.jpg", "width": SIZE[0], "height": SIZE[1], "license": 3}


def annotation(category, segmentation, **more):
    told = {"id": 1, "image_id": 42, "category_id": category, "area": 4, "bbox": [0, 0, 2, 2]}
    return {**told, "segmentation": segmentation, "iscrowd": 0, **more}


def file(root, drawn, **more):
    told = {"info": {}, "licenses": [], "images": [IMAGE], "annotations": drawn}
    path = root / "instances_default.json"
    path.write_text(json.dumps({**told, "categories": CATEGORIES, **more}))
    return path


def test_polygons_and_masks_cover_the_pixels_that_were_drawn(tmp_path):
    two_parts = [[1, 0, 4, 0, 4, 2, 1, 2], [6.0, 0.0, 8.0, 0.0, 8.0, 1.0, 6.0, 1.0]]
    # The runs of masks go down the columns: 24 + 3 empty, 2 full, 6 empty, 3 full.
    crowd = {"counts": [27, 2, 6, 3, 58], "size": [SIZE[1], SIZE[0]]}
    annotations = [annotation(62, two_parts), annotation(67, crowd, iscrowd=1)]
    expected = art("""
        .222..22....
        .222........
        ............
        ...33.......
        ...33.......
        ....3.......
        """)
    # In the order of their numbers: person, chair, dining table.
    assert (labels(file(tmp_path, annotations))["a.jpg"] == expected).all()


def test_compressed_masks(tmp_path):
    # 27, 2, 6, 3, 58 as COCO writes them. 27 = 0b11011: five bits 11011 would be negative, so a
    # character of none follows: (27 + 32) + 48 = 'k', then '0'. 2 is '2', 6 is '6'. From here on
    # differences to two before: 3 - 2 = 1 is '1'; 58 - 6 = 52 = 0b1_10100: (20 + 32) + 48 = 'd',
    # then '1'.
    told = {"counts": "k0261d1", "size": [SIZE[1], SIZE[0]]}
    plain = {"counts": [27, 2, 6, 3, 58], "size": [SIZE[1], SIZE[0]]}
    found = labels(file(tmp_path, [annotation(62, told)]))["a.jpg"]
    assert found.sum() == 2 * 5
    assert (found == labels(file(tmp_path, [annotation(62, plain)]))["a.jpg"]).all()


def test_later_annotations_lie_on_top(tmp_path):
    left, right = [[0, 0, 4, 0, 4, 1, 0, 1]], [[2, 0, 6, 0, 6, 1, 2, 1]]
    found = labels(file(tmp_path, [annotation(62, left), annotation(1, right)]))["a.jpg"]
    assert (found == art("221111......")).all()


def test_what_tells_no_area_is_counted(tmp_path):
    annotations = [annotation(62, []), annotation(62, [[0, 0, 1, 0, 1, 1]], image_id=7)]
    found = kinds.read(file(tmp_path, annotations))
    assert found.left_out == {
        "annotation without a segmentation": 1,
        "annotation of no picture": 1,
    }
    assert [picture.empty for picture in found.pictures] == [True]


def test_sizes_with_a_fraction_of_nothing(tmp_path):
    image = {**IMAGE, "width": float(SIZE[0]), "height": f"{SIZE[1]}"}
    path = file(tmp_path, [annotation(62, [[0, 0, 4, 0, 4, 1]])], images=[image])
    assert labels(path)["a.jpg"].shape == SIZE[::-1]


def test_categories_that_are_not_listed_are_unknown(tmp_path):
    with pytest.raises(UnknownLabel, match=r"picture 'a.jpg': 'category 90' is not in the table"):
        labels(file(tmp_path, [annotation(90, [[0, 0, 4, 0, 4, 1]])]))


BAD = {
    "two points": ([[0, 0, 1, 1]], "a polygon of 2 points"),
    "odd": ([[0, 0, 1, 1, 2]], "not a shape that can be drawn"),
    "far": ([[0, 0, 1, 1, 2, 1e12]], "far outside"),
    "sum": ({"counts": [27, 2], "size": [8, 12]}, "its runs cover 29 pixels, expected 12x8 = 96"),
    "size": (
        {"counts": [96], "size": [12, 8]},
        r"a mask of the size \[12, 8\], expected \[8, 12\]",
    ),
    "text": ({"counts": "k0~", "size": [8, 12]}, "'~' is not part of a run-length code"),
    "cut": ({"counts": "k", "size": [8, 12]}, "its run-length code is cut off"),
    "long": ({"counts": "o" * 40, "size": [8, 12]}, "is not part of a run-length code"),
    "no counts": ({"size": [8, 12]}, "no 'counts'"),
    "words": ({"counts": ["x"], "size": [8, 12]}, "'x' is not a number of pixels"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_with_a_shape_names_picture_and_shape(tmp_path, case):
    told, message = BAD[case]
    with pytest.raises(DataError, match=rf"picture 'a.jpg': shape 1 \(chair\).*{message}"):
        labels(file(tmp_path, [annotation(62, told)]))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"images": []}, "lists no images"),
        ({"images": [IMAGE, IMAGE]}, "its id 42 is another picture's, too"),
        ({"images": [{"id": 1}]}, "not COCO's JSON of instances: no 'file_name'"),
        ({"images": [{**IMAGE, "width": "wide"}]}, "width is 'wide', expected a whole number"),
        ({"images": [{**IMAGE, "width": 10**6, "height": 10**6}]}, "at most"),
        ({"categories": None}, "not COCO's JSON of instances"),
        ({"categories": [{"id": "x", "name": "y"}]}, "a category's id is 'x'"),
        ({"annotations": [5]}, "not COCO's JSON of instances"),
    ],
)
def test_spoiled_files_have_their_line(tmp_path, more, message):
    with pytest.raises(DataError, match=rf"instances_default.json: .*{message}"):
        kinds.read(file(tmp_path, [], **more))


def panoptic(root, numbers, segments, **more):
    """Segments' numbers, H x W, become the colours R + 256 G + 65536 B."""
    numbers = np.asarray(numbers, np.int64)
    colors = np.stack([numbers >> 16, numbers >> 8, numbers], axis=2) & 255  # BGR
    (root / "panoptic_val").mkdir()
    cv2.imwrite(str(root / "panoptic_val" / "a.png"), colors.astype(np.uint8))
    told = {
        "images": [IMAGE],
        "annotations": [{"image_id": 42, "file_name": "a.png", "segments_info": segments}],
        "categories": [{**category, "isthing": 1, "color": [1, 2, 3]} for category in CATEGORIES],
    }
    path = root / "panoptic_val.json"
    path.write_text(json.dumps({**told, **more}))
    return path


def segment(number, category):
    return {"id": number, "category_id": category, "iscrowd": 0, "bbox": [0, 0, 1, 1], "area": 1}


def test_panoptic_pictures(tmp_path):
    drawn = art("112233...... ..1.2.3.....")
    many = 5 + 256 * 7 + 65536 * 9
    numbers = np.select([drawn == 1, drawn == 2, drawn == 3], [many, 300, 255])
    segments = [segment(many, 1), segment(300, 62), segment(255, 67)]
    found = labels(panoptic(tmp_path, numbers, segments))
    assert (found["a.jpg"] == drawn).all()
    assert kinds.read(tmp_path).kind == "COCO panoptic"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda told: told["annotations"][0].pop("file_name"), "no 'file_name'"),
        (lambda told: told["annotations"][0].update(file_name="../a.png"), "names no file in the"),
        (lambda told: told["annotations"][0].update(file_name="b.png"), "expected its PNGs in"),
        (lambda told: told["annotations"][0].update(segments_info=[]), "segment 1 is not in its"),
    ],
)
def test_spoiled_panoptic_files_have_their_line(tmp_path, spoil, message):
    path = panoptic(tmp_path, art("1" * 12), [segment(1, 1)])
    told = json.loads(path.read_text())
    spoil(told)
    path.write_text(json.dumps(told))
    with pytest.raises(DataError, match=message):
        labels(path)


def test_a_grey_picture_has_no_segments(tmp_path):
    path = panoptic(tmp_path, art("1" * 12), [segment(1, 1)])
    cv2.imwrite(str(tmp_path / "panoptic_val" / "a.png"), np.zeros((8, 12), np.uint8))
    with pytest.raises(DataError, match=r"a\.png: expected a colour picture"):
        labels(path)
