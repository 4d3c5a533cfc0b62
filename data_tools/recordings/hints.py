"""What to do with files and folders that are no recording, but that a camera's program wrote."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from pathlib import Path

from boundary.errors import shown
from data_tools.recordings.words import is_depth

EXPORTS = {
    ".r3d": "from Record3D: export it as EXR + JPG",
    ".sens": "from ScanNet: its SensReader exports color/ and depth/",
    ".oni": "from OpenNI: export its frames as PNG",
    ".xef": "from Kinect Studio: export its frames as PNG",
    ".klg": "from ElasticFusion's logger: export its frames as PNG",
    ".svo": "from ZED: ZED_SVO_Export writes left*.png and depth*.png",
    ".svo2": "from ZED: ZED_SVO_Export writes left*.png and depth*.png",
    ".mkv": "a video; if it is an Azure Kinect's, with depth as a track of its own, Open3D's "
    "azure_kinect_mkv_reader.py writes color/ and depth/",
    **dict.fromkeys((".zip", ".tar", ".tgz", ".gz", ".7z", ".rar"), "packed: unpack it first"),
}
HEIC = (".heic", ".heif")
RAW = (".raw", ".bin")
LOOKED_AT = 1000  # files in a folder
DEPTH_OF_TREE = 2


def hint(where: Path, recognised: Callable[[Path], bool]) -> str:
    """What may help; empty if nothing is known. recognised: whether a folder is a recording."""
    if not where.is_dir():
        return EXPORTS.get(where.suffix.lower(), "")
    inner = _recordings(where, recognised)
    if inner:
        first = [shown(path) for path in inner[:3]] + ["..."] * (len(inner) > 3)
        return f"but {', '.join(first)} {'is one' if len(inner) == 1 else 'are'}"
    files = [path for path in _files(where) if path.parent == where]
    if any(path.suffix.lower() in RAW and is_depth(path.stem) for path in files):
        return "its depth is raw numbers without a size: export PNG of 16 bits, or record a bag"
    if any(path.suffix.lower() in HEIC for path in _files(where)):
        return "its pictures are HEIC, which OpenCV does not read: export JPEG"
    known = next((path for path in files if path.suffix.lower() in EXPORTS), None)
    return f"{shown(known.name)} is {EXPORTS[known.suffix.lower()]}" if known else ""


def _files(where: Path) -> list[Path]:
    """Some of the files in a folder and in those in it."""
    folders = [where, *(path for path in islice(where.iterdir(), LOOKED_AT) if path.is_dir())]
    return [path for folder in folders for path in islice(folder.iterdir(), LOOKED_AT)
            if path.is_file()]  # fmt: skip


def _recordings(where: Path, recognised: Callable[[Path], bool]) -> list[Path]:
    """The recordings in a folder: below it, or below that."""
    level = [where]
    for _ in range(DEPTH_OF_TREE):
        level = [path for folder in level for path in islice(sorted(folder.iterdir()), LOOKED_AT)
                 if path.is_dir()]  # fmt: skip
        if found := [path for path in level if recognised(path)]:
            return found
    return []
