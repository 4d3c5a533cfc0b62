"""io: pycaffe's conversions, pictures and pre-processing."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from caffe import io
from caffe.errors import CaffeError
from caffe.proto import caffe_pb2 as pb

RNG = np.random.default_rng(0)


# --- messages ---


def test_blobproto_both_ways() -> None:
    array, diff = RNG.standard_normal((2, 2, 3, 4)).astype(np.float32)
    blob = pb.BlobProto.FromString(io.array_to_blobproto(array, diff).SerializeToString())
    np.testing.assert_array_equal(io.blobproto_to_array(blob), array)
    np.testing.assert_array_equal(io.blobproto_to_array(blob, return_diff=True), diff)
    assert io.array_to_blobproto(np.float32(3).reshape(())).data == [3]


def test_blobproto_of_the_old_form() -> None:
    blob = pb.BlobProto(num=1, channels=2, height=1, width=3, data=range(6))
    np.testing.assert_array_equal(
        io.blobproto_to_array(blob), np.arange(6, dtype=float).reshape(1, 2, 1, 3)
    )
    with pytest.raises(ValueError, match="cannot reshape a BlobProto's 1 values into 2") as caught:
        io.blobproto_to_array(pb.BlobProto(data=[1], shape=pb.BlobShape(dim=[2])))
    assert isinstance(caught.value, CaffeError)
    with pytest.raises(CaffeError, match="the bytes given: not a BlobProtoVector"):
        io.blobprotovector_str_to_arraylist(b"\xff\xff")


def test_blobprotovector() -> None:
    arrays = [np.ones((3, 3)), np.zeros(5), np.arange(2.0)]
    text = io.arraylist_to_blobprotovector_str(arrays)
    assert isinstance(text, bytes)
    for a, b in zip(io.blobprotovector_str_to_arraylist(text), arrays, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.int32])
def test_datum_both_ways(dtype: type) -> None:
    array = RNG.integers(0, 255, (4, 5, 6)).astype(dtype)
    datum = io.array_to_datum(array, label=7)
    assert (datum.channels, datum.height, datum.width, datum.label) == (4, 5, 6, 7)
    assert bool(datum.data) == (dtype is np.uint8)
    back = io.datum_to_array(datum)
    np.testing.assert_array_equal(back, array)
    assert back.dtype == (np.uint8 if dtype is np.uint8 else np.float64)
    back[0, 0, 0] = 1  # writable, as pycaffe's
    with pytest.raises(ValueError, match="Incorrect array shape"):
        io.array_to_datum(array[0])
    assert not io.array_to_datum(array).HasField("label")


def test_encoded_datum_is_decoded() -> None:
    image = RNG.integers(0, 255, (5, 6, 3), np.uint8)
    grey = image[:, :, 0]
    for picture, expected in ((image, image.transpose(2, 0, 1)), (grey, grey[None])):
        data = cv2.imencode(".png", picture)[1].tobytes()
        datum = pb.Datum(encoded=True, data=data, channels=9)  # the picture's size counts
        np.testing.assert_array_equal(io.datum_to_array(datum), expected)
        assert io.decode_datum(datum, color=True).shape == (3, 5, 6)
        assert io.decode_datum(datum, color=False).shape == (1, 5, 6)
    with pytest.raises(CaffeError, match="encoded Datum of 3 bytes"):
        io.datum_to_array(pb.Datum(encoded=True, data=b"abc"))


# --- pre-processing ---


def test_preprocess_in_pycaffes_order() -> None:
    """(picture transposed and swapped * 255 - mean) * 0.5, worked out beside."""
    transformer = io.Transformer({"data": (1, 3, 4, 5)})
    transformer.set_transpose("data", (2, 0, 1))
    transformer.set_channel_swap("data", (2, 1, 0))
    transformer.set_raw_scale("data", 255)
    transformer.set_mean("data", np.array([1.0, 2.0, 3.0]))
    transformer.set_input_scale("data", 0.5)
    picture = RNG.random((4, 5, 3)).astype(np.float32)
    before = picture.copy()
    out = transformer.preprocess("data", picture)
    expected = np.stack([picture[:, :, 2 - c] * 255 - (c + 1) for c in range(3)]) * 0.5
    np.testing.assert_allclose(out, expected, rtol=1e-6, atol=1e-5)
    assert out.dtype == np.float32
    np.testing.assert_array_equal(picture, before)
    np.testing.assert_allclose(transformer.deprocess("data", out[np.newaxis]), picture, atol=1e-6)


def test_preprocess_resizes() -> None:
    transformer = io.Transformer({"data": (1, 1, 2, 2)})
    transformer.set_transpose("data", (2, 0, 1))
    picture = np.arange(16, dtype=np.float32).reshape(4, 4, 1)
    # Shrinking by two: each value is the middle of four, (0 + 1 + 4 + 5) / 4 = 2.5.
    np.testing.assert_allclose(
        transformer.preprocess("data", picture), [[[2.5, 4.5], [10.5, 12.5]]]
    )


def test_mean_image_is_resized() -> None:
    transformer = io.Transformer({"data": (1, 1, 2, 2)})
    transformer.set_mean("data", np.arange(16.0).reshape(1, 4, 4))
    np.testing.assert_allclose(transformer.mean["data"], [[[2.5, 4.5], [10.5, 12.5]]])
    transformer.set_mean("data", np.full((1, 7, 7), 3.0))
    np.testing.assert_array_equal(transformer.mean["data"], np.full((1, 2, 2), 3))
    transformer.set_mean("data", np.ones((2, 2)))
    assert transformer.mean["data"].shape == (1, 2, 2)


def test_wrong_settings() -> None:
    transformer = io.Transformer({"data": (1, 3, 4, 5)})
    with pytest.raises(CaffeError, match="'image' is not one of the net inputs: data"):
        transformer.set_raw_scale("image", 1)
    with pytest.raises(CaffeError, match="2 axes; expected 3"):
        transformer.set_transpose("data", (0, 1))
    with pytest.raises(CaffeError, match="2 channels; expected 3"):
        transformer.set_channel_swap("data", (0, 1))
    with pytest.raises(ValueError, match="Mean channels incompatible"):
        transformer.set_mean("data", np.zeros(2))
    with pytest.raises(ValueError, match="Mean shape invalid"):
        transformer.set_mean("data", np.zeros((1, 3, 4, 5)))


# --- pictures ---


def test_load_image(tmp_path: Path) -> None:
    bgra = RNG.integers(0, 255, (5, 6, 4), np.uint8)
    bgra[..., 3] = 255
    cv2.imwrite(str(tmp_path / "c.png"), bgra[:, :, :3])
    cv2.imwrite(str(tmp_path / "a.png"), bgra)
    cv2.imwrite(str(tmp_path / "g.png"), bgra[:, :, 0])
    cv2.imwrite(str(tmp_path / "d.png"), bgra[:, :, 0].astype(np.uint16) * 257)
    rgb = bgra[:, :, 2::-1].astype(np.float32) / 255
    for name in ("c.png", "a.png"):
        image = io.load_image(tmp_path / name)
        assert image.dtype == np.float32
        np.testing.assert_allclose(image, rgb, atol=1e-7)
        grey = io.load_image(tmp_path / name, color=False)
        # rgb2gray of scikit-image: 0.2125 R + 0.7154 G + 0.0721 B
        expected = rgb @ np.float32([0.2125, 0.7154, 0.0721])
        np.testing.assert_allclose(grey[:, :, 0], expected, atol=1e-6)
    for name in ("g.png", "d.png"):  # 8 and 16 bits: 257 v / 65535 = v / 255
        np.testing.assert_allclose(
            io.load_image(tmp_path / name), np.repeat(rgb[:, :, 2:], 3, axis=2), atol=1e-6
        )
        assert io.load_image(tmp_path / name, color=False).shape == (5, 6, 1)


def test_load_image_of_no_picture(tmp_path: Path) -> None:
    with pytest.raises(CaffeError, match="No such file"):
        io.load_image(tmp_path / "none.png")
    (tmp_path / "text.png").write_text("hello")
    with pytest.raises(CaffeError, match="not a picture that can be read"):
        io.load_image(str(tmp_path / "text.png"))


def test_load_image_with_a_name_of_other_bytes(tmp_path: Path) -> None:
    """OpenCV's own reader ended the process at a name that is no UTF-8."""
    path = tmp_path / "T\udcfcr.png"
    path.write_bytes(cv2.imencode(".png", np.full((2, 3, 3), 255, np.uint8))[1].tobytes())
    assert io.load_image(path).shape == (2, 3, 3)


