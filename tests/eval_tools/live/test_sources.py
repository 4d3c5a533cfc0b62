"""Cameras and recordings. No camera is there, so those of OpenCV and RealSense are stood in for."""

import sys
import threading
import time
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from data_tools.cli import DataError
from data_tools.depth import DepthUnit
from data_tools.record import Frame, RecordFormat
from eval_tools.live import sources


def picture(value):
    return np.full((2, 3, 3), value, np.uint8)


class Capture:
    """cv2.VideoCapture of a camera whose frames are numbered by their colour."""

    opened = None  # a list in each test
    apis = (cv2.CAP_ANY,)
    frames = 3

    def __init__(self, place, api):
        self.place, self.api, self.number = place, api, 0
        Capture.opened.append((place, api))

    def isOpened(self):
        return self.place != 7 and self.api in self.apis

    def grab(self):
        self.number += 1
        return self.number <= self.frames

    def read(self):
        return self.grab(), picture(self.number)

    def retrieve(self, flag):
        if flag == cv2.CAP_OBSENSOR_BGR_IMAGE:
            return True, picture(self.number)
        assert flag == cv2.CAP_OBSENSOR_DEPTH_MAP
        return self.number != 2, np.full((2, 3), self.number, np.uint16)


@pytest.fixture
def capture(monkeypatch):
    monkeypatch.setattr(cv2, "VideoCapture", Capture)
    monkeypatch.setattr(Capture, "opened", [])
    return Capture


def until_failed(camera):
    last = -1
    for _ in range(10):
        try:
            last = camera.take(last).facts["at"]
        except DataError as error:
            return str(error)
    raise AssertionError("it goes on")


def test_a_camera_of_colour(capture):
    camera = sources.camera("0", depth=False)
    assert camera.facts() == {"kind": "camera", "name": "camera 0"}
    assert until_failed(camera) == "camera 0: gives no more frames"
    assert capture.opened == [(0, cv2.CAP_ANY)]
    sources.camera("/dev/video2", depth=False)
    assert capture.opened[-1][0] == "/dev/video2"


def test_a_camera_of_colour_and_depth(capture, monkeypatch):
    monkeypatch.setattr(capture, "apis", (cv2.CAP_OBSENSOR,))
    camera = sources.camera("0", True, RecordFormat(unit=DepthUnit("steps", 1000)))
    frame = camera.take(None)
    assert frame.unit == DepthUnit("steps", 1000)
    assert frame.depth.shape == (2, 3)
    assert until_failed(camera) == "camera 0: gives no depth"


def test_cameras_that_do_not_do(capture, monkeypatch):
    with pytest.raises(DataError, match="camera 7: cannot be opened"):
        sources.camera("7", depth=False)
    with pytest.raises(DataError, match="the net looks at depth, and OpenCV reads none from it"):
        sources.camera("0", depth=True)
    for place in ("http://a.example/video", "clip.mp4", "-1"):
        with pytest.raises(DataError, match="expected a number, or a device's path"):
            sources.camera(place, depth=False)
    monkeypatch.setattr(capture, "frames", 0)
    with pytest.raises(DataError, match="camera 0: gives no more frames"):
        sources.camera("0", depth=False)


def test_no_camera_is_one_line_without_opencvs(capfd):
    """On a machine without that many cameras."""
    with pytest.raises(DataError, match="camera 93: cannot be opened"):
        sources.camera("93", depth=False)
    assert capfd.readouterr().err == ""


def test_the_newest_frame_is_taken():
    """A net slower than the camera passes frames over; a faster one waits for the next."""
    step, count = threading.Semaphore(0), [0]

    def read():
        if count[0]:
            step.acquire()
        count[0] += 1
        return picture(count[0]), None

    camera = sources.Camera(read, "c")
    assert camera.take(-1).color[0, 0, 0] == 1
    for _ in range(5):
        step.release()
    while count[0] < 6:
        time.sleep(0.001)
    taken = camera.take(4)
    assert (taken.facts["at"], taken.color[0, 0, 0]) == (5, 6)
    threading.Timer(0.05, step.release).start()
    assert camera.take(5).color[0, 0, 0] == 7


