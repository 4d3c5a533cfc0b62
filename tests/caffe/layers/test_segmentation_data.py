"""Pictures with a label for each pixel: what the layers make of known files."""

from pathlib import Path

import cv2
import numpy as np
import pytest

import caffe

IMAGE = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)
LABELS = (np.arange(20, dtype=np.uint8) % 4).reshape(4, 5)


@pytest.fixture(autouse=True)
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cv2.imwrite("a.png", IMAGE)
    cv2.imwrite("l.png", LABELS)
    Path("list.txt").write_text("a.png l.png\n")


def run(net_of, kind, text, tops=2, phase=caffe.TEST, param="image_data_param", more=""):
    names = " ".join(f'top: "t{i}"' for i in range(tops))
    layer = f'layer {{ name: "d" type: "{kind}" {names} {more} {param} {{ source: "list.txt" '
    net = net_of(f"{layer} batch_size: 1 {text} }} }}", phase)
    net.forward()
    return [net.blobs[f"t{i}"].data.copy() for i in range(tops)]


def test_image_seg_data_fills_up_with_the_mean_and_the_ignored_label(net_of):
    more = "transform_param { crop_size: 6 mean_value: 3 mean_value: 2 mean_value: 1 scale: 2 }"
    image, labels, size = run(net_of, "ImageSegData", "label_type: PIXEL", 3, more=more)
    assert image.shape == (1, 3, 6, 6)
    expected = 2 * (IMAGE.astype(float) - [3, 2, 1]).transpose(2, 0, 1)
    np.testing.assert_array_equal(image[0, :, :4, :5], expected)
    assert not image[0, :, 4:].any()
    assert not image[0, :, :, 5:].any()
    np.testing.assert_array_equal(labels[0, 0, :4, :5], LABELS)
    assert (labels[0, 0, 4:] == 255).all()
    assert size.tolist() == [[[[4, 5]]]]


def test_image_seg_data_cuts_from_the_middle_in_test(net_of):
    more = "transform_param { crop_height: 2 crop_width: 3 }"
    image, labels = run(net_of, "ImageSegData", "label_type: PIXEL", more=more)
    np.testing.assert_array_equal(labels[0, 0], LABELS[1:3, 1:4])
    np.testing.assert_array_equal(image[0], IMAGE[1:3, 1:4].transpose(2, 0, 1))


@pytest.mark.parametrize("phase", [caffe.TRAIN, caffe.TEST])
def test_pictures_and_labels_move_alike(net_of, phase):
    """Each pixel's label says which it is."""
    marks = np.arange(80, dtype=np.uint8).reshape(8, 10)
    cv2.imwrite("a.png", np.repeat(marks[..., None], 3, 2))
    cv2.imwrite("l.png", marks)
    more = "transform_param { crop_size: 4 mirror: true }"
    seen = set()
    for kind, param in (
        ("ImageSegData", "image_data_param"),
        ("ImageLabelmapData", "image_data_param"),
        ("DenseImageData", "dense_image_data_param"),
    ):
        for seed in range(4):
            caffe.set_random_seed(seed)
            text = {"ImageSegData": "label_type: PIXEL", "ImageLabelmapData": "normalize: false"}
            image, labels = run(
                net_of, kind, text.get(kind, ""), phase=phase, param=param, more=more
            )
            np.testing.assert_array_equal(image[0, 0], labels[0, 0])
            seen.add(labels.tobytes())
    assert len(seen) > 1


def test_labels_of_a_whole_picture_and_none(net_of):
    Path("list.txt").write_text("a.png 7\n")
    _, labels = run(net_of, "ImageSegData", "label_type: IMAGE")
    assert set(labels.ravel()) == {7}
    Path("list.txt").write_text("a.png\n")
    _, labels = run(net_of, "ImageSegData", "label_type: NONE ignore_label: 9")
    assert set(labels.ravel()) == {9}


