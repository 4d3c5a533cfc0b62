"""VideoData: which frames it reads, and how they lie in its tops."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

import caffe
from caffe.formats.files import write_blob

LAYER = 'layer {{ name: "v" type: "VideoData" top: "x" top: "y" {} }}'


@pytest.fixture(autouse=True)
def clips(tmp_path, monkeypatch) -> None:
    """Two folders of ten frames each; frame i of clip c is of one grey, 20 i + c."""
    monkeypatch.chdir(tmp_path)
    for clip in range(2):
        Path(f"c{clip}").mkdir()
        for i in range(10):
            for name in (f"{i:06d}.jpg", f"image_{i:04d}.jpg", f"flow_x_{i:04d}.jpg"):
                # a picture of one value comes out of a JPEG as it was
                cv2.imwrite(f"c{clip}/{name}", np.full((8, 8, 3), 20 * i + clip, np.uint8))
            y = np.full((8, 8, 3), 20 * i + clip + 10, np.uint8)
            cv2.imwrite(f"c{clip}/flow_y_{i:04d}.jpg", y)
    Path("list.txt").write_text("c0 3 5\nc1 1 7\n")
    Path("long.txt").write_text("c0 9 5\nc1 9 7\n")


def first_batch(net_of, param: str, phase: int = caffe.TEST) -> tuple[np.ndarray, np.ndarray]:
    net = net_of(LAYER.format(param), phase=phase)
    net.forward()
    return net.blobs["x"].data.copy(), net.blobs["y"].data.copy()


def test_c3ds_clips_take_every_so_manieth_frame(net_of):
    param = 'video_data_param { source: "list.txt" batch_size: 2 new_length: 3 sampling_rate: 2 '
    param += "use_image: true } transform_param { mean_value: 1 mean_value: 2 mean_value: 3 }"
    x, y = first_batch(net_of, param)
    assert x.shape == (2, 3, 3, 8, 8)
    np.testing.assert_array_equal(x[0, :, :, 0, 0], np.array([[60, 100, 140]]) - [[1], [2], [3]])
    np.testing.assert_array_equal(x[1, 0, :, 4, 4], np.array([21, 61, 101]) - 1)
    assert y.tolist() == [5, 7]


def test_c3d_1_0_subtracts_a_mean_of_the_clip(net_of):
    mean = np.arange(6, dtype=np.float32).reshape(1, 3, 2, 1, 1) * np.ones((1, 1, 1, 8, 8))
    write_blob("mean.binaryproto", mean.astype(np.float32))
    param = 'image_data_param { source: "list.txt" batch_size: 1 new_length: 2 use_image: true '
    param += 'mean_file: "mean.binaryproto" crop_size: 4 scale: 0.5 }'
    x, y = first_batch(net_of, param)
    assert x.shape == (1, 3, 2, 4, 4)
    expected = (np.array([60, 80]) - np.arange(6).reshape(3, 2)) / 2
    np.testing.assert_array_equal(x[0, :, :, 0, 0], expected)
    assert y.shape == (1, 1, 1, 1, 1)


def test_tsns_segments_are_cut_in_their_middle(net_of):
    """Nine frames in three parts of three: of each the second, the first being number 1."""
    param = 'video_data_param { source: "long.txt" batch_size: 1 num_segments: 3 modality: RGB }'
    x, y = first_batch(net_of, param)
    assert x.shape == (1, 9, 8, 8)
    assert x[0, ::3, 0, 0].tolist() == [40, 100, 160]
    assert y.shape == (1, 1, 1, 1)
    param = 'video_data_param { source: "long.txt" batch_size: 1 modality: FLOW new_length: 2 }'
    x, _ = first_batch(net_of, param)
    # One part of nine: eight places, the fifth, as rounded down from the middle.
    assert x[0, :, 0, 0].tolist() == [100, 110, 120, 130]


def test_training_begins_anywhere(net_of):
    param = 'video_data_param { source: "long.txt" batch_size: 8 num_segments: 1 modality: RGB }'
    x, _ = first_batch(net_of, param, caffe.TRAIN)
    places = {int(v) // 20 for v in x[:, 0, 0, 0]}
    assert len(places) > 2
    assert places <= set(range(1, 10))


def test_a_run_goes_on(net_of, goes_on):
    param = 'video_data_param { source: "long.txt" batch_size: 1 num_segments: 1 modality: RGB '
    param += "shuffle: true }"
    goes_on(lambda: net_of(LAYER.format(param)))


@pytest.mark.parametrize(
    ("param", "message"),
    [
        ("new_length: 3", "set use_image: true"),
        ("use_image: true new_length: 30", "000010.jpg"),
        ("use_image: true new_length: 100001", "clips of 100001 frames, expected at most 100000"),
        ("num_segments: 4294967295", "clips of 4294967295 frames"),
        ('modality: RGB name_pattern: "%s.jpg"', "must hold %d or %0Nd once"),
        ('modality: FLOW name_pattern: "%9999999d_%c"', "must hold %d or %0Nd once"),
        ('video_file: "a.mp4"', "reads no webcam or video_file"),
        ("use_multiple_label: true", "use_multiple_label is not implemented"),
    ],
)
def test_what_cannot_be_read(net_of, param, message):
    with pytest.raises(caffe.CaffeError, match=message):
        net_of(LAYER.format(f'video_data_param {{ source: "list.txt" batch_size: 1 {param} }}'))


def test_a_line_that_is_no_clip(net_of):
    Path("list.txt").write_text("c0 3\n")
    with pytest.raises(caffe.CaffeError, match=r"list\.txt:1: expected: folder number label"):
        net_of(
            LAYER.format('video_data_param { source: "list.txt" batch_size: 1 use_image: true }')
        )
