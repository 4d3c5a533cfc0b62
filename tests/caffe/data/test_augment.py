"""Augmentation: where each pixel goes, what becomes of its colour, and what never changes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from google.protobuf import text_format

import caffe
from caffe.data.augment import LONGEST, Augmentation, Placing, jittered
from caffe.data.order import RecordRandom
from caffe.data.transform import RecordTransformer
from caffe.proto import caffe_pb2 as pb

STACKED = "color_channel: 0 color_channel: 1 color_channel: 2 label_channel: 4 "
HEIGHT, WIDTH = 12, 16


@pytest.fixture
def record() -> np.ndarray:
    """B, G, R at random, depth, and a label that is 1 + the pixel's number modulo 200."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (5, HEIGHT, WIDTH), np.uint8)
    pixels[4] = 1 + np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) % 200
    return pixels


@pytest.fixture
def augmented(record) -> Callable[..., np.ndarray]:
    """augmented(text, number=0, ...): what becomes of a record as the number-th of the stream."""

    def run(text: str, number: int = 0, pixels=record, phase=caffe.TRAIN, more="", seed=3):
        text = f"{more} augmentation_param {{ {text} }}"
        param = text_format.Parse(text, pb.TransformationParameter())
        transformer = RecordTransformer(param, phase)
        out = torch.full(transformer.shape(pixels), np.nan)
        rng = RecordRandom(seed, "data", phase).at(number) if transformer.random else None
        transformer.apply(pixels, out, rng)
        return out.numpy()

    return run


# -- off ------------------------------------------------------------------------------------------


def test_the_default_changes_and_draws_nothing(augmented, record) -> None:
    assert np.array_equal(augmented(STACKED), record)
    param = text_format.Parse("augmentation_param { }", pb.TransformationParameter())
    assert not RecordTransformer(param, caffe.TRAIN).random


def test_what_other_transformations_draw_stays(augmented, record) -> None:
    """A field that does nothing is the same as a missing one."""
    more, plain = "mirror: true crop_size: 7", pb.TransformationParameter(mirror=True, crop_size=7)
    for number in range(8):
        out = torch.empty(5, 7, 7)
        rng = RecordRandom(3, "data", caffe.TRAIN).at(number)
        RecordTransformer(plain, caffe.TRAIN).apply(record, out, rng)
        assert np.array_equal(augmented(STACKED, number, more=more), out)


def test_nothing_happens_in_test(augmented, record) -> None:
    text = STACKED + "min_scale: 0.5 max_scale: 2 crop_h: 5 crop_w: 5 brightness: 1 hue: 0.5"
    assert np.array_equal(augmented(text, phase=caffe.TEST), record)


def test_it_is_never_there_unless_asked_for() -> None:
    assert "augmentation" not in text_format.MessageToString(pb.TransformationParameter(scale=2))


# -- the same each time ---------------------------------------------------------------------------


def test_a_record_is_changed_alike_each_time(augmented) -> None:
    text = STACKED + "min_scale: 0.5 max_scale: 2 brightness: 0.5 contrast: 0.5 hue: 0.2"
    first = [augmented(text, number) for number in range(6)]
    again = [augmented(text, number) for number in reversed(range(6))][::-1]
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert len({a.tobytes() for a in first}) == 6
    assert not np.array_equal(augmented(text, 0, seed=4), first[0])


# -- zoom and crops -------------------------------------------------------------------------------


def test_doubled_pixels_are_exact(augmented, record) -> None:
    """Zoom 2: each pixel twice; a window of the record's size, anywhere on it."""
    big = record[3:].repeat(2, 1).repeat(2, 2)
    places = set()
    for number in range(40):
        out = augmented(STACKED + "min_scale: 2 max_scale: 2", number)
        windows = [
            (top, left)
            for top in range(HEIGHT + 1)
            for left in range(WIDTH + 1)
            if np.array_equal(out[3:], big[:, top : top + HEIGHT, left : left + WIDTH])
        ]
        assert len(windows) == 1
        places.add(windows[0])
    assert len(places) > 30


