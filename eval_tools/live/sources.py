"""Frames as they come: the newest of a camera, or those of a recording in order."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from boundary.errors import shown
from boundary.late import cv2
from boundary.reading import reading
from data_tools.cli import DataError, describe
from data_tools.depth import DepthUnit
from data_tools.record import RecordFormat
from data_tools.recordings.video import quiet
from eval_tools.live.model import MOST_MOVING, READY, Given

if TYPE_CHECKING:
    from data_tools.build import Source

PATIENCE = 5.0  # seconds for a camera's next frame

Pictures = tuple["np.ndarray | None", "np.ndarray | None"]


class Frames(Protocol):
    """Frames that the page asks for one after another."""

    def facts(self) -> dict[str, Any]:
        """What the page needs to know."""

    def take(self, place: Any) -> Given:
        """A frame; place: what the page asks for. Raises DataError if there is none."""


class Recording:
    """The frames of a recording, by their index.

    form: the unit of depth, and how it is prepared.
    """

    def __init__(self, source: Source, name: str, form: RecordFormat = READY) -> None:
        self._source, self._name, self._form = source, name, form
        self._reading = threading.Lock()  # a bag or a video reads one frame at a time

    def facts(self) -> dict[str, Any]:
        """Its name, the number of frames, and their times in seconds, if all are known."""
        count = len(self._source.names)
        times = [self._source.about(index).get("time") for index in range(count)]
        known = all(isinstance(t, int | float) for t in times)
        return {
            "kind": "recording",
            "name": self._name,
            "count": count,
            "times": [round(t - times[0], 4) for t in times] if known else None,
        }

    def take(self, place: Any) -> Given:
        """The frame of an index."""
        if type(place) is not int or not 0 <= place < len(self._source.names):
            raise DataError(f"{self._name}: there is no frame {place!r}")
        start = time.perf_counter()
        with self._reading:
            frame = self._source.load(place)
        return Given(
            self._source.names[place],
            frame.color,
            frame.depth,
            self._form.unit,
            self._form,
            time.perf_counter() - start,
            tuple(note.text for note in frame.notes),
            {"at": place},
            MOST_MOVING,
        )


class Camera:
    """The newest frame of a camera, which a thread takes from it all the time.

    A net may be slower than the camera. Frames that would wait in the camera's buffer meanwhile are
    passed over, so that what is shown is never old.

    read: gives colour and depth of the next frame; raises DataError if there is none. It is called
    once here, so that a camera that gives none is told at once. form: the unit of depth, and how it
    is prepared.
    """

    def __init__(self, read: Callable[[], Pictures], name: str, form: RecordFormat = READY) -> None:
        self._read, self._name, self._form = read, name, form
        self._pictures, self._number = read(), 0
        self._error: str | None = None
        self._came = threading.Condition()
        threading.Thread(target=self._follow, daemon=True).start()

    def facts(self) -> dict[str, Any]:
        """Its name."""
        return {"kind": "camera", "name": self._name}

    def take(self, place: Any) -> Given:
        """The newest frame; place: the number of the one before, which has been shown. Waits."""
        last = place if type(place) is int else -1
        start = time.perf_counter()
        with self._came:
            self._came.wait_for(lambda: self._error or self._number > last, PATIENCE)
            if self._number <= last:
                raise DataError(
                    self._error or f"{self._name}: gives no more frames (for {PATIENCE:g} s)"
                )
            (color, depth), number = self._pictures, self._number
        seconds = time.perf_counter() - start
        return Given(
            self._name,
            color,
            depth,
            self._form.unit,
            self._form,
            seconds,
            facts={"at": number},
            most=MOST_MOVING,
        )

    def _follow(self) -> None:
        while self._error is None:
            error, pictures = None, None
            try:
                pictures = self._read()
            except Exception as problem:  # told to the page; the thread has nobody else to tell
                error = describe(problem)
            with self._came:
                if pictures is not None:
                    self._pictures, self._number = pictures, self._number + 1
                self._error = error
                self._came.notify_all()


def camera(place: str, depth: bool, form: RecordFormat = READY) -> Camera:
    """A camera that OpenCV reads. place: its number, or a device's path such as /dev/video0.

    depth: whether the net looks at depth. OpenCV reads that of Orbbec cameras and, if it was built
    so, through OpenNI 2. form: the unit of depth, and how it is prepared.

    Raises:
        DataError: there is no such camera, or it gives no frames.
    """
    name = f"camera {shown(place)}"
    if not place.isdecimal() and not place.startswith("/dev/"):
        raise DataError(f"--camera {shown(place)}: expected a number, or a device's path")
    if not depth:
        return Camera(_plain(_opened(place, cv2.CAP_ANY, name), name), name)
    for kind in ("OBSENSOR", "OPENNI2"):
        with suppress(DataError, AttributeError):
            opened = _opened(place, getattr(cv2, f"CAP_{kind}"), name)
            return Camera(_deep(opened, kind, name), name, form)
    raise DataError(
        f"{name}: the net looks at depth, and OpenCV reads none from it (it does from Orbbec's "
        "cameras); for a RealSense say --realsense"
    )


def _opened(place: str, api: int, name: str) -> cv2.VideoCapture:
    with reading(name, "a camera that can be read", DataError), quiet():
        found = cv2.VideoCapture(int(place) if place.isdecimal() else place, api)
        if not found.isOpened():
            raise DataError(f"{name}: cannot be opened (is it there, and not in use?)")
        return found


def _plain(opened: cv2.VideoCapture, name: str) -> Callable[[], Pictures]:
    def read() -> Pictures:
        came, color = opened.read()
        if not came:
            raise DataError(f"{name}: gives no more frames")
        return color, None

    return read


def _deep(opened: cv2.VideoCapture, kind: str, name: str) -> Callable[[], Pictures]:
    """kind: OBSENSOR or OPENNI2."""
    if kind == "OBSENSOR":
        maps = cv2.CAP_OBSENSOR_BGR_IMAGE, cv2.CAP_OBSENSOR_DEPTH_MAP
    else:
        maps = cv2.CAP_OPENNI_BGR_IMAGE, cv2.CAP_OPENNI_DEPTH_MAP

    def read() -> Pictures:
        if not opened.grab():
            raise DataError(f"{name}: gives no more frames")
        (saw, color), (measured, depth) = (opened.retrieve(flag=flag) for flag in maps)
        if not (saw and measured):
            raise DataError(f"{name}: gives no {'depth' if saw else 'colour'}")
        return color, depth

    return read


def realsense(depth: bool) -> Camera:
    """The first RealSense camera, its depth aligned to colour.

    Raises:
        DataError: pyrealsense2 is missing, or there is no such camera.
    """
    try:
        import pyrealsense2 as rs
    except ImportError as error:
        raise DataError(
            "--realsense needs pyrealsense2: pip install 'fusenet[realsense]'"
        ) from error
    name = "RealSense"
    try:
        pipeline, config = rs.pipeline(), rs.config()
        config.enable_stream(rs.stream.color, rs.format.bgr8)
        if depth:
            config.enable_stream(rs.stream.depth, rs.format.z16)
        device = pipeline.start(config).get_device()
        scale = device.first_depth_sensor().get_depth_scale() if depth else 0.001
    except RuntimeError as error:
        raise DataError(f"{name}: {describe(error)}") from error
    align = rs.align(rs.stream.color)

    def read() -> Pictures:
        frames = pipeline.wait_for_frames()
        frames = align.process(frames) if depth else frames
        color = np.array(frames.get_color_frame().get_data())  # a copy: the buffer is used again
        return color, np.array(frames.get_depth_frame().get_data()) if depth else None

    return Camera(read, name, replace(READY, unit=DepthUnit("steps", 1 / scale)))
