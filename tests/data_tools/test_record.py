"""Records: what a frame becomes, channel by channel, and that Caffe's Datum reads it."""

import numpy as np
import pytest

from caffe.proto import caffe_pb2
from data_tools.cli import DataError
from data_tools.depth import DepthRange, DepthUnit
from data_tools.record import Frame, RecordFormat, from_datum, to_datum


def frame(height=4, width=6, **parts):
    color = np.arange(height * width * 3, dtype=np.uint8).reshape(height, width, 3)
    depth = np.arange(height * width, dtype=np.uint16).reshape(height, width) * 10
    label = np.arange(height * width, dtype=np.uint8).reshape(height, width) % 5
    return Frame(**{"color": color, "depth": depth, "label": label, **parts})


FIXED = {"unit": DepthUnit("steps", 1000), "range": DepthRange("fixed", 0, 0.255)}


def test_channels_are_blue_green_red_depth_label():
    given = frame(scene=3)
    datum = caffe_pb2.Datum.FromString(RecordFormat(**FIXED).encode(given))
    assert (datum.channels, datum.height, datum.width, datum.label) == (5, 4, 6, 3)
    planes = np.frombuffer(datum.data, np.uint8).reshape(5, 4, 6)
    for channel in range(3):
        assert (planes[channel] == given.color[:, :, channel]).all()
    # 255 mm are 255: each step of a millimetre is one.
    assert (planes[3] == given.depth).all()
    assert (planes[4] == given.label).all()


def test_float_depth_is_not_rounded():
    given = frame(depth=np.full((4, 6), 100, np.uint16))
    format = RecordFormat(
        unit=DepthUnit("steps", 1000), range=DepthRange("fixed", 0, 1), float_depth=True
    )
    datum = caffe_pb2.Datum.FromString(format.encode(given))
    assert not datum.data
    planes = np.array(datum.float_data, np.float32).reshape(5, 4, 6)
    assert (planes[3] == np.float32(25.5)).all()
    assert (planes[0] == given.color[:, :, 0]).all()


def test_halving_averages_colour_and_picks_depth_and_label():
    color = np.zeros((4, 4, 3), np.uint8)
    color[::2] = 100  # rows 100, 0, 100, 0: bilinear halving gives 50
    depth = np.array([[1000, 9, 2000, 9], [9, 9, 9, 9]] * 2, np.uint16)
    label = np.array([[1, 9, 2, 9], [9, 9, 9, 9]] * 2, np.uint8)
    format = RecordFormat(
        size=(2, 2), unit=DepthUnit("steps", 1000), range=DepthRange("fixed", 0, 2.55)
    )
    planes, _ = from_datum(format.encode(Frame(color, depth, label)))
    assert (planes[:3] == 50).all()
    assert planes[3].tolist() == [[100, 200], [100, 200]]
    assert planes[4].tolist() == [[1, 2], [1, 2]]


def test_the_range_is_that_of_the_resized_frame():
    depth = np.array([[1000, 60000], [60000, 60000]], np.uint16).repeat(2, 0).repeat(2, 1)
    depth[0, 1] = 65535  # not among the pixels that nearest neighbour keeps
    given = Frame(np.zeros((4, 4, 3), np.uint8), depth)
    planes, _ = from_datum(RecordFormat(size=(2, 2)).encode(given))
    assert planes[3].tolist() == [[0, 255], [255, 255]]


def test_parts_of_other_sizes_fit_if_their_aspect_does():
    given = frame(
        40, 60, depth=np.full((20, 30), 100, np.uint16), label=np.full((80, 120), 4, np.uint8)
    )
    planes, _ = from_datum(RecordFormat(**FIXED).encode(given))
    assert planes.shape == (5, 40, 60)
    assert (planes[3] == 100).all()
    assert (planes[4] == 4).all()
    # 1296 / 968 is 0.4 % off 640 / 480: ScanNet's colour and depth.
    scannet = Frame(np.zeros((968, 1296, 3), np.uint8), np.ones((480, 640), np.uint16))
    RecordFormat(size=(32, 24)).encode(scannet)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"depth": np.zeros((4, 7), np.uint16)}, "depth is 7x4 and colour 6x4"),
        ({"label": np.zeros((5, 6), np.uint8)}, "label is 6x5 and colour 6x4"),
        ({"label": np.full((4, 6), 41, np.uint8)}, "label 41 is out of range.* to 40"),
        ({"label": np.full((4, 6), -1, np.int16)}, "label -1 is out of range"),
        ({"label": np.zeros((4, 6), np.float32)}, "label is float32"),
        ({"color": np.zeros((4, 6), np.uint8)}, "colour is uint8 of shape"),
        ({"color": np.zeros((4, 6, 3), np.uint16)}, "colour is uint16"),
    ],
)
def test_parts_that_cannot_be_used_are_refused(parts, message):
    with pytest.raises(DataError, match=message):
        RecordFormat(classes=40).encode(frame(**parts))


def test_complaints_name_the_file():
    given = frame(label=np.full((4, 6), 9, np.uint8), files={"label": "labels/7.png"})
    with pytest.raises(DataError, match=r"^labels/7\.png: label 9"):
        RecordFormat(classes=8).encode(given)


def test_float_records_are_what_protobuf_itself_writes():
    planes = np.linspace(-3, 300, 60, dtype=np.float32).reshape(5, 3, 4)
    datum = caffe_pb2.Datum(channels=5, height=3, width=4, label=2)
    datum.float_data.extend(planes.ravel().tolist())
    assert to_datum(planes, 2) == datum.SerializeToString()
    back, label = from_datum(to_datum(planes, 2))
    assert (back == planes).all()
    assert label == 2


def test_broken_records_are_refused():
    whole = to_datum(np.zeros((5, 4, 6), np.uint8))
    with pytest.raises(DataError, match="r1: not a Datum"):
        from_datum(whole[:-1], "r1")
    short = caffe_pb2.Datum(channels=5, height=4, width=6, data=b"123").SerializeToString()
    with pytest.raises(DataError, match="3 values do not fill 5 channels of 6x4"):
        from_datum(short)
    negative = caffe_pb2.Datum(channels=-1, height=-4, width=6, data=bytes(24)).SerializeToString()
    with pytest.raises(DataError, match="24 values do not fill -1 channels of 6x-4"):
        from_datum(negative)


@pytest.mark.parametrize("shape", [(5, 0, 0), (5, 4, 0), (0, 4, 6)])
def test_records_without_values_are_refused(shape):
    with pytest.raises(DataError, match=r"db: a: \d channels of \dx\d pixels hold no values"):
        from_datum(to_datum(np.zeros(shape, np.uint8)), "db: a")