def test_halved_pixels_are_exact_and_the_rest_is_padding(augmented, record) -> None:
    """Zoom 1/2: of each 2 x 2 the pixel whose centre is nearest, the last; elsewhere the pads."""
    text = STACKED + "min_scale: 0.5 max_scale: 0.5 pad_value: 9 ignore_label: 255"
    small = record[3:, 1::2, 1::2]
    places = set()
    for number in range(40):
        out = augmented(text, number)
        top, left = np.argwhere(out[4] != 255)[0]
        inside = np.s_[:, top : top + HEIGHT // 2, left : left + WIDTH // 2]
        assert np.array_equal(out[3:][inside], small)
        out[inside] = -1
        assert (out[4][out[4] != -1] == 255).all()
        assert (out[:4][out[:4] != -1] == 9).all()
        places.add((top, left))
    assert len(places) > 20


def test_colour_is_interpolated_between_pixels(augmented) -> None:
    """On a plane 10 x + 100 y, which bilinear interpolation keeps, by the pixels' centres."""
    y, x = np.mgrid[:6, :8].astype(np.float32)
    pixels = np.stack([10 * x + 100 * y] * 2)
    out = augmented("color_channel: 0 min_scale: 2 max_scale: 2 crop_h: 12 crop_w: 16", 0, pixels)
    y, x = (np.mgrid[:12, :16] + 0.5) / 2 - 0.5
    plane = 10 * np.clip(x, 0, 7) + 100 * np.clip(y, 0, 5)
    np.testing.assert_allclose(out[0], plane, rtol=1e-6, atol=1e-4)
    assert np.array_equal(out[1], pixels[1].repeat(2, 0).repeat(2, 1))


@pytest.mark.parametrize("scales", ["min_scale: 0.3 max_scale: 3", "max_scale: 1.7"])
def test_labels_are_never_mixed(augmented, record, scales: str) -> None:
    """Whatever the zoom, each label and depth is one of the record's, and they stay together."""
    pairs = {*zip(record[3].ravel().tolist(), record[4].ravel().tolist(), strict=True), (0, 0)}
    for number in range(30):
        out = augmented(STACKED + scales, number)
        assert {*zip(out[3].ravel().tolist(), out[4].ravel().tolist(), strict=True)} <= pairs


def test_zoom_is_drawn_evenly(augmented) -> None:
    """By the share of the frame that a record covers: its root is the scale, from 0.5 to 1."""
    ones = np.ones((1, 200, 200), np.uint8)
    scales = [
        np.sqrt(augmented("min_scale: 0.5 max_scale: 1", number, ones).mean())
        for number in range(200)
    ]
    assert 0.5 <= min(scales) < 0.52
    assert 0.98 < max(scales) <= 1
    assert abs(np.mean(scales) - 0.75) < 0.04  # 4 deviations: 0.5 / sqrt(12) / sqrt(200) = 0.01


@pytest.mark.parametrize(("crop_h", "crop_w"), [(5, 9), (12, 4), (20, 10), (30, 40)])
def test_free_crops(augmented, record, crop_h: int, crop_w: int) -> None:
    """A window of the record, or the whole record on padding, an axis at a time."""
    text = STACKED + f"crop_h: {crop_h} crop_w: {crop_w} ignore_label: 250 pad_value: 7"
    padded = np.full((5, HEIGHT + 40, WIDTH + 60), 7.0)
    padded[4] = 250
    padded[:, 20 : 20 + HEIGHT, 30 : 30 + WIDTH] = record
    tops = range(20, 21 + HEIGHT - crop_h) if crop_h <= HEIGHT else range(20 + HEIGHT - crop_h, 21)
    lefts = range(30, 31 + WIDTH - crop_w) if crop_w <= WIDTH else range(30 + WIDTH - crop_w, 31)
    seen = set()
    for number in range(30):
        out = augmented(text, number)
        places = [
            (top, left)
            for top in tops
            for left in lefts
            if np.array_equal(out, padded[:, top : top + crop_h, left : left + crop_w])
        ]
        assert len(places) == 1
        seen.add(places[0])
    assert len(seen) > 5


def test_mirror_mean_and_scale_come_after(augmented, record) -> None:
    text = STACKED + "crop_h: 20 crop_w: 20 pad_value: 5 ignore_label: 5"
    plain = augmented(text, more="mirror: true")
    changed = augmented(text, more="mirror: true mean_value: 3 scale: 0.5")
    np.testing.assert_array_equal(changed, (plain - 3) * 0.5)
    flipped = [augmented(text, n, more="mirror: true") for n in range(12)]
    row = record[3, 0].astype(np.float32)
    ways = {(_holds(out[3], row), _holds(out[3], row[::-1])) for out in flipped}
    assert ways == {(True, False), (False, True)}


def _holds(plane: np.ndarray, row: np.ndarray) -> bool:
    windows = np.lib.stride_tricks.sliding_window_view(plane, len(row), axis=1)
    return bool((windows == row).all(-1).any())


def test_a_very_small_zoom_leaves_a_pixel(augmented) -> None:
    out = augmented("min_scale: 0.001 max_scale: 0.001", 0, np.full((1, 4, 5), 3, np.uint8))
    assert sorted(out.ravel().tolist()) == [0] * 19 + [3]


def test_placing_by_hand() -> None:
    class Last:
        def integers(self, end: int) -> int:
            return end - 1

    assert Placing.draw(10, 1.5, 10, Last()) == Placing(10, 15, 5, 0, 10)
    assert Placing.draw(10, 0.5, 10, Last()) == Placing(10, 5, 0, 5, 5)
    # 5 pixels of 15: centres 10.5 / 1.5 = 7.0, 7.67, 8.33, 9.0, 9.67
    assert Placing(10, 15, 10, 0, 5).nearest().tolist() == [7, 7, 8, 9, 9]


# -- rotation -------------------------------------------------------------------------------------


class _Drawn:
    """Draws the highest value of each range, and a window's or picture's first place."""

    def uniform(self, low: float, high: float) -> float:
        return high

    def integers(self, end: int) -> int:
        return 0


def turned(text: str, pixels: np.ndarray) -> np.ndarray:
    """A record that is turned counterclockwise by the largest angle, zoomed by the largest zoom."""
    param = text_format.Parse(text, pb.AugmentationParameter())
    augmentation = Augmentation(param, 0, False)
    out = np.full(augmentation.shape(pixels.shape), np.nan, np.float32)
    augmentation.apply(pixels, out, _Drawn())
    return out


def test_quarter_and_half_turns_are_exact(record) -> None:
    square = record[:, :, :HEIGHT]
    assert np.array_equal(turned(STACKED + "max_angle: 90", square), np.rot90(square, 1, (1, 2)))
    assert np.array_equal(turned(STACKED + "max_angle: 180", record), record[:, ::-1, ::-1])
    # Of the wide record, a quarter turn leaves the middle twelve columns.
    lying = turned(STACKED + "max_angle: 90 ignore_label: 250 pad_value: 7", record)
    assert np.array_equal(lying[:, :, 2:14], np.rot90(record[:, :, 2:14], 1, (1, 2)))
    for edge in (lying[:, :, :2], lying[:, :, 14:]):
        assert (edge[:4] == 7).all()
        assert (edge[4] == 250).all()


def test_zoom_rotation_and_crop_are_one_resampling(record, augmented) -> None:
    """Half a turn of a doubled record: no pixel is interpolated a second time."""
    doubled = "min_scale: 2 max_scale: 2 crop_h: 24 crop_w: 32"
    plain = augmented(STACKED + doubled)[:, ::-1, ::-1]
    out = turned(STACKED + doubled + " max_angle: 180", record)
    assert np.array_equal(out[3:], plain[3:])
    np.testing.assert_allclose(out[:3], plain[:3], atol=1)  # halves may be rounded otherwise


@pytest.mark.parametrize("more", ["", "min_scale: 1.5 max_scale: 1.5 ", "crop_h: 30 crop_w: 20 "])
def test_pixels_go_where_they_should(more: str) -> None:
    """By arithmetic: each pixel of the output shows the place that a turn by 30 degrees, around the
    middle of the resized picture, brings to it, or padding."""
    height, width, angle = 20, 26, np.radians(30)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    pixels = np.stack([x, y, x, y, 1 + np.zeros_like(x)])
    text = "color_channel: 0 color_channel: 1 label_channel: 4 ignore_label: 9 pad_value: -5 "
    out = turned(text + more + "max_angle: 30", pixels)
    zoom = 1.5 if "scale" in more else 1
    y, x = np.mgrid[: out.shape[1], : out.shape[2]] + 0.5
    right, down = x - width * zoom / 2, y - height * zoom / 2
    # Counterclockwise on the screen, where y points down.
    from_x = (np.cos(angle) * right - np.sin(angle) * down) / zoom + width / 2
    from_y = (np.sin(angle) * right + np.cos(angle) * down) / zoom + height / 2
    ends = np.stack([from_x, from_y, width - from_x, height - from_y]).min(0)
    inside, beyond = ends > 0.01, ends < -0.01  # the rest is too near to the edge to tell
    assert inside.sum() > 200
    assert beyond.sum() > 50
    assert (out[4][inside] == 1).all()
    assert (out[4][beyond] == 9).all()
    assert (out[:4, beyond] == -5).all()
    for i, (where, size) in enumerate(((from_x, width), (from_y, height))):
        linear = np.clip(where - 0.5, 0, size - 1)
        # OpenCV interpolates between 32 places of a pixel.
        np.testing.assert_allclose(out[i][inside], linear[inside], atol=0.05)
        assert (np.abs(out[2 + i] - (where - 0.5))[inside] < 0.51).all()  # the nearest pixel's


def test_angles_are_drawn_evenly(augmented) -> None:
    """By the slope of a plane that rises to the right."""
    x = np.mgrid[:40, :40][1].astype(np.float32)[None]
    angles = []
    for number in range(200):
        middle = augmented("color_channel: 0 max_angle: 20", number, x)[0, 15:26, 15:26]
        down, right = np.gradient(middle.astype(np.float64))
        angles.append(np.degrees(np.arctan2(-down.mean(), right.mean())))
    assert -20.5 < min(angles) < -19
    assert 19 < max(angles) < 20.5
    assert abs(np.mean(angles)) < 3.3  # 4 deviations: 40 / sqrt(12) / sqrt(200) = 0.82


@pytest.mark.parametrize("type", [np.uint8, np.float32])
def test_turned_labels_are_never_mixed(augmented, record, type) -> None:
    pixels = record.astype(type)
    pairs = {*zip(pixels[3].ravel().tolist(), pixels[4].ravel().tolist(), strict=True), (0, 0)}
    for number in range(30):
        out = augmented(STACKED + "max_angle: 180 min_scale: 0.5 max_scale: 2", number, pixels)
        assert {*zip(out[3].ravel().tolist(), out[4].ravel().tolist(), strict=True)} <= pairs


def test_contrast_of_a_turned_record_leaves_padding_out(augmented) -> None:
    """The mean grey of an even picture is its grey, so that contrast does nothing."""
    grey = np.full((3, 16, 16), 100, np.uint8)
    text = STACKED[: STACKED.index("label")] + "max_angle: 90 contrast: 1"
    for number in range(5):
        out = augmented(text, number, grey)
        np.testing.assert_allclose(out[out > 0], 100, atol=1e-3)
        assert (out == 0).any()


def test_sides_that_are_too_long_to_turn(augmented) -> None:
    long = np.zeros((1, 1, LONGEST + 1), np.uint8)
    with pytest.raises(caffe.CaffeError, match=f"up to {LONGEST} pixels, there is one of 32767"):
        augmented("max_angle: 1", 0, long)
    assert augmented("max_angle: 1", 0, long[:, :, 1:]).shape == (1, 1, LONGEST)


# -- depth ----------------------------------------------------------------------------------------

SCALED = STACKED + "depth_channel: 3 min_depth_scale: 0.5 max_depth_scale: 2 "


@pytest.mark.parametrize(("type", "most"), [(np.uint8, 255), (np.float32, np.inf)])
def test_depth_is_multiplied_within_its_type(augmented, record, type, most: float) -> None:
    pixels = record.astype(type)
    pixels[3, :, :3], pixels[3, :, 3:6], pixels[3, :, 6:9] = 0, 1, 200
    factors = []
    for number in range(100):
        out = augmented(SCALED, number, pixels)
        assert np.array_equal(out[[0, 1, 2, 4]], pixels[[0, 1, 2, 4]])
        assert (out[3, :, :3] == 0).all()  # a hole stays one, and nothing else becomes one
        factors.append(out[3, 0, 3])
        expected = np.minimum(pixels[3] * factors[-1], most)
        np.testing.assert_allclose(out[3], expected, rtol=1e-5)
    assert 0.5 <= min(factors) < 0.55
    assert 1.9 < max(factors) <= 2


def test_padding_of_depth_is_not_scaled(record) -> None:
    for more in ("crop_h: 20 crop_w: 20 ", "max_angle: 45 "):
        out = turned(SCALED + more + "pad_value: 300", record)
        assert (out[3] == 300).sum() == (out[0] == 300).sum() > 0


# -- the same numbers -----------------------------------------------------------------------------


@pytest.mark.parametrize("more", ["max_angle: 1e-6", "depth_channel: 3 max_depth_scale: 2"])
def test_what_came_later_draws_later(augmented, record, more: str) -> None:
    """Rotation and depth leave the zoom, the place and the jitter that were drawn without them."""
    text = STACKED + "min_scale: 0.5 max_scale: 2 brightness: 0.5 contrast: 0.5 hue: 0.2 "
    for number in range(10):
        before, after = augmented(text, number), augmented(text + more, number)
        # Centres between two pixels may go to either, and OpenCV interpolates between 32 places.
        assert (before[4] == after[4]).mean() > 0.8
        assert np.abs(before[:3] - after[:3]).mean() < 4


# -- colour ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "jitter", ["brightness: 0.9", "contrast: 0.9", "saturation: 1", "hue: 0.5"]
)
def test_jitter_leaves_depth_and_label_alone(augmented, record, jitter: str) -> None:
    for number in range(5):
        out = augmented(STACKED + jitter, number)
        assert np.array_equal(out[3:], record[3:])
        assert not np.array_equal(out[:3], record[:3])
        assert out.min() >= 0
        assert out.max() <= 255


