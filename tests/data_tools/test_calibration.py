"""Calibrations as the programs of camera makers write them, and cameras by name."""

import json

import numpy as np
import pytest
from camera_files import (
    K4A,
    OPENCV,
    ORB_SLAM,
    PRINTED,
    PRINTED_MOTION,
    REALSENSE,
    ROS1,
    ROS2,
    ROS_FILE,
    ROWS,
    SCANNET,
)

from data_tools import calibration
from data_tools.camera import Camera, Extrinsics, Intrinsics
from data_tools.cli import DataError

KINECT = Intrinsics(525.0, 525.0, 319.5, 239.5, (), (640, 480))
UNSIZED = Intrinsics(525.0, 525.0, 319.5, 239.5)
LENS = (0.1, -0.2, 0.001, 0.002, 0.3)
MOVED = Extrinsics((1.0, 0.0, 0.0, 0.0, 0.0, -1.0, 0.0, 1.0, 0.0), (0.05, 0.0, 0.01))

K4A_CAMERA = Intrinsics(
    504.0, 504.5, 320.5, 334.25, (0.5, 0.1, 0.0001, -0.0002, 0.01, 0.8, 0.2, 0.03), (640, 576)
)

SIZED_LENS = Intrinsics(525.0, 525.0, 319.5, 239.5, LENS, (640, 480))
CAMERAS = {
    "ours": (json.dumps(SIZED_LENS.describe()), SIZED_LENS),
    "Open3D": (
        '{"width": 640, "height": 480, '
        '"intrinsic_matrix": [525, 0, 0, 0, 525, 0, 319.5, 239.5, 1]}',
        KINECT,
    ),
    "Record3D": ('{"w": 640, "h": 480, "K": [525, 0, 0, 0, 525, 0, 319.5, 239.5, 1]}', KINECT),
    "rows": ('{"K": [[525, 0, 319.5], [0, 525, 239.5], [0, 0, 1]]}', UNSIZED),
    "pyrealsense2 as JSON": (
        '{"width": 640, "height": 480, "fx": 525, "fy": 525, "ppx": 319.5, "ppy": 239.5, '
        '"coeffs": [0.1, -0.2, 0.001, 0.002, 0.3]}',
        SIZED_LENS,
    ),
    "pyrealsense2": (PRINTED, KINECT),
    "pyrealsense2 before 2.50": (
        "width: 640, height: 480, ppx: 319.5, ppy: 239.5, fx: 525, fy: 525, "
        "model: Brown Conrady, coeffs: [0.1, -0.2, 0.001, 0.002, 0.3]",
        SIZED_LENS,
    ),
    "calibration_info": (K4A, K4A_CAMERA),
    "TUM": ("# fx fy cx cy\n525.0 525.0 319.5 239.5 0.1 -0.2 0.001 0.002 0.3\n",
            Intrinsics(525.0, 525.0, 319.5, 239.5, LENS)),
    "SUN RGB-D": ("525 0 319.5 0 525 239.5 0 0 1", UNSIZED),
    "ScanNet's intrinsic_color.txt": (ROWS, UNSIZED),
    "camera_info of ROS 1": (ROS1, SIZED_LENS),
    "camera_info of ROS 2": (ROS2, SIZED_LENS),
    "camera_calibration": (ROS_FILE, SIZED_LENS),
    "ORB-SLAM": (ORB_SLAM, SIZED_LENS),
    "named values": ("fx = 525\nfy = 525\ncx = 319.5\ncy = 239.5\n", UNSIZED),
    "OpenCV": (OPENCV, Intrinsics(525.0, 525.0, 319.5, 239.5, LENS)),
}  # fmt: skip

