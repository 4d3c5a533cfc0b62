"""Bags that rosbags writes: ROS 1, RealSense's form of it, and ROS 2 as SQLite and MCAP."""

import json
import struct
from types import SimpleNamespace

import cv2
import layouts
import numpy as np
import pytest

from data_tools.cli import DataError
from data_tools.recordings import bag, ros_images
from data_tools.store import read_info

pytest.importorskip("rosbags")

from bags import MS, START, Maker, write
from rvl_encoder import encode


@pytest.mark.parametrize(
    ("name", "storage"), [("r.bag", ""), ("ros2", "SQLITE3"), ("ros2", "MCAP")]
)
def test_bags_give_the_folders_records(command, tmp_path, rendered, records, names, name, storage):
    write(tmp_path / name, rendered, storage)
    said = command("sequence", name, "db").stderr
    assert f"{name}: ROS bag, 6 colour and 6 depth frames, 6 pairs; " in said
    command("folder", *layouts.folder(tmp_path / "plain", rendered), "wanted")
    assert records("db") == records("wanted")
    assert names("db")[1] == "1600000000.033000000"
    assert read_info("db")["frames"]["00000001_1600000000.033000000"]["gap_ms"] == 3.0
    command("sequence", name, "some", "--start", "0.05s", "--every", 2)
    assert records("some") == [records("wanted")[i] for i in (2, 4)]
    if storage:
        (file,) = [path for path in (tmp_path / name).iterdir() if path.suffix in bag.SUFFIXES]
        command("sequence", file, "file")
        assert records("file") == records("wanted")


def test_real_frames_in_bags(command, tmp_path, real, records):
    for number, (color, suffix, depth, unit) in enumerate(real):
        if depth.dtype == np.uint16:
            decoded = cv2.imdecode(np.frombuffer(color, np.uint8), cv2.IMREAD_COLOR)
            write(tmp_path / f"{number}.bag", [(decoded, depth)])
            options = ["--depth-unit", unit, "--size", "160x120"]
            command("sequence", f"{number}.bag", f"db{number}", *options)
            where = layouts.folder(tmp_path / f"plain{number}", [(color, depth)], suffix)
            command("folder", *where, f"wanted{number}", *options)
            assert records(f"db{number}") == records(f"wanted{number}")


def test_workers_read_bags_of_their_own(command, tmp_path, rendered, records, monkeypatch):
    monkeypatch.setattr(bag.BagRecording, "block", 2)
    write(tmp_path / "r.bag", rendered)
    command("sequence", "r.bag", "one")
    command("sequence", "r.bag", "two", "--workers", 2)
    assert records("one") == records("two")


def test_a_realsense_bag_says_its_unit(command, tmp_path, rendered, records):
    with Maker(tmp_path / "rs.bag") as out:
        out.number("/device_0/sensor_0/option/Depth_Units/value", 0.00025, START)
        for i, (picture, depth) in enumerate(rendered):
            time = START + 33 * MS * i
            name = "/device_0/sensor_{}/{}_0/image/data"
            out.image(name.format(1, "Color"), "rgb8",
                      np.ascontiguousarray(picture[..., ::-1]), time)  # fmt: skip
            out.image(name.format(0, "Depth"), "mono16", depth, time)
            out.image(name.format(0, "Infrared"), "mono8", depth.astype(np.uint8), time)
    command("sequence", "rs.bag", "db", "--depth-range", "0:4")
    where = layouts.folder(tmp_path / "plain", rendered)
    command("folder", *where, "wanted", "--depth-unit", 4000, "--depth-range", "0:4")
    assert records("db") == records("wanted")
    assert read_info("db")["options"]["depth_unit"] == "4000 steps per metre"
    assert read_info("db")["topics"]["color"] == "/device_0/sensor_1/Color_0/image/data"
    command("sequence", "rs.bag", "mm", "--depth-unit", "mm")
    assert read_info("mm")["options"]["depth_unit"] == "1000 steps per metre"


def test_topics_are_named_and_chosen(command, tmp_path, rendered, records):
    picture, depth = rendered[0]
    with Maker(tmp_path / "r.bag") as out:
        out.image("/left/image", "bgr8", picture, START)
        out.image("/right/image", "bgr8", 255 - picture, START)
        out.image("/depth", "16UC1", depth, START)
        out.image("/depth_far", "16UC1", depth + np.uint16(1), START)
    line = command("sequence", "r.bag", "db", code=1).stderr.splitlines()[-1]
    assert (
        "r.bag: 2 topics of colour: /left/image, /right/image; choose one with --color-topic"
        in line
    )
    line = command("sequence", "r.bag", "db", "--color-topic", "/left/image", code=1).stderr
    assert "2 topics of depth: /depth, /depth_far; choose one with --depth-topic" in line
    chosen = ["--color-topic", "/left/image", "--depth-topic", "/depth"]
    command("sequence", "r.bag", "db", *chosen)
    command("folder", *layouts.folder(tmp_path / "plain", rendered[:1]), "wanted")
    assert records("db") == records("wanted")
    line = command("sequence", "r.bag", "d", "--color-topic", "/depth", code=1).stderr
    assert "/depth is no topic of colour; its topics of pictures: /depth (depth), " in line