def test_padding_is_not_jittered(augmented) -> None:
    text = STACKED + "crop_h: 30 crop_w: 30 pad_value: 100 brightness: 0.5 contrast: 0.5"
    out = augmented(text)
    assert (out[0] == 100).sum() >= 30 * 30 - HEIGHT * WIDTH


def test_brightness_is_a_factor(augmented) -> None:
    grey = np.full((1, 2, 2), 100, np.uint8)
    factors = [augmented("color_channel: 0 brightness: 0.5", n, grey)[0, 0, 0] for n in range(200)]
    assert 50 <= min(factors) < 53
    assert 147 < max(factors) <= 150


def test_contrast_keeps_the_mean_grey(augmented) -> None:
    """Two colours, half of the pixels each: both move from the mean grey by one factor."""
    pixels = np.zeros((3, 2, 2), np.uint8)
    pixels[:, 0], pixels[:, 1] = 60, 140
    for number in range(20):
        out = augmented(STACKED[: STACKED.index("label")] + "contrast: 0.5", number, pixels)
        low, high = out[0, 0, 0], out[0, 1, 0]
        assert low + high == pytest.approx(200, abs=1e-3)
        assert 40 * 0.5 - 1e-3 <= (high - low) / 2 <= 40 * 1.5 + 1e-3