def test_a_camera_that_hangs_is_told(monkeypatch):
    monkeypatch.setattr(sources, "PATIENCE", 0.05)
    first, never = [True], threading.Event()

    def read():
        if not first:
            never.wait(5)
            raise DataError("over")  # ends the camera's thread
        first.clear()
        return picture(1), None

    camera = sources.Camera(read, "c")
    assert camera.take(-1).color[0, 0, 0] == 1
    with pytest.raises(DataError, match=r"c: gives no more frames \(for 0\.05 s\)"):
        camera.take(0)
    never.set()


class Frames:
    names = ("a", "b")
    times = (5.0, 5.25)

    def load(self, index):
        return Frame(picture(index), np.full((2, 3), 7, np.uint16))

    def about(self, index):
        return {"time": self.times[index]} if self.times else {}


def test_a_recording(monkeypatch):
    recording = sources.Recording(Frames(), "r", RecordFormat(unit=DepthUnit("steps", 5000)))
    assert recording.facts() == {"kind": "recording", "name": "r", "count": 2, "times": [0, 0.25]}
    frame = recording.take(1)
    assert (frame.name, frame.color[0, 0, 0], frame.unit.steps) == ("b", 1, 5000)
    for place in (2, -1, None, "1", 1.0, True):
        with pytest.raises(DataError, match="r: there is no frame"):
            recording.take(place)
    monkeypatch.setattr(Frames, "times", None)
    assert recording.facts()["times"] is None


def fake_realsense(problem=None):
    """The part of pyrealsense2 that is used."""
    color = SimpleNamespace(get_data=lambda: picture(4))
    depth = SimpleNamespace(get_data=lambda: np.full((2, 3), 9, np.uint16))
    frames = SimpleNamespace(get_color_frame=lambda: color, get_depth_frame=lambda: depth)
    sensor = SimpleNamespace(get_depth_scale=lambda: 0.00025)
    device = SimpleNamespace(first_depth_sensor=lambda: sensor)
    asked = []
    left = threading.Semaphore(3)  # frames; the camera's thread does not go on behind the test

    def start(config):
        if problem:
            raise RuntimeError(problem)
        return SimpleNamespace(get_device=lambda: device)

    def wait():
        left.acquire()
        return "unaligned"

    def process(given):
        assert given == "unaligned"
        return frames

    return SimpleNamespace(
        asked=asked,
        pipeline=lambda: SimpleNamespace(start=start, wait_for_frames=wait),
        config=lambda: SimpleNamespace(enable_stream=lambda *given: asked.append(given)),
        stream=SimpleNamespace(color="color", depth="depth"),
        format=SimpleNamespace(bgr8="bgr8", z16="z16"),
        align=lambda to: SimpleNamespace(process=process),
    )


def test_realsense(monkeypatch):
    rs = fake_realsense()
    monkeypatch.setitem(sys.modules, "pyrealsense2", rs)
    frame = sources.realsense(depth=True).take(None)
    assert rs.asked == [("color", "bgr8"), ("depth", "z16")]
    assert frame.unit == DepthUnit("steps", 4000)
    assert (frame.color[0, 0, 0], frame.depth[0, 0]) == (4, 9)


def test_realsense_that_is_not_there(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyrealsense2", fake_realsense("No device connected"))
    with pytest.raises(DataError, match="RealSense: No device connected"):
        sources.realsense(depth=True)
    monkeypatch.setitem(sys.modules, "pyrealsense2", None)
    with pytest.raises(DataError, match=r"--realsense needs pyrealsense2: pip install 'fusenet\["):
        sources.realsense(depth=True)
