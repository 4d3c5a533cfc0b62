"""AnnotatedData: pictures and boxes through all steps, and its way through a database."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from cases.annotated_data import RECORDS, SAMPLER, STEPS, write_annotated
from google.protobuf import text_format

import caffe
from caffe.data.annotated import AnnotatedTransformer
from caffe.data.distort import distorted, noised
from caffe.proto import caffe_pb2 as pb

pytestmark = pytest.mark.usefixtures("fresh")


def transformer(text: str, phase: int = caffe.TRAIN, samplers: str = "") -> AnnotatedTransformer:
    param = text_format.Parse(text, pb.TransformationParameter())
    chosen = text_format.Parse(samplers, pb.AnnotatedDataParameter())
    return AnnotatedTransformer(param, phase, list(chosen.batch_sampler))


def marked(height: int = 40, width: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """A dark picture with one bright box, and that box."""
    pixels = np.zeros((3, height, width), np.uint8)
    pixels[:, 10:30, 20:50] = 200
    box = [1, 0, 20 / width, 10 / height, 50 / width, 30 / height, 0]
    return pixels, np.array([box], np.float32)


def run(
    made: AnnotatedTransformer, pixels: np.ndarray, rows: np.ndarray, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return made.transform(pixels, rows, rng, made.choose(rng))


def inside(values: np.ndarray, box: np.ndarray) -> tuple[float, float]:
    """The share of bright pixels within a box, and of the bright ones those that are within."""
    _, height, width = values.shape
    bright = values[0] > 100
    x1, y1, x2, y2 = box[2:6] * [width, height, width, height]
    mask = np.zeros_like(bright)
    mask[round(y1) : round(y2), round(x1) : round(x2)] = True
    both = (bright & mask).sum()
    return both / mask.sum(), both / bright.sum()


@pytest.mark.parametrize("seed", range(12))
def test_boxes_follow_the_picture(seed):
    """Through a wider canvas, a sampled crop, another size, a crop and a mirror, the bright box of
    the picture stays where the row says.
    """
    steps = "expand_param { max_expand_ratio: 2 } resize_param { height: 90 width: 80 } "
    steps += "crop_h: 80 crop_w: 75 mirror: true"
    samplers = SAMPLER.replace("min_jaccard_overlap: 0.3", "min_object_coverage: 0.5")
    made = transformer(steps, samplers=samplers)
    values, rows = run(made, *marked(), seed)
    assert values.shape == (3, 80, 75)
    assert len(rows) == 1
    filled, found = inside(values, rows[0])
    assert filled > 0.8
    assert found > 0.8


def test_padding_keeps_the_ratio_and_fills():
    text = "resize_param { height: 60 width: 60 resize_mode: FIT_LARGE_SIZE_AND_PAD pad_value: 77 }"
    values, rows = run(transformer(text), *marked())
    assert (values[:, :10] == 77).all()
    assert (values[:, 50:] == 77).all()
    assert min(inside(values, rows[0])) > 0.95


def test_mean_and_scale():
    pixels, rows = marked()
    text = "mean_value: 1 mean_value: 2 mean_value: 3 scale: 0.5"
    values, _ = run(transformer(text), pixels, rows)
    expected = (pixels - np.array([1, 2, 3]).reshape(3, 1, 1)) * 0.5
    np.testing.assert_allclose(values, expected)


def test_a_wider_canvas_has_the_colour_of_the_mean():
    text = "expand_param { max_expand_ratio: 3 } mean_value: 10 mean_value: 20 mean_value: 30"
    values, _ = run(transformer(text), *marked(), 3)
    assert values.shape[1] > 40
    assert (values[:, -1, -1] == 0).all()


def test_tests_crop_the_middle():
    pixels, rows = marked()
    made = transformer("crop_h: 20 crop_w: 30", caffe.TEST)
    values, rows = run(made, pixels, rows)
    np.testing.assert_array_equal(values, pixels[:, 10:30, 15:45])
    assert rows[0, 2:6].tolist() == pytest.approx([5 / 30, 0, 1, 1])


def test_colours_change_within_their_ranges():
    image = np.full((2, 2, 3), 100, np.uint8)
    rng = np.random.default_rng(0)
    bright = pb.DistortionParameter(brightness_prob=1, brightness_delta=20)
    changed = [int(distorted(image, bright, rng)[0, 0, 0]) for _ in range(50)]
    assert (min(changed), max(changed)) >= (80, 110)
    assert max(changed) <= 120
    contrast = pb.DistortionParameter(contrast_prob=1, contrast_lower=1.5, contrast_upper=1.5)
    assert (distorted(image, contrast, rng) == 150).all()
    gray = pb.DistortionParameter(saturation_prob=1)  # to a factor of 0
    coloured = np.full((2, 2, 3), (20, 120, 220), np.uint8)
    assert (distorted(coloured, gray, rng) == 220).all()
    assert (distorted(coloured, pb.DistortionParameter(), rng) == coloured).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_noise(channels):
    image = np.random.default_rng(0).integers(0, 256, (8, 9, channels), np.uint8)
    rng = np.random.default_rng(0)
    assert (noised(image, pb.NoiseParameter(inverse=True), rng) == 255 - image).all()
    levels = set(np.unique(noised(image, pb.NoiseParameter(posterize=True), rng)))
    assert levels <= {32, 96, 160, 224}
    salt = pb.NoiseParameter(saltpepper=True)
    salt.saltpepper_param.fraction = 0.5
    salt.saltpepper_param.value.append(7)
    share = (noised(image, salt, rng) == 7).all(2).mean()
    assert 0.2 < share < 0.5  # places are drawn with repetition
    for step in ("gauss_blur", "hist_eq", "clahe", "erode"):
        changed = noised(image, pb.NoiseParameter(**{step: True}), rng)
        assert changed.shape == image.shape
        assert (changed != image).any()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("resize_param { height: 3 }", "must give height and width"),
        ("expand_param { max_expand_ratio: 1 }", "must be more than 1"),
        ("crop_h: 3", "both crop_h and crop_w"),
        ("noise_param { convert_to_lab: true }", "gives no bytes"),
        ("distort_param { hue_delta: -1 }", "hue_delta is -1"),
        (
            "distort_param { contrast_prob: 1 contrast_lower: 2 }",
            "contrast_lower 2 and contrast_upper",
        ),
        ("distort_param { brightness_delta: nan }", "brightness_delta is nan"),
        ("distort_param { contrast_prob: 1 contrast_upper: inf }", "contrast_upper inf are no"),
        ("expand_param { max_expand_ratio: inf }", "must be more than 1"),
        ("noise_param { jpeg: 1000 }", "jpeg is 1000, expected at most 100"),
        ("noise_param { saltpepper_param { fraction: nan } }", "fraction is nan, expected 0 to 1"),
    ],
)
def test_settings_that_cannot_be_used(text, message):
    with pytest.raises(caffe.CaffeError, match=message):
        transformer(text)


# -- the layer -----------------------------------------------------------------------------------


def net(path: Path, batch: int = 3, steps: str = "", more: str = "") -> caffe.Net:
    text = f"""layer {{ name: "data" type: "AnnotatedData" top: "x" top: "boxes" {more}
      transform_param {{ resize_param {{ height: 10 width: 12 }} {steps} }}
      data_param {{ source: "{path}" backend: LMDB batch_size: {batch} }} }}"""
    return caffe.Net(text_format.Parse(text, pb.NetParameter()), caffe.TRAIN)


@pytest.mark.parametrize("encoded", [True, False])
def test_rows_name_their_picture_in_the_batch(tmp_path, encoded):
    write_annotated(tmp_path / "db", encoded)
    made = net(tmp_path / "db")
    found = made.forward()
    assert found["x"].shape == (3, 3, 10, 12)
    # Pictures 0, 1 and 2 have as many boxes; then 3 and 4, and 0 again.
    assert found["boxes"].shape == (1, 1, 3, 8)
    assert found["boxes"][0, 0, :, :3].tolist() == [[1, 1, 0], [2, 1, 0], [2, 2, 1]]
    assert made.forward()["boxes"][0, 0, :, 0].tolist() == [0] * 3 + [1] * 4


def test_pictures_are_resized_as_opencv_does(tmp_path):
    write_annotated(tmp_path / "db")
    made = net(tmp_path / "db", batch=1)
    image = np.random.default_rng(0).integers(0, 256, (12, 14, 3), np.uint8)
    expected = cv2.resize(image, (12, 10)).transpose(2, 0, 1)
    np.testing.assert_array_equal(made.forward()["x"][0], expected)


def test_lists_for_yolo(tmp_path):
    write_annotated(tmp_path / "db")
    plain = net(tmp_path / "db", 3).forward()["boxes"][0, 0]
    more = "annotated_data_param { yolo_data_type: 1 yolo_data_jitter: 0 }"
    lists = net(tmp_path / "db", 3, more=more).forward()["boxes"]
    assert lists.shape == (3, 1, 300, 5)
    assert [(row != 0).any(1).sum() for row in lists[:, 0]] == [0, 1, 2]
    x1, y1, x2, y2 = plain[2, 3:7]
    expected = [1, (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1]
    np.testing.assert_allclose(lists[2, 0, 1], expected, rtol=1e-5)


def test_jitter_crops_a_part_of_the_pictures():
    from caffe.data.boxes import jittered

    rng = np.random.default_rng(0)
    drawn = np.array([jittered(0.4, False, rng) for _ in range(300)])
    sides = drawn[:, 2:] - drawn[:, :2]
    assert 0.6 <= sides.min() < 0.65
    assert 30 < (sides == 1).all(1).sum() < 90
    assert (drawn >= 0).all()
    assert (drawn <= 1).all()
    square = jittered(0.4, True, rng)
    assert square[2] - square[0] == pytest.approx(square[3] - square[1])


def test_a_batch_without_boxes_has_a_row_of_minus_one(tmp_path):
    write_annotated(tmp_path / "db", count=1)
    assert net(tmp_path / "db", batch=2).forward()["boxes"].ravel().tolist() == [-1] * 8


def test_a_run_goes_on_where_it_was(tmp_path):
    write_annotated(tmp_path / "db")
    more = f"annotated_data_param {{ {SAMPLER} }}"
    steps = " ".join(step for step in STEPS if "crop" not in step)
    caffe.set_random_seed(5)
    whole = net(tmp_path / "db", 2, steps, more)
    for _ in range(2):
        whole.forward()
    position = whole.layers[0].position()
    expected = [{k: v.copy() for k, v in whole.forward().items()} for _ in range(3)]
    caffe.set_random_seed(6)
    again = net(tmp_path / "db", 2, steps, more)
    again.layers[0].go_on(position)
    for batch in expected:
        found = again.forward()
        for name, values in batch.items():
            np.testing.assert_array_equal(found[name], values)


def test_one_of_several_sizes_is_chosen_for_ten_batches(tmp_path):
    write_annotated(tmp_path / "db")
    made = net(tmp_path / "db", steps="resize_param { height: 6 width: 8 prob: 2 }")
    heights = [made.forward()["x"].shape[2] for _ in range(200)]
    assert all(len(set(heights[i : i + 10])) == 1 for i in range(0, 200, 10))
    assert 8 <= heights[::10].count(6) < 20


def test_records_of_another_kind_are_refused(tmp_path):
    from caffe.formats import db

    with db.create(tmp_path / "db") as put:
        put(b"0", b"\xff\xff")
    with pytest.raises(caffe.CaffeError, match=r"layer 'data'.*record b'0'.*not an Anno"):
        net(tmp_path / "db")


def test_pictures_of_several_sizes_need_resize_param(tmp_path):
    write_annotated(tmp_path / "db")
    text = f"""layer {{ name: "data" type: "AnnotatedData" top: "x"
      data_param {{ source: "{tmp_path}/db" backend: LMDB batch_size: {RECORDS} }} }}"""
    made = caffe.Net(text_format.Parse(text, pb.NetParameter()), caffe.TRAIN)
    with pytest.raises(caffe.CaffeError, match="resize_param makes them alike"):
        made.forward()