MOTIONS = {
    "ours": json.dumps(MOVED.describe()),
    "4x4": "1 0 0 0.05\n0 0 -1 0\n0 1 0 0.01\n0 0 0 1\n",
    "4x4 in JSON": "[[1, 0, 0, 0.05], [0, 0, -1, 0], [0, 1, 0, 0.01], [0, 0, 0, 1]]",
    "3x4": "1, 0, 0, 0.05\n0, 0, -1, 0\n0, 1, 0, 0.01\n",
    "Rotation Matrix": " Rotation Matrix:\n 1 0 0\n 0 0 -1\n 0 1 0\n\n"
    " Translation Vector: 0.05 0 0.01",
    "pyrealsense2": PRINTED_MOTION,
}


@pytest.fixture
def write(tmp_path):
    """write(text, name): the path of a file with this text."""

    def write(text, name="calibration.txt"):
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    return write


@pytest.mark.parametrize(("text", "camera"), CAMERAS.values(), ids=CAMERAS)
def test_intrinsics(write, text, camera):
    assert calibration.read(write(text)).camera == Camera((camera,))


@pytest.mark.parametrize("text", MOTIONS.values(), ids=MOTIONS)
def test_extrinsics(write, text):
    assert calibration.read(write(text)).motion == MOVED


def test_realsense_tells_both_cameras_with_all_modes(write):
    found = calibration.rig(write(REALSENSE))
    assert [mode.size for mode in found.color.modes] == [(640, 480), (1280, 720)]
    lens = (-0.05, 0.06, -0.001, 7e-05, -0.02)
    assert found.color.at((1280, 720), "colour") == Intrinsics(
        918.5, 916, 631.25, 356.75, lens, (1280, 720)
    )
    depth = found.depth.at((848, 480), "depth")
    assert (depth.fx, depth.cx, depth.distortion) == (422.806274414062, 425.120849609375, ())
    assert found.extrinsics == MOVED


def test_two_devices_in_one_text(write):
    other = REALSENSE.replace("422.8", "424.9")
    found = calibration.rig(write(REALSENSE + other))
    with pytest.raises(DataError, match="depth is 848x480, for which the calibration has 2 intr"):
        found.at((848, 480), (640, 480))
    other = REALSENSE.replace("Vector: 0.05", "Vector: 0.06")
    with pytest.raises(DataError, match="holds several extrinsics from depth to colour"):
        calibration.rig(write(REALSENSE + other))


def test_realsense_from_color_to_depth_is_turned_round(write):
    begin, end = (
        REALSENSE.index('Extrinsic from "Depth"'),
        REALSENSE.index('Extrinsic from "Color"'),
    )
    found = calibration.rig(write(REALSENSE[:begin] + REALSENSE[end:]))
    np.testing.assert_allclose(found.extrinsics.matrix, MOVED.matrix)
    np.testing.assert_allclose(found.extrinsics.translation, MOVED.translation)


def test_what_python_prints_of_pyrealsense2(write):
    other = PRINTED.replace("525 525", "390 390")
    text = (
        f"{{'depth_intrin': {other}, 'color_intrin': {PRINTED}, "
        f"'depth_to_color_extrin': {PRINTED_MOTION}}}"
    )
    found = calibration.rig(write(text))
    assert found.color.modes == (KINECT,)
    assert found.depth.modes[0].fx == 390
    assert found.extrinsics == MOVED


def test_scannet_tells_both_cameras(write):
    found = calibration.rig(write(SCANNET))
    assert found.color.modes == (Intrinsics(1170.5, 1170.25, 647.75, 483.75, (), (1296, 968)),)
    assert found.depth.modes == (KINECT,)
    np.testing.assert_allclose(found.extrinsics.matrix, MOVED.matrix)
    np.testing.assert_allclose(found.extrinsics.translation, MOVED.translation)


