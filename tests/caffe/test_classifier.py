"""Classifier and Detector: what reaches the net. It answers each channel's mean, or all pixels."""

from __future__ import annotations

import numpy as np
import pytest

import caffe
from caffe.proto import caffe_pb2 as pb

SIZE = 12
NET = f"""
layer {{ name: "data" type: "Input" top: "data"
  input_param {{ shape {{ dim: 4 dim: 3 dim: {SIZE} dim: {SIZE} }} }} }}
layer {{ name: "mean" type: "Pooling" bottom: "data" top: "mean"
  pooling_param {{ pool: AVE global_pooling: true }} }}
"""


@pytest.fixture
def files(tmp_path):
    (tmp_path / "net.prototxt").write_text(NET)
    weights = tmp_path / "net.caffemodel"
    weights.write_bytes(pb.NetParameter(name="none").SerializeToString())
    return str(tmp_path / "net.prototxt"), str(weights)


def ramp(height, width):
    """A picture whose channels are the row, the column, and 1."""
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    return np.stack([rows, columns, np.ones_like(rows)], 2)


def test_centre(files):
    """20 x 16 pixels at 1:1: the centre is rows 4 to 15 and columns 2 to 13."""
    classifier = caffe.Classifier(*files, image_dims=[20, 16])
    found = classifier.predict([ramp(20, 16)], oversample=False)
    np.testing.assert_allclose(found.reshape(1, 3), [[9.5, 7.5, 1]], rtol=1e-5)


def test_ten_crops_are_averaged(files):
    """Corners and centre lie evenly, and mirroring keeps a channel's mean."""
    classifier = caffe.Classifier(*files, image_dims=[20, 16])
    images = [ramp(20, 16), 2 * ramp(20, 16), ramp(20, 16)]
    found = classifier.predict(images)
    assert found.shape == (3, 3)
    np.testing.assert_allclose(found[0], [9.5, 7.5, 1], rtol=1e-5)
    np.testing.assert_allclose(found[1], 2 * found[0], rtol=1e-5)
    np.testing.assert_allclose(found[2], found[0], rtol=1e-5)


def test_default_size_is_the_nets(files):
    """A picture of 6 x 24 is brought to 12 x 12: rows by 2, columns by 1/2."""
    found = caffe.Classifier(*files).predict([ramp(6, 24) + 1], oversample=False).ravel()
    assert found[2] == pytest.approx(2, rel=0.1)  # the rim darkens, as pycaffe's
    assert classifier_input(files, ramp(12, 12)).shape == (4, 3, 12, 12)


def classifier_input(files, image, **options):
    classifier = caffe.Classifier(*files, **options)
    classifier.predict([image] * 4, oversample=False)
    return classifier.blobs["data"].data


def test_preprocessing(files):
    """(255 x - mean) 0.5, of channels in the other order."""
    image = ramp(SIZE, SIZE) / 100
    mean = np.array([10, 20, 30], np.float32)
    data = classifier_input(
        files, image, mean=mean, raw_scale=255.0, input_scale=0.5, channel_swap=[2, 1, 0]
    )
    expected = (255 * image[:, :, ::-1].transpose(2, 0, 1) - mean[:, None, None]) * 0.5
    np.testing.assert_allclose(data[0], expected, rtol=1e-5, atol=1e-5)


# -- Detector ---------------------------------------------------------------------------------


def save(path, image):
    import cv2

    cv2.imwrite(str(path), image)
    return str(path)


def test_windows_of_files(files, tmp_path):
    blue = np.zeros((30, 40, 3), np.uint8)
    blue[:, 20:] = (255, 0, 0)  # B, G, R
    first, second = save(tmp_path / "a.png", blue), save(tmp_path / "b.png", blue // 3)
    detector = caffe.Detector(*files)
    windows = [(first, [(0, 0, 30, 20), (5, 25, 20, 40)]), (second, [(0, 20, 30, 40)])]
    found = detector.detect_windows(iter(windows))
    assert [(d["filename"], d["window"]) for d in found] == [
        (name, window) for name, several in windows for window in several
    ]
    predictions = np.array([d["prediction"].ravel() for d in found])
    np.testing.assert_allclose(predictions, [[0, 0, 0], [0, 0, 1], [0, 0, 1 / 3]], atol=1e-6)
    assert detector.detect_windows([]) == []


def test_a_window_is_cut_out(files):
    detector = caffe.Detector(*files)
    crop = detector.crop(ramp(30, 40), (5, 25, 10, 40))
    np.testing.assert_array_equal(crop, ramp(30, 40)[5:10, 25:40])
    with pytest.raises(caffe.CaffeError, match="holds nothing"):
        detector.crop(ramp(30, 40), (50, 0, 60, 9))


def test_context_is_shown(files):
    """A window of 9 x 9 pixels in an input of 12 with 3 of context: scale 12 / (12 - 6) = 2.

    Pixels 10 to 18 have their middle, as R-CNN counts, at 10 + 9 / 2 = 14.5 and become
    14.5 +- 9, rounded 6 and 24 (to the even number), of which rows 6 to 23 are cut out, and drawn
    on round((24 - 6 + 1) 12 / 19) = 12 pixels: 18 rows on 12, a row every 1.5 from 6.25 on.
    """
    detector = caffe.Detector(*files, context_pad=3)
    crop = detector.crop(ramp(40, 40), (10, 10, 18, 18))
    assert crop.shape == (12, 12, 3)
    inside = 6.25 + 1.5 * np.arange(12)
    np.testing.assert_allclose(crop[1:-1, 5, 0], inside[1:-1], rtol=1e-5)
    np.testing.assert_allclose(crop[5, 1:-1, 1], inside[1:-1], rtol=1e-5)


def test_beyond_the_picture_is_the_mean(files):
    """At the corner, a third of the enlarged window lies outside."""
    mean = np.array([51, 102, 204], np.float32)
    detector = caffe.Detector(
        *files, context_pad=3, mean=mean, raw_scale=255.0, channel_swap=[2, 1, 0]
    )
    image = np.zeros((40, 40, 3), np.float32)
    crop = detector.crop(image, (0, 0, 8, 8))
    # 4.5 +- 9: rows -4 (to the even number) to 14; 4 of 19 outside are round(4 * 12 / 19) = 3 rows.
    np.testing.assert_allclose(crop[:3], np.broadcast_to([0.8, 0.4, 0.2], (3, 12, 3)), rtol=1e-5)
    np.testing.assert_allclose(crop[:, :3], np.broadcast_to([0.8, 0.4, 0.2], (12, 3, 3)), rtol=1e-5)
    assert (crop[3:, 3:] == 0).all()
    # What the net sees there is nothing: the mean less the mean.
    seen = detector.transformer.preprocess("data", crop)
    np.testing.assert_allclose(seen[:, :3], 0, atol=1e-4)


def test_selective_search_is_not_at_hand(files):
    with pytest.raises(caffe.CaffeError, match="selective_search_ijcv_with_python"):
        caffe.Detector(*files).detect_selective_search(["a.png"])