def test_resize_matches_pixel_centres_and_darkens_the_rim() -> None:
    """1x2 to 1x4: centres fall at -0.25, 0.25, 0.75, 1.25; outside counts as the minimum."""
    out = io.resize_image(np.float32([[[10], [20]]]), (1, 4))
    # At 1.25 a quarter is outside: 0.75 * 20 + 0.25 * 10.
    np.testing.assert_allclose(out[0, :, 0], [10, 12.5, 17.5, 17.5])
    nearest = io.resize_image(np.float32([[[10], [20]]]), (1, 4), interp_order=0)
    np.testing.assert_array_equal(nearest[0, :, 0], [10, 10, 20, 20])


def test_resize_of_other_channel_counts_matches_corners() -> None:
    out = io.resize_image(np.float32([[[0, 5], [3, 2]]]), (1, 4))
    np.testing.assert_allclose(out[0], [[0, 5], [1, 4], [2, 3], [3, 2]], atol=1e-6)
    assert out.dtype == np.float32


def test_resize_of_a_constant_and_wrong_order() -> None:
    np.testing.assert_array_equal(
        io.resize_image(np.full((2, 2, 3), 7), (3, 5)), np.full((3, 5, 3), 7)
    )
    assert io.resize_image(RNG.random((4, 4, 2)), (2, 3), interp_order=3).shape == (2, 3, 2)
    with pytest.raises(ValueError, match="interp_order 2; expected 0, 1 or 3"):
        io.resize_image(np.zeros((2, 2, 3)), (3, 3), interp_order=2)


def test_oversample() -> None:
    images = [RNG.random((6, 7, 2)).astype(np.float32) for _ in range(2)]
    crops = io.oversample(images, (3, 4))
    assert crops.shape == (20, 3, 4, 2)
    # Corners at rows 0 and 6 - 3, columns 0 and 7 - 4; centre at 3 - 1.5 -> 1, 3.5 - 2 -> 1.
    places = [(0, 0), (0, 3), (3, 0), (3, 3), (1, 1)]
    for n, image in enumerate(images):
        for i, (y, x) in enumerate(places):
            crop = image[y : y + 3, x : x + 4]
            np.testing.assert_array_equal(crops[10 * n + i], crop)
            np.testing.assert_array_equal(crops[10 * n + 5 + i], crop[:, ::-1])


def test_raw_bytes_of_nvcaffe():
    values = np.array([[1, -2.5]], "<f2")
    blob = pb.BlobProto(raw_data=values.tobytes(), raw_data_type=pb.FLOAT16)
    blob.shape.dim.extend([1, 2])
    np.testing.assert_array_equal(io.blobproto_to_array(blob), values)
    blob.raw_data_type = pb.INT
    with pytest.raises(ValueError, match="raw data cannot be of number type 3"):
        io.blobproto_to_array(blob)