def test_saturation_and_hue_keep_grey_values(augmented) -> None:
    text = STACKED[: STACKED.index("label")]
    grey = np.full((3, 2, 2), 90, np.uint8)
    color = np.array([120, 90, 140], np.uint8).reshape(3, 1, 1)
    weights = np.array([0.114, 0.587, 0.299])
    for number in range(10):
        for jitter in ("saturation: 0.5", "hue: 0.1"):
            np.testing.assert_allclose(augmented(text + jitter, number, grey), 90, atol=1e-3)
            out = augmented(text + jitter, number, color).ravel()
            assert weights @ out == pytest.approx(weights @ color.ravel(), abs=1e-2)


def test_without_saturation_all_is_grey() -> None:
    param = pb.AugmentationParameter(color_channel=[0, 1, 2], saturation=1)
    augmentation = Augmentation(param, 0, False)

    class Least:
        def uniform(self, low: float, high: float) -> float:
            return low

    matrix, shift = augmentation._draw_jitter(Least())
    colors = np.random.default_rng(0).uniform(0, 255, (3, 4, 4)).astype(np.float32)
    grey = 0.114 * colors[0] + 0.587 * colors[1] + 0.299 * colors[2]
    np.testing.assert_allclose(jittered(colors, matrix, shift), np.stack([grey] * 3), rtol=1e-4)


