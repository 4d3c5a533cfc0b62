"""What RecordTransformer makes of records."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest
import torch
from google.protobuf import text_format
from records import make_datum

import caffe
from caffe.data.order import RecordRandom
from caffe.data.transform import RecordTransformer
from caffe.formats import files
from caffe.proto import caffe_pb2 as pb

pytestmark = pytest.mark.usefixtures("fresh")


IMAGE = np.arange(2 * 5 * 6, dtype=np.uint8).reshape(2, 5, 6)


@pytest.fixture
def transformed() -> Callable[..., np.ndarray]:
    """transformed(param, array, phase, seed): what RecordTransformer makes of a record."""

    def transform(text: str, array=IMAGE, phase: int = caffe.TEST, seed: int = 0) -> np.ndarray:
        param = text_format.Parse(text, pb.TransformationParameter())
        transformer = RecordTransformer(param, phase)
        datum = array if isinstance(array, pb.Datum) else make_datum(array)
        pixels = transformer.pixels(datum, "record")
        out = torch.empty(transformer.shape(pixels))
        rng = RecordRandom(seed, "data", phase).at(0) if transformer.random else None
        transformer.apply(pixels, out, rng)
        return out.numpy()

    return transform


def test_values_as_they_are(transformed) -> None:
    assert np.array_equal(transformed(""), IMAGE)
    floats = IMAGE.astype(np.float32) / 7 - 3
    assert np.array_equal(transformed("", floats), floats)


def test_the_middle_in_test(transformed) -> None:
    # (5 - 2) // 2 = 1 and (6 - 2) // 2 = 2
    assert np.array_equal(transformed("crop_size: 2"), IMAGE[:, 1:3, 2:4])


def test_all_places_alike_in_train(transformed) -> None:
    places = set()
    for seed in range(150):
        out = transformed("crop_size: 4", phase=caffe.TRAIN, seed=seed)
        top, left = divmod(int(out[0, 0, 0]), 6)
        assert np.array_equal(out, IMAGE[:, top : top + 4, left : left + 4])
        places.add((top, left))
    assert places == {(top, left) for top in range(2) for left in range(3)}


def test_half_are_mirrored(transformed) -> None:
    outs = [transformed("mirror: true", seed=seed) for seed in range(100)]
    mirrored = [np.array_equal(out, IMAGE[:, :, ::-1]) for out in outs]
    straight = [np.array_equal(out, IMAGE) for out in outs]
    assert all(a != b for a, b in zip(mirrored, straight, strict=True))
    assert 30 < sum(mirrored) < 70  # 50 of 100, give or take 4 standard deviations


def test_mean_and_scale(transformed, tmp_path) -> None:
    floats = IMAGE.astype(np.float32)
    assert np.array_equal(transformed("mean_value: 3 scale: 0.5"), (floats - 3) * 0.5)
    per_channel = (floats - np.float32([[[1]], [[2]]])) * 0.25
    assert np.array_equal(transformed("mean_value: 1 mean_value: 2 scale: 0.25"), per_channel)
    mean = np.random.default_rng(0).normal(size=(1, 2, 5, 6)).astype(np.float32)
    files.write_blob(tmp_path / "mean", mean, old_form=True)
    text = f'mean_file: "{tmp_path}/mean" scale: 2 '
    assert np.array_equal(transformed(text), (floats - mean[0]) * 2)
    # the mean is cut at the record's place
    cut = np.s_[:, 1:3, 2:4]
    assert np.array_equal(transformed(text + "crop_size: 2"), (floats[cut] - mean[0][cut]) * 2)


def _encoded(array: np.ndarray) -> pb.Datum:
    ok, data = cv2.imencode(".png", array)
    assert ok
    return pb.Datum(encoded=True, data=data.tobytes(), label=3)


def test_encoded_pictures(transformed) -> None:
    colour = np.random.default_rng(0).integers(0, 256, (4, 3, 3), np.uint8)
    grey = colour[:, :, 0]
    assert np.array_equal(transformed("", _encoded(colour)), colour.transpose(2, 0, 1))
    assert np.array_equal(transformed("", _encoded(grey)), grey[None])
    assert np.array_equal(transformed("force_color: true", _encoded(grey)), np.stack([grey] * 3))
    assert transformed("force_gray: true", _encoded(colour)).shape == (1, 4, 3)


def test_colour_is_only_forced_on_encoded_pictures(transformed, capsys) -> None:
    assert np.array_equal(transformed("force_color: true"), IMAGE)
    assert "force_color and force_gray only for encoded datum" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "record", "message"),
    [
        ("crop_size: 6", IMAGE, "crop_size 6 exceeds the record's 5 x 6"),
        ("mean_value: 1 mean_value: 2 mean_value: 3", IMAGE,
         r"mean_value is given 3 time\(s\), expected 1 or the record's 2 channels"),
        ("force_color: true force_gray: true", _encoded(IMAGE[0]), "exclude each other"),
        ("", pb.Datum(encoded=True, data=b"\x89PNG no more"), "not a picture that can be read"),
        ("", pb.Datum(encoded=True), "not a picture that can be read"),
        ("", pb.Datum(channels=2, height=2, width=2, data=b"1234567"),
         "the record holds 7 values, its shape 2 x 2 x 2 needs 8"),
        ("", pb.Datum(channels=-1, height=-2, width=4, data=b"12345678"), "shape -1 x -2 x 4"),
        ("", pb.Datum(), "the record holds 0 values"),
    ],
)  # fmt: skip
def test_records_that_cannot_be_used(transformed, text, record, message) -> None:
    with pytest.raises(caffe.CaffeError, match=message):
        transformed(text, record)


def test_a_mean_of_another_shape(transformed, tmp_path) -> None:
    files.write_blob(tmp_path / "mean", np.zeros((1, 2, 5, 5), np.float32), old_form=True)
    with pytest.raises(caffe.CaffeError, match=r"has the shape \(2, 5, 5\), the record"):
        transformed(f'mean_file: "{tmp_path}/mean"')
