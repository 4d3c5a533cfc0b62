"""One video of colour, and depth pictures with the numbers of its frames.

Such are the recordings of Stray Scanner (an app for iPhones): `rgb.mp4` and `depth/000000.png` in
millimetres. A video is read from its beginning, because seeking is not exact in all formats.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from boundary import limits
from boundary.errors import shown
from boundary.late import cv2
from boundary.reading import check_plain, reading
from data_tools import cli, images
from data_tools.cli import DataError
from data_tools.recordings import words
from data_tools.recordings.association import SECOND, Association, Pair, Picture, by_key
from data_tools.recordings.base import Kind, Recording, Settings, listed, needed, picture

SUFFIXES = (".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm")
# How files of these formats begin, or go on after the length of their first part. Other files,
# such as lists that name further files or addresses, do not reach the decoder.
_BEGIN = (b"RIFF", b"\x1a\x45\xdf\xa3")
_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")


class Capture:
    """A video, read frame by frame. Raises DataError if it is none."""

    def __init__(self, path: Path):
        self.path, self.next = path, 0
        check_plain(path, DataError)
        os.environ.setdefault("OPENCV_FFMPEG_CAPTURE_OPTIONS", "protocol_whitelist;file")
        with reading(path, "a video that can be read", DataError):
            with open(path, "rb") as file:
                head = file.read(12)
            if not (head.startswith(_BEGIN) or head[4:8] in _BOXES):
                raise ValueError("expected MP4, MOV, AVI, MKV or WebM")
            with quiet():
                self._video = cv2.VideoCapture(str(path.absolute()), cv2.CAP_FFMPEG)
            if not self._video.isOpened():
                raise ValueError("it is damaged, or OpenCV has no decoder for it")
        # Depth pictures are as the sensor sees, so colour must not be turned.
        self._video.set(cv2.CAP_PROP_ORIENTATION_AUTO, 0)
        size = (self._get(cv2.CAP_PROP_FRAME_WIDTH), self._get(cv2.CAP_PROP_FRAME_HEIGHT))
        limits.check_pixels(*size, shown(path), DataError)
        self.claimed = self._get(cv2.CAP_PROP_FRAME_COUNT)
        self.turned = self._get(cv2.CAP_PROP_ORIENTATION_META)  # degrees
        rate = self._video.get(cv2.CAP_PROP_FPS)
        self.rate = rate if 0 < rate < 1e6 else None

    def _get(self, what: int) -> int:
        value = self._video.get(what)
        return int(value) if 0 < value < 2**31 else 0

    def read(self, number: int) -> np.ndarray | None:
        """Frame `number`, H x W x 3 uint8 BGR, at or after `next`; None if there are fewer."""
        while self.next <= number:
            self.next += 1
            if not self._video.grab():
                return None
        got, frame = self._video.retrieve()
        return frame if got else None

    def count(self) -> int:
        """The number of frames that are left; reads all of them."""
        found = 0
        while self._video.grab():
            found += 1
        return found

    def close(self) -> None:
        """Closes the file."""
        self._video.release()


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps OpenCV's own messages back, and FFmpeg's: our line says what is wrong."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    logging = getattr(getattr(cv2, "utils", None), "logging", None)
    before = logging.setLogLevel(logging.LOG_LEVEL_SILENT) if logging else None
    try:
        yield
    finally:
        if logging:
            logging.setLogLevel(before)


class Video(Recording):
    """Frames of a video, by number, with depth pictures."""

    block = 64  # frames that a worker reads in sequence

    def __init__(self, where: Path, video: Path, association: Association):
        super().__init__(where, KIND, association)
        self._path = video
        self._capture: Capture | None = None
        self._end: int | None = None  # the first frame that is not there, if one was looked for

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_capture": None}  # each worker opens the file for itself

    def read_color(self, pair: Pair) -> np.ndarray:
        """The frame of the video."""
        if self._end is None or pair.color < self._end:
            if self._capture is None or pair.color < self._capture.next:
                self.close()
                self._capture = Capture(self._path)
            frame = self._capture.read(pair.color)
            if frame is not None:
                return frame
            self._end = self._capture.next - 1
            self.close()
        raise DataError(f"{self.tell(pair.color)} cannot be read; the video may end before it")

    def close(self) -> None:
        """Closes the file, which the next frame opens again."""
        if self._capture is not None:
            self._capture.close()
            self._capture = None

    def tell(self, source: Any) -> str:
        """How messages name a frame of the video, or a file."""
        return f"{shown(self._path)}: frame {source}" if isinstance(source, int) else str(source)

    def files(self, index: int) -> dict[str, Path]:
        """The depth file."""
        return {"depth": self.pairs[index].depth}

    def inputs(self) -> list[Path]:
        """All files that are read."""
        return [self._path, *(pair.depth for pair in self.pairs)]


def _video(where: Path) -> list[Path]:
    """The video at `where`: itself, or those in the folder, without those of depth and the like."""
    if where.is_dir():
        found = listed(where, SUFFIXES)
        return [file for file in found if words.color_rank(file.stem) is not None] or found
    return [where] if where.suffix.lower() in SUFFIXES else []


def _depth_folder(where: Path, video: Path) -> Path:
    """The folder of depth pictures: depth/ in or beside it, or VIDEO_depth/."""
    folder = where if where.is_dir() else where.parent
    named = folder / f"{video.stem}_depth"
    return named if named.is_dir() else folder / "depth"  # `listed` finds Depth/, too


def _recognise(where: Path) -> bool:
    videos = _video(where)
    return len(videos) == 1 and bool(listed(_depth_folder(where, videos[0]), images.DEPTH))


def _open(where: Path, settings: Settings) -> Recording:
    videos = _video(where)
    if len(videos) != 1:
        raise DataError(
            f"{shown(where)}: holds {len(videos)} videos ({' '.join(SUFFIXES)}), expected one"
        )
    folder = _depth_folder(where, videos[0])
    top = where if where.is_dir() else where.parent
    depth = [picture(top, file) for file in needed(folder, images.DEPTH)]
    capture = Capture(videos[0])
    count, rate = capture.claimed, capture.rate
    if count != len(depth):  # an estimate in some formats
        count = capture.count()
    capture.close()
    if capture.turned:
        cli.say(
            f"{shown(videos[0])}: its header turns frames by {capture.turned} degrees; they are "
            "taken as stored, as depth pictures are"
        )
    first = _first(depth, count)
    color = [
        Picture(
            frame,
            f"frame {frame} of {shown(videos[0].name)}",
            f"{frame:06d}",
            round(frame * SECOND / rate) if rate else None,
            (0, frame + first),
        )
        for frame in range(count)
    ]
    rule = f"depth picture {first} is the video's first frame, and so on"
    return Video(where, videos[0], by_key(color, depth, rule))


def _first(depth: list[Picture], count: int) -> int:
    """The number of the depth picture that belongs to the video's first frame: 0, or 1 if the
    pictures are numbered from 1 to the number of frames. Raises DataError for other names."""
    wrong = [one for one in depth if len(one.key) != 2 or one.key[0] != 0]
    if wrong:
        raise DataError(
            f"{wrong[0].shown}: expected the number of a frame of the video as its name"
        )
    numbers = [one.key[1] for one in depth]
    return 1 if min(numbers) >= 1 and max(numbers) == count else 0


KIND = Kind(
    "video",
    "video with depth pictures",
    f"one video ({' '.join(SUFFIXES)}) and depth/ or VIDEO_depth/, with its frames' numbers",
    1000,
    _recognise,
    _open,
)
