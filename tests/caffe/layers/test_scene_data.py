"""Pictures with boxes: what the maps of truth hold, by hand, and how pictures are cut."""

from pathlib import Path

import cv2
import numpy as np
import pytest

import caffe
from caffe.formats.prototext import parse
from caffe.proto import caffe_pb2 as pb


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def net(kind: str, text: str, tops: str) -> caffe.Net:
    named = " ".join(f'top: "{top}"' for top in tops.split())
    layer = f'layer {{ name: "data" type: "{kind}" {named} {text} }}'
    return caffe.Net(parse(layer.encode(), pb.NetParameter, "net"), caffe.TEST)


def write(size: tuple[int, int], boxes: list[str], nowhere: list[str] = ()) -> np.ndarray:
    """One picture, and the window file that lists it."""
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    cv2.imwrite("a.png", image)
    words = ["# 0", "a.png", "3", *map(str, size), str(len(boxes)), *boxes]
    Path("w.txt").write_text("\n".join([*words, str(len(nowhere)), *nowhere]))
    return image


def test_eval_data_resizes_to_multiples_of_32_and_scales_the_boxes():
    # The shorter side, 40, becomes 64; the other, 80, becomes 100, as long_size says, then 96.
    write((40, 80), ["3 1 0 8 4 40 20"])
    text = 'eval_data_param { source: "w.txt" batch_size: 1 short_size: 64 long_size: 100 }'
    made = net("EvalData", text, "data boxes sizes")
    made.forward()
    assert made.blobs["data"].shape == (1, 3, 64, 96)
    assert made.blobs["sizes"].data.ravel().tolist() == [64, 96]
    box = made.blobs["boxes"].data.ravel().tolist()
    assert box == pytest.approx([0, 8 * 1.2, 4 * 1.6, 40 * 1.2, 20 * 1.6, 3, 1, 0], rel=1e-6)


def test_eval_data_without_boxes_gives_a_row_of_minus_one():
    image = write((32, 64), [])
    transform = "transform_param { mean_value: 1 mean_value: 2 mean_value: 3 }"
    made = net(
        "EvalData", f'eval_data_param {{ source: "w.txt" batch_size: 1 }} {transform}', "d b"
    )
    made.forward()
    assert (made.blobs["b"].data.ravel() == -1).all()
    expected = image.transpose(2, 0, 1) - np.array([1.0, 2, 3]).reshape(3, 1, 1)
    np.testing.assert_array_equal(made.blobs["d"].data[0], expected)


FIELD = "field_w: 16 field_h: 16 downsample_rate: 8"


def truth(boxes: list[str], nowhere: list[str] = (), more: str = "") -> np.ndarray:
    write((32, 32), boxes, nowhere)
    text = f'image_gt_data_param {{ source: "w.txt" batch_size: 1 {FIELD} {more} }}'
    made = net("ImageGtData", text, "data truth")
    made.forward()
    return made.blobs["truth"].data[0]


def test_a_place_whose_field_overlaps_a_box_gets_it():
    # The field of place (1, 1) is 4 to 20 in both axes: the box itself. Its neighbour's, moved by
    # 8, shares 8 x 16 of 16 x 16 + 16 x 16 - 8 x 16: a third.
    found = truth(["2 0 4 4 20 20"])
    assert found[:, 1, 1].tolist() == [2, 12, 12, 16, 16, 1]
    assert found[5, 1, 2] == pytest.approx(1 / 3)
    assert (found[0] > 0).sum() == 1


def test_an_ignored_box_leaves_the_label_0_with_its_overlap():
    found = truth(["2 1 4 4 20 20"])
    assert found[:, 1, 1].tolist() == [0, 12, 12, 16, 16, 1]


def test_an_object_that_no_field_fits_gets_the_place_at_its_middle():
    # 8 x 8 in 16 x 16 is a quarter: more than a fifth, and below fg_threshold.
    found = truth(["1 0 8 8 16 16"])
    assert found[:5, 1, 1].tolist() == [1, 12, 12, 8, 8]
    assert found[5, 1, 1] == pytest.approx(0.25)
    assert not truth(["1 0 10 10 14 14"])[0].any()  # a sixteenth


def test_places_in_regions_of_no_interest_do_not_count():
    found = truth(["2 0 4 4 20 20"], ["0 0 32 32"])
    assert not found[:5].any()
    # Of a corner's field, -4 to 12, 12 x 12 of 16 x 16 pixels are in the region: more than 0.4.
    assert (found[5] == 1).all()


def test_a_small_picture_lies_within_zeros_that_do_not_count():
    write((16, 16), ["1 0 0 0 16 16"])
    Path("w.txt").write_text(Path("w.txt").read_text().replace("16\n16\n", "32\n32\n", 1))
    text = f'image_gt_data_param {{ source: "w.txt" batch_size: 1 {FIELD} output_gt_boxes: true }}'
    made = net("ImageGtData", text + " transform_param { mean_value: 300 }", "data truth boxes")
    made.forward()
    data, box = made.blobs["data"].data[0], made.blobs["boxes"].data.ravel()
    assert data.shape == (3, 32, 32)
    assert (data[0] != 0).sum() == 16 * 16
    left, top = (int(v) for v in box[1:3])
    assert (data[:, top : top + 16, left : left + 16] != 0).all()
    assert box[3:].tolist() == [left + 16, top + 16, 1, 0]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "lists no pictures"),
        ("a.png 3", "where a picture's '# index' was expected"),
        ("# 0 a.png 3 8 8 1 1 0 0 0", "broken off"),
        ("# 0 a.png 3 8 8 1 0 0 1 1 4 4 0", "labels start at 1"),
        ("# 0 a.png 1 8 8 0 0", "pictures of 1 channels"),
    ],
)
def test_a_faulty_window_file_is_one_line(words, message):
    Path("w.txt").write_text(words)
    with pytest.raises(caffe.CaffeError, match=message):
        net(
            "ImageGtData", f'image_gt_data_param {{ source: "w.txt" batch_size: 1 {FIELD} }}', "d t"
        )


def test_a_rate_that_leaves_no_place_is_refused():
    write((32, 32), ["1 0 8 8 16 16"])
    text = "field_w: 16 field_h: 16 downsample_rate: 4000"
    with pytest.raises(caffe.CaffeError, match="downsample_rate 4000 leaves no place"):
        net("ImageGtData", f'image_gt_data_param {{ source: "w.txt" batch_size: 1 {text} }}', "d t")