def test_azure_kinect_projects_as_its_sdk():
    """The device of the SDK's tests, with the points that they expect (transformation.cpp)."""
    rig = calibration.rig("azure-kinect")
    depth, color = rig.depth.at((512, 512), "depth"), rig.color.at((3840, 2160), "colour")
    x, y = depth.rays()
    point = np.array([x[256, 256], y[256, 256], 1.0])
    np.testing.assert_allclose(point, [-2.45376134e-3, -1.66107690e-3, 1], atol=1e-8)
    moved = rig.extrinsics.matrix @ point + rig.extrinsics.translation
    np.testing.assert_allclose(moved, [-37.6291695e-3, 63.3947754e-3, 1.00146521], atol=1e-7)
    x, y = color.distort(moved[0] / moved[2], moved[1] / moved[2])
    # It expects 1835.686, 1206.311.
    assert x * color.fx + color.cx == pytest.approx(1835.686, abs=0.03)
    assert y * color.fy + color.cy == pytest.approx(1206.311, abs=0.03)


def test_modes_of_the_azure_kinect_show_parts_of_its_picture():
    rig = calibration.rig("azure-kinect")
    whole, narrow = (rig.depth.at(size, "depth") for size in ((1024, 1024), (640, 576)))
    assert (whole.cx - narrow.cx, whole.cy - narrow.cy) == pytest.approx((192, 180))
    assert narrow.scaled((320, 288)) == rig.depth.at((320, 288), "depth")
    tall, broad = (rig.color.at(size, "colour") for size in ((2048, 1536), (1280, 720)))
    part = tall.scaled((1280, 960))
    assert (part.fx, part.fy) == pytest.approx((broad.fx, broad.fy))
    assert (part.cx - broad.cx, part.cy - broad.cy) == pytest.approx((0, 120))


def test_a_rig_is_read_back_as_it_is_told(write):
    for name in calibration.names():
        told = json.dumps(calibration.rig(name).describe())
        assert calibration.rig(write(told)) == calibration.rig(name), name


def test_names_have_their_sources():
    table = json.loads(calibration.TABLE.read_text())
    assert set(table) == set(calibration.names())
    assert all("http" in camera["source"] for camera in table.values())


def test_a_folder_does_not_hide_a_cameras_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "kinect-v1").mkdir()
    assert calibration.rig("kinect-v1").color.modes[0].size == (640, 480)
    (tmp_path / "kinect-v2").write_text(REALSENSE)
    assert calibration.rig("kinect-v2").extrinsics == MOVED


def test_ros_says_the_direction_of_realsenses_extrinsics(write):
    begin = 'header:\n  seq: 0\n  frame_id: "depth_to_color_extrinsics"\n'
    message = f"{begin}{PRINTED_MOTION}\n---\n"
    assert calibration.read(write(message)).extrinsics == MOVED
    back = calibration.read(write(message.replace("depth_to_color", "color_to_depth"))).extrinsics
    np.testing.assert_allclose(back.translation, MOVED.inverse().translation)