def test_aligned_depth_is_taken_and_said(command, tmp_path, rendered, records):
    picture, depth = rendered[0]
    with Maker(tmp_path / "r.bag") as out:
        out.image("/cam/color/image_raw", "bgr8", picture, START)
        out.image("/cam/rgb_to_depth/image_raw", "bgr8", 255 - picture, START)
        out.image("/cam/infra1/image_raw", "mono16", depth // 2, START)
        out.image("/cam/depth/image_raw", "16UC1", depth + np.uint16(9), START)
        out.image("/cam/aligned_depth_to_color/image_raw", "16UC1", depth, START)
    said = command("sequence", "r.bag", "db").stderr.splitlines()[-2]
    assert said.startswith("r.bag: of 2 topics of depth, /cam/aligned_depth_to_color/image_raw is")
    command("folder", *layouts.folder(tmp_path / "plain", rendered[:1]), "wanted")
    assert records("db") == records("wanted")
    command("sequence", "r.bag", "raw", "--depth-topic", "/cam/depth/image_raw")
    assert read_info("raw")["topics"]["depth"] == "/cam/depth/image_raw"


@pytest.mark.parametrize("side", ["left", "right"])
def test_depth_is_that_of_the_chosen_camera(command, tmp_path, rendered, side):
    with Maker(tmp_path / "r.bag") as out:
        for name, (picture, depth) in zip(("left", "right"), rendered, strict=False):
            out.image(f"/{name}/color/image_raw", "bgr8", picture, START)
            for kind in ("depth", "aligned_depth_to_color"):
                out.image(f"/{name}/{kind}/image_raw", "16UC1", depth, START)
    command("sequence", "r.bag", "db", "--color-topic", f"/{side}/color/image_raw")
    assert read_info("db")["topics"]["depth"] == f"/{side}/aligned_depth_to_color/image_raw"


def test_depth_in_rvl(command, tmp_path, rendered, records):
    picture, depth = rendered[0]
    head = bytes(12) + struct.pack("<II", 40, 30)
    with Maker(tmp_path / "r.bag") as out:
        out.image("/c", "bgr8", picture, START)
        data = head + encode(depth.ravel())
        out.compressed("/d/compressedDepth", "16UC1; compressedDepth rvl", data, START)
    command("sequence", "r.bag", "db")
    command("folder", *layouts.folder(tmp_path / "plain", rendered[:1]), "wanted")
    assert records("db") == records("wanted")


def test_depth_of_another_camera_is_told(command, tmp_path, rendered):
    picture, depth = rendered[0]
    named, native = "/cam/{}/image_raw", "/device_0/sensor_{}/image/data"
    for name, topics, frame in (
        ("two", (named.format("color"), named.format("depth")), "depth_optical_frame"),
        ("one", (named.format("color"), named.format("depth")), "color_optical_frame"),
        ("own", (native.format("1/Color_0"), native.format("0/Depth_0")), "color_optical_frame"),
        ("aligned", (named.format("color"), named.format("depth_registered")), "depth_frame"),
    ):
        with Maker(tmp_path / f"{name}.bag") as out:
            out.image(topics[0], "bgr8", picture, START, frame="color_optical_frame")
            out.image(topics[1], "16UC1", depth, START, frame=frame)
        said = command("sequence", f"{name}.bag", name).stderr
        assert ("colour and depth are not aligned" in said) == (name in ("two", "own"))
        if name == "two":
            assert "(color_optical_frame and depth_optical_frame); --intrinsics aligns" in said
    camera = {"width": 40, "height": 30, "fx": 35, "fy": 35, "cx": 19.5, "cy": 14.5}
    turn = {"rotation": np.eye(3).tolist(), "translation": [0, 0, 0]}
    rig = {"color": camera, "depth": camera, "extrinsics": turn}
    (tmp_path / "rig.json").write_text(json.dumps(rig))
    said = command("sequence", "two.bag", "rig", "--intrinsics", "rig.json").stderr
    assert "not aligned" not in said


def test_compressed_copies_of_a_topic_do_not_count(command, tmp_path, rendered, records):
    picture, depth = rendered[0]
    jpeg, png = (cv2.imencode(end, image)[1].tobytes()
                 for end, image in ((".jpg", picture), (".png", depth)))  # fmt: skip
    with Maker(tmp_path / "both.bag") as both, Maker(tmp_path / "packed.bag") as packed:
        both.image("/c", "bgr8", picture, START)
        both.image("/d", "16UC1", depth, START)
        for out in (both, packed):
            out.compressed("/c/compressed", "bgr8; jpeg compressed bgr8", jpeg, START)
            out.compressed("/d/compressedDepth", "16UC1; compressedDepth png",
                           bytes(12) + png, START)  # fmt: skip
    for name, color in (("both", picture), ("packed", jpeg)):
        command("sequence", f"{name}.bag", name)
        where = layouts.folder(tmp_path / f"{name}_plain", [(color, depth)], ".jpg" if color is jpeg
                               else ".png")  # fmt: skip
        command("folder", *where, f"{name}_wanted")
        assert records(name) == records(f"{name}_wanted")


def message(encoding, array, **more):
    lines = np.ascontiguousarray(array).reshape(array.shape[0], -1).view(np.uint8)
    found = {
        "height": array.shape[0],
        "width": array.shape[1],
        "encoding": encoding,
        "is_bigendian": 0,
        "step": lines.shape[1],
        "data": lines.ravel(),
    }
    return SimpleNamespace(**{**found, **more})


def test_encodings_of_colour():
    picture = np.zeros((8, 8, 3), np.uint8)
    picture[:] = (40, 120, 200)
    for encoding, array in {
        "bgr8": picture,
        "rgb8": picture[..., ::-1],
        "bgra8": np.dstack([picture, picture[..., 0]]),
        "rgba8": np.dstack([picture[..., ::-1], picture[..., 0]]),
    }.items():
        assert np.array_equal(ros_images.color(message(encoding, array), "m"), picture)
    grey = ros_images.color(message("mono8", picture[..., 1]), "m")
    assert (grey == 120).all()
    # A mosaic has each pixel's own colour only; `rggb` names its first two lines.
    for letters in ("rggb", "bggr", "gbrg", "grbg"):
        mosaic = np.zeros((8, 8), np.uint8)
        for place, letter in enumerate(letters):
            mosaic[place // 2 :: 2, place % 2 :: 2] = picture[0, 0]["bgr".index(letter)]
        found = ros_images.color(message(f"bayer_{letters}8", mosaic), "m")
        assert np.array_equal(found[2:-2, 2:-2], picture[2:-2, 2:-2]), letters
    # BT.601, limited range
    blue, green, red = 40, 120, 200
    yuv = (
        16 + 0.257 * red + 0.504 * green + 0.098 * blue,
        128 - 0.148 * red - 0.291 * green + 0.439 * blue,
        128 + 0.439 * red - 0.368 * green - 0.071 * blue,
    )
    for encoding, order in (("yuv422", (1, 0, 2, 0)), ("yuv422_yuy2", (0, 1, 0, 2))):
        pair = np.rint([yuv[i] for i in order]).astype(np.uint8)
        array = np.tile(pair, (8, 4)).reshape(8, 8, 2)
        found = ros_images.color(message(encoding, array), "m")
        assert np.abs(found.astype(int) - picture).max() <= 3, encoding
    with pytest.raises(DataError, match="m: encoding 'rgb16', expected one of bgr8"):
        ros_images.color(message("rgb16", picture), "m")


def test_depth_in_other_orders_of_bytes_with_padding_and_as_floats():
    depth = np.arange(12, dtype=np.uint16).reshape(3, 4) * 300
    assert np.array_equal(ros_images.depth(message("16UC1", depth), "m"), depth)
    big = message("16UC1", depth.astype(">u2"), is_bigendian=1)
    assert np.array_equal(ros_images.depth(big, "m"), depth)
    padded = np.pad(depth.view(np.uint8).reshape(3, 8), ((0, 0), (0, 5)), constant_values=9)
    wide = message("mono16", depth, step=13, data=padded.ravel())
    assert np.array_equal(ros_images.depth(wide, "m"), depth)
    metres = (depth / 1000).astype(np.float32)
    assert np.array_equal(ros_images.depth(message("32FC1", metres), "m"), metres)
    for more in ({"data": np.zeros(23, np.uint8)}, {"step": 4}, {"height": 0}):
        with pytest.raises(DataError, match=r"^m: "):
            ros_images.depth(message("16UC1", depth, **more), "m")
    with pytest.raises(DataError, match="at most 67108864 are read"):
        ros_images.depth(message("16UC1", depth, width=2**31, height=2**31), "m")


def test_compressed_depth_of_floats_is_inverse():
    """depth = A / (value - B), 0 is a hole, as compressed_depth_image_transport writes it."""
    metres = np.array([[0.5, 2.0], [4.0, 0.0]])
    scale, offset = 10000.0, -50.0
    stored = np.zeros((2, 2), np.uint16)
    stored[metres > 0] = np.rint(scale / metres[metres > 0] + offset)
    data = struct.pack("<iff", 0, scale, offset) + cv2.imencode(".png", stored)[1].tobytes()
    made = SimpleNamespace(format="32FC1; compressedDepth png", data=np.frombuffer(data, np.uint8))
    np.testing.assert_allclose(ros_images.depth(made, "m"), metres, rtol=1e-3)
    made.format = "16UC1; compressedDepth rvl"
    with pytest.raises(DataError, match="compressed as '16UC1; compressedDepth rvl', expected PNG"):
        ros_images.depth(made, "m")


def test_messages_without_a_stamp_and_with_equal_ones(command, tmp_path, rendered, names):
    with Maker(tmp_path / "r.bag") as out:
        for i, (picture, depth) in enumerate(rendered[:3]):
            out.image("/c", "bgr8", picture, 0, START + i * 33 * MS)
            out.image("/d", "16UC1", depth, 0, START + i * 33 * MS)
        for i, (picture, depth) in enumerate(rendered[3:5]):
            out.image("/c", "bgr8", picture, START + 200 * MS, START + (200 + i // 2) * MS)
            out.image("/d", "16UC1", depth, START + 200 * MS, START + (200 + i // 2) * MS)
    command("sequence", "r.bag", "pairs", "--to", "folder")
    found = sorted(path.stem for path in (tmp_path / "pairs/rgb").iterdir())
    assert found == ["1600000000.000000000", "1600000000.033000000", "1600000000.066000000",
                     "1600000000.200000000", "1600000000.200000000_1"]  # fmt: skip
    for name, (picture, depth) in zip(found, rendered, strict=False):
        assert np.array_equal(cv2.imread(f"pairs/rgb/{name}.png"), picture)
        assert np.array_equal(cv2.imread(f"pairs/depth/{name}.png", -1), depth)


def test_sensors_with_clocks_of_their_own(command, tmp_path, rendered, records):
    """The headers are years apart; the messages were recorded 5 ms apart."""
    with Maker(tmp_path / "r.bag") as out:
        for i, (picture, depth) in enumerate(rendered):
            came = START + i * 33 * MS
            out.image("/c", "bgr8", picture, i * 33 * MS + 1, came)
            out.image("/d", "16UC1", depth, came, came + 5 * MS)
    said = command("sequence", "r.bag", "db").stderr
    assert "6 colour and 6 depth frames, 6 pairs (by the times of recording)" in said
    command("folder", *layouts.folder(tmp_path / "plain", rendered), "wanted")
    assert records("db") == records("wanted")
    rule = read_info("db")["association"]["rule"]
    assert rule == "nearest in time, within 20 ms, as recorded; the headers' times never meet"


def test_bags_that_cannot_be_read_are_one_line(command, tmp_path, rendered):
    whole = write(tmp_path / "r.bag", rendered).read_bytes()
    for name, data in {"empty": b"", "none": b"no bag", "cut": whole[: len(whole) // 2],
                       "zeros": whole[:200] + bytes(len(whole) - 200)}.items():  # fmt: skip
        (tmp_path / f"{name}.bag").write_bytes(data)
        line = command("sequence", f"{name}.bag", "db", code=1).stderr
        assert f"{name}.bag: not a bag that can be read: " in line
        assert len(line.splitlines()) == 1
    (tmp_path / "x.mcap").write_bytes(b"\x89MCAP0\r\n" + bytes(60))
    assert "x.mcap: not a bag" in command("sequence", "x.mcap", "db", code=1).stderr
    (tmp_path / "x.db3").write_bytes(b"SQLite format 3\0" + bytes(60))
    assert "x.db3: not a bag" in command("sequence", "x.db3", "db", code=1).stderr
    with Maker(tmp_path / "bare.bag") as out:
        out.number("/n", 1.0, START)
    line = command("sequence", "bare.bag", "db", code=1).stderr
    assert "bare.bag: no topic of colour; its topics of pictures: none" in line
    assert not (tmp_path / "db").exists()


def test_without_the_library_the_remedy_is_told(command, tmp_path, monkeypatch):
    (tmp_path / "r.bag").write_bytes(b"x")
    monkeypatch.setitem(__import__("sys").modules, "rosbags", None)
    line = command("sequence", "r.bag", "db", code=1).stderr
    assert "pip install 'fusenet[bag]'" in line