def test_scales_are_drawn(net_of):
    more = "transform_param { crop_size: 4 scale_factors: 0.5 scale_factors: 2 }"
    sizes = set()
    for seed in range(8):
        caffe.set_random_seed(seed)
        _, labels = run(net_of, "ImageSegData", "label_type: PIXEL", more=more)
        sizes.add(int((labels != 255).sum()))
    assert sizes == {2 * 2, 4 * 4}  # half of 4 x 5, padded; twice of it, cut


def test_a_window_reaches_beyond_the_picture(net_of):
    Path("list.txt").write_text("a.png l.png -1 2 2 5\n")
    image, labels, size = run(net_of, "WindowSegData", "label_type: PIXEL", 3)
    expected = np.full((4, 4), 255)
    expected[:2, 1:] = LABELS[2:4, 0:3]
    np.testing.assert_array_equal(labels[0, 0], expected)
    np.testing.assert_array_equal(image[0, :, :2, 1:], IMAGE[2:4, 0:3].transpose(2, 0, 1))
    assert not image[0, :, 2:].any()
    assert size.tolist() == [[[[4, 4]]]]  # the picture's, at most the top's


def test_only_wanted_classes_stay(net_of):
    """Class k > 0 becomes the number of class k - 1."""
    Path("list.txt").write_text("a.png l.png 0 0 4 3 0 5\n")
    _, labels, classes = run(
        net_of,
        "SelectSegBinary",
        "label_type: PIXEL",
        3,
        more="window_cls_data_param { label_dim: 2 }",
    )
    table = np.array([0, 0, 5, 0])  # class 3 has no number
    np.testing.assert_array_equal(labels[0, 0], table[LABELS])
    assert classes.ravel().tolist() == [0, 5]
    assert classes.shape == (1, 2, 1, 1)


def test_dense_labels_may_be_smaller(net_of):
    text = "new_height: 4 new_width: 4 label_divide_factor: 2"
    image, labels = run(net_of, "DenseImageData", text, param="dense_image_data_param")
    assert image.shape == (1, 3, 4, 4)
    assert labels.shape == (1, 1, 2, 2)
    np.testing.assert_array_equal(labels[0, 0], cv2.resize(LABELS, (2, 2), interpolation=0))


def test_edges_are_rounded(net_of):
    cv2.imwrite("l.png", np.array([[0, 127, 128, 200, 255]] * 4, np.uint8))
    _, labels = run(net_of, "ImageLabelmapData", "")
    assert labels[0, 0, 0].tolist() == [0, 0, 1, 1, 1]


@pytest.mark.parametrize(
    ("kind", "line", "text", "cause"),
    [
        ("ImageSegData", "a.png", "label_type: PIXEL", "list.txt:1: expected picture labels"),
        ("ImageSegData", "a.png x", "", "'x' where a whole number was expected"),
        ("WindowSegData", "a.png l.png 1 2 3", "label_type: PIXEL", "x1 y1 x2 y2"),
        ("WindowSegData", "a.png l.png 3 2 1 4", "label_type: PIXEL", "is empty"),
        ("WindowSegData", "a.png l.png 0 0 99999999 9", "label_type: PIXEL", "pixels"),
        ("ImageSegData", "a.png n.png", "label_type: PIXEL", "n.png"),
        ("ImageSegData", "", "", "lists no pictures"),
        ("ImageSegData", "a.png 1", "new_height: 4", "both new_height and new_width"),
        ("ImageSegData", "a.png 1", "label_type: BBX", "expected PIXEL, IMAGE or NONE"),
        ("SelectSegBinary", "a.png l.png 0 0 1 1", "label_type: PIXEL", "0 classes, expected 1"),
    ],
)
def test_what_does_not_fit_is_one_line(net_of, kind, line, text, cause):
    Path("list.txt").write_text(f"{line}\n")
    with pytest.raises(caffe.CaffeError, match=f"layer 'd' .*{cause}"):
        run(net_of, kind, text, 3)


def test_a_crop_larger_than_the_picture_is_named(net_of):
    more = "transform_param { crop_size: 9 }"
    with pytest.raises(caffe.CaffeError, match="smaller than the crop of 9 x 9"):
        run(net_of, "ImageLabelmapData", "", more=more)