def test_two_files_and_extrinsics_in_both_directions(write):
    color, depth = write(PRINTED, "color"), write(json.dumps(SIZED_LENS.describe()), "depth")
    motion = write(MOTIONS["4x4"], "motion")
    there = calibration.rig(color, depth, motion)
    assert (there.color.modes, there.depth.modes) == ((KINECT,), (SIZED_LENS,))
    assert there.extrinsics == MOVED
    assert calibration.rig(color, depth, motion, "depth-to-color") == there
    back = calibration.rig(color, depth, motion, "color-to-depth")
    assert back.extrinsics == MOVED.inverse()
    assert calibration.rig(color, depth, "identity").extrinsics == Extrinsics()
    # A named camera's parts may be replaced one by one.
    mixed = calibration.rig("kinect-v1", depth)
    assert mixed.depth.modes == (SIZED_LENS,)
    assert mixed.extrinsics == calibration.rig("kinect-v1").extrinsics


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds nothing"),
        ("hello", "'hello': not a calibration of a known form"),
        ("1 2 3", "3 numbers; expected a matrix of 3x3"),
        ("{", "not JSON: "),
        ("[[1, 0], [0, 1]]", "4 numbers; expected|fx, fy are 1, 0"),
        ('{"width": 640}', "one of width and height is missing"),
        ('{"fx": 500, "fy": 500, "cx": 1}', "cy is missing; expected an object with width, height"),
        ('{"fx": "a", "fy": 500, "cx": 1, "cy": 2}', "fx: expected numbers"),
        ('{"fx": NaN, "fy": 500, "cx": 1, "cy": 2}', "a value that is not finite"),
        ('{"K": [1, 2, 3]}', "K: 3 numbers, expected 9"),
        ('{"K": [[525, 0, 1], [3, 525, 2], [0, 0, 1]]}', "is not fx 0 cx, 0 fy cy, 0 0 1"),
        ('{"width": 6.5, "height": 3, "fx": 5, "fy": 5, "cx": 1, "cy": 2}', "whole numbers"),
        ('{"rotation": [1, 0, 0, 0, 1, 0, 0, 0, 1]}', "expected an object with rotation"),
        ('{"color": {"fx": 500}}', "color: fy is missing"),
        ('{"CalibrationInformation": {}}', "not a camera's calibration: no 'Cameras'"),
        ('{"CalibrationInformation": {"Cameras": []}}', "no camera at CALIBRATION_Cam"),
        (ROWS.replace("0 0 1 0", "0 0 2 0"), "16 numbers; expected"),
        ("1 0 0 0 0 1 0 0 0 0 1 0 0 0 0 2", "the last row of the extrinsics' matrix"),
        (MOTIONS["4x4"].replace("0.05", "5"), "the cameras are 5.00001 m apart"),
        (PRINTED.replace("[0 0 0 0 0]", "[1 0 0 0 0]").replace("Brown Conrady", "F-Theta"),
         "the lens's model 'F-Theta' is not known"),
        (PRINTED.replace("[319.5 239.5]", "[319.5]"), "principal point '319.5': expected two"),
        (PRINTED + "\n" + PRINTED.replace("525", "500"), "holds 2 intrinsics and does not say"),
        (PRINTED_MOTION + "\n" + PRINTED_MOTION, "holds 2 extrinsics; expected those from depth"),
        (PRINTED_MOTION.replace("0, -1, 0]", "0]"), "expected 9 numbers of rotation and 3"),
        ("fx: 525\nfy: 525\ncx: 319.5", "cy is missing"),
        (K4A.replace("k4: 0.8", "k5: 0.8"), "k4 is missing"),
        (SCANNET.replace("mx_depth", "mx"), "mx_depth is missing"),
        (SCANNET.replace("0 0 0 1\n", "0 0 1\n"), "colorToDepthExtrinsics: 15 numbers"),
        (ROS1.replace("plumb_bob", "equidistant"), "the lens's model 'equidistant' is not known"),
        (ROS1.replace("K: [525.0, ", "K: ["), "the camera's matrix has 8 numbers, expected 9"),
    ],
)  # fmt: skip
def test_what_cannot_be_read(write, text, message):
    path = write(text)
    with pytest.raises(DataError, match=message) as error:
        calibration.read(path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


def test_what_is_missing_or_contradicts(write):
    color, both = write(PRINTED, "color"), write(REALSENSE, "both")
    motion = write(MOTIONS["4x4"], "motion")
    for given, message in [
        ((color,), "color: has no intrinsics of the depth camera; --depth-intrinsics is missing"),
        ((color, color), "color: does not say where the cameras are; --extrinsics is missing"),
        ((motion,), "motion: no intrinsics of a colour camera"),
        ((color, motion), "motion: no intrinsics of a depth camera"),
        ((color, color, color), "color: no extrinsics: no rotation and translation"),
        ((both, None, both, "color-to-depth"), "both: states its direction"),
        ((both, None, None, "color-to-depth"), "--extrinsics-direction goes with --extrinsics"),
        (("kinect-v9",), "kinect-v9: no such file, and no camera of this name; expected a file"),
    ]:
        with pytest.raises(DataError, match=message):
            calibration.rig(*given)
