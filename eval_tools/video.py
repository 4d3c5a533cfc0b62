"""Videos of results: colour, depth and labels side by side."""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from boundary.errors import shown
from boundary.late import cv2
from boundary.reading import reading
from boundary.writing import atomic_write
from data_tools.cli import DataError
from data_tools.record import nearest
from data_tools.recordings.video import quiet
from eval_tools import cli
from eval_tools.drawings import smooth
from eval_tools.inference import at_size
from eval_tools.records import Record

# What OpenCV's wheels can write, in order of preference. Browsers and players show VP9 in MP4.
CODECS = {".mp4": ("vp09", "mp4v"), ".avi": ("MJPG",)}
LEAST, MOST = 160, 480  # pixels of the longer side of each of the three pictures
RATE = 10.0  # frames a second


def rate(text: str) -> float:
    """argparse type: frames a second."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.1 <= value <= 240:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number of 0.1 to 240 frames a second")
    return value


@contextmanager
def opened(path: Path | None, rate: float | None, colors: np.ndarray) -> Iterator[Film | None]:
    """A video that appears under its name when it is complete; None for no path.

    rate: frames a second (default: 10). colors: of the labels, RGB.

    Raises:
        DataError: the suffix is unknown, or the file cannot be written.
    """
    if path is None:
        yield None
        return
    if path.suffix.lower() not in CODECS:
        raise DataError(f"{shown(path)}: videos are written as {', '.join(CODECS)}")
    cli.check_output(path)
    with (
        atomic_write(path, DataError) as beside,
        tempfile.TemporaryDirectory() as folder,
    ):
        # OpenCV takes the format from the suffix, which the temporary file does not have.
        link = Path(folder, f"video{path.suffix.lower()}")
        os.symlink(os.path.abspath(beside), link)
        film = Film(link, min(max(rate or RATE, 0.1), 240.0), colors, shown(path))
        try:
            yield film
        finally:
            film.close()
        film.check()


class Film:
    """Writes a video, frame by frame. The first frame sets its size."""

    def __init__(self, path: Path, rate: float, colors: np.ndarray, told: str) -> None:
        self._path, self._rate, self._colors, self._told = path, rate, colors, told
        self._writer: cv2.VideoWriter | None = None
        self._size = (0, 0)
        self._count = 0

    def add(self, frame: Record, label: np.ndarray, whole: bool) -> None:
        """Adds a frame. label: (H, W). whole: it shows the whole frame, not the net's view of it.

        Raises:
            DataError: OpenCV cannot write such a video.
        """
        size = label.shape[::-1]
        if whole:
            color = at_size(smooth, frame.picture, size)
            depth = frame.placement.back(nearest, _bytes(frame.depth), size)
        else:
            color = at_size(smooth, _bytes(frame.color), size)
            depth = at_size(nearest, _bytes(frame.depth), size)
        tinted = np.ascontiguousarray(self._colors[label][..., ::-1])
        if self._writer is None:
            self._size = panel(size)
            self._writer = self._open(3 * self._size[0], self._size[1])
        panels = (
            at_size(smooth, color, self._size),
            shaded(at_size(nearest, depth, self._size)),
            cv2.resize(tinted, self._size, interpolation=cv2.INTER_NEAREST),
        )
        self._writer.write(np.hstack(panels))
        self._count += 1

    def _open(self, width: int, height: int) -> cv2.VideoWriter:
        for codec in CODECS[self._path.suffix]:
            code = cv2.VideoWriter_fourcc(*codec)
            with quiet():
                writer = cv2.VideoWriter(str(self._path), code, self._rate, (width, height))
            if writer.isOpened():
                return writer
        raise DataError(f"{self._told}: this OpenCV cannot write such a video")

    def close(self) -> None:
        """Ends the file."""
        if self._writer is not None:
            self._writer.release()

    def check(self) -> None:
        """Raises DataError if the file lacks frames, as where a disk is full: OpenCV is silent."""
        if self._count and frames_in(self._path) < self._count:
            raise DataError(f"{self._told}: cannot be written in full; is there space on the disk?")


def frames_in(path: Path) -> int:
    """The number of a video's frames that can be read; 0 if it is none."""
    with reading(path, "a video", DataError), quiet():
        video = cv2.VideoCapture(str(path))
        count = 0
        while video.grab():
            count += 1
        video.release()
    return count


def panel(size: tuple[int, int]) -> tuple[int, int]:
    """The size of each picture in the video: even sides, the longer one LEAST to MOST pixels."""
    scale = min(max(max(size), LEAST), MOST) / max(size)
    width, height = (max(2, 2 * round(side * scale / 2)) for side in size)
    return width, height


def shaded(depth: np.ndarray) -> np.ndarray:
    """depth (H, W) of 0..255 as colours, BGR: near is blue, far is red, 0 (a hole) is black."""
    colored = cv2.applyColorMap(depth, cv2.COLORMAP_TURBO)
    colored[depth == 0] = 0
    return colored


def _bytes(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.clip(np.rint(values), 0, 255), np.uint8)