class _Turn:
    """Draws a share of a whole turn."""

    def __init__(self, share: float) -> None:
        self.share = share

    def uniform(self, low: float, high: float) -> float:
        assert (low, high) == (-0.5, 0.5)
        return self.share


def test_hue_turns_around_grey() -> None:
    param = pb.AugmentationParameter(color_channel=[0, 1, 2], hue=0.5)
    augmentation = Augmentation(param, 0, False)

    def matrix(share: float) -> np.ndarray:
        return augmentation._draw_jitter(_Turn(share))[0]

    colors = np.random.default_rng(0).uniform(100, 150, (3, 4, 4)).astype(np.float32)
    grey = 0.114 * colors[0] + 0.587 * colors[1] + 0.299 * colors[2]
    opposite = 2 * grey - colors  # half a turn: the other side of grey
    np.testing.assert_allclose(jittered(colors, matrix(0.5), 0), opposite, rtol=1e-4)
    np.testing.assert_allclose(matrix(0.1) @ matrix(0.2), matrix(0.3), atol=1e-9)
    red = np.array([0, 0, 1])
    b, g, r = matrix(1 / 3) @ red
    assert max(b, g) > r


# -- settings -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "more", "message"),
    [
        ("min_scale: 0", "", "min_scale 0 and max_scale 1; expected 0 < min_scale <= max_scale"),
        ("min_scale: 2", "", "min_scale 2 and max_scale 1; expected 0 <"),
        ("max_scale: inf", "", "max_scale inf"),
        ("min_scale: nan", "", "min_scale nan"),
        ("max_scale: 1e10", "", r"max_scale is 1e.10, expected at most 64"),
        ("crop_h: 100000 crop_w: 100000", "", "make more than 67108864 pixels"),
        ("crop_h: 5", "", "give both crop_h and crop_w, or none"),
        ("crop_h: 5 crop_w: 5", "crop_size: 4", "give either crop_h and crop_w, or crop_size"),
        ("max_scale: 2", "crop_size: 4", "crop_size does not go with zoom and rotation; give"),
        ("max_angle: 5", "crop_size: 4", "crop_size does not go with zoom and rotation; give"),
        ("max_scale: 2", 'mean_file: "m"', "mean_file does not go with zoom, rotation and free"),
        ("max_angle: 5", 'mean_file: "m"', "mean_file does not go with zoom, rotation and free"),
        ("max_angle: 181", "", "max_angle is 181; expected 0 to 180 degrees"),
        ("max_angle: -1", "", "max_angle is -1; expected 0 to 180 degrees"),
        ("max_angle: nan", "", "max_angle is nan; expected 0 to 180 degrees"),
        ("max_depth_scale: 2", "", "min_depth_scale and max_depth_scale need depth_channel"),
        (
            "depth_channel: 3 min_depth_scale: 2",
            "",
            "min_depth_scale 2 and max_depth_scale 1; expected 0 < min_depth_scale <=",
        ),
        ("depth_channel: 3 max_depth_scale: 65", "", "max_depth_scale is 65, expected at most 64"),
        (STACKED + "depth_channel: 4", "", r"a channel is named twice: \[0, 1, 2, 4, 4\]"),
        ("label_channel: 1 color_channel: 1", "", r"a channel is named twice: \[1, 1\]"),
        ("brightness: 0.2", "", "colour jitter needs color_channel"),
        ("hue: 0.2 color_channel: 1", "", r"need three color_channel, B, G, R; given \[1\]"),
        (STACKED + "hue: 0.6", "", "hue is 0.6; expected 0 to 0.5"),
        (STACKED + "contrast: -0.1", "", "contrast is -0.1; expected 0 to 1"),
        (STACKED + "saturation: 2", "", "saturation is 2; expected 0 to 1"),
        (STACKED + "brightness: nan", "", "brightness is nan; expected 0 to 1"),
    ],
)
@pytest.mark.parametrize("phase", [caffe.TRAIN, caffe.TEST])
def test_settings_that_make_no_sense(text: str, more: str, message: str, phase: int) -> None:
    text = f"{more} augmentation_param {{ {text} }}"
    param = text_format.Parse(text, pb.TransformationParameter())
    param.ClearField("mean_file") if not more.startswith("mean") else None
    with pytest.raises(caffe.CaffeError, match=f"^augmentation_param: .*{message}"):
        Augmentation(param.augmentation_param, param.crop_size, param.HasField("mean_file"))
    if not more.startswith("mean"):
        with pytest.raises(caffe.CaffeError, match=message):
            RecordTransformer(param, phase)


def test_a_channel_that_the_record_lacks(augmented) -> None:
    with pytest.raises(caffe.CaffeError, match="channel 5 is named, the record has 5"):
        augmented("label_channel: 5 max_scale: 2")
