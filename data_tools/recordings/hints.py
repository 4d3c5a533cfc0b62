"""What to do with files and folders that are no recording, but that a camera's program wrote."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from pathlib import Path

from boundary.errors import shown
from data_tools import images
from data_tools.recordings.words import UNTOLD, color_rank, is_depth

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
ASIDE = (".txt", ".json", ".csv", ".xml", ".yaml", ".pincam")
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
    files = _files(where)
    if any(path.suffix.lower() in HEIC for path in files):
        return "its pictures are HEIC, which OpenCV does not read: export JPEG"
    here = [path for path in files if path.parent == where]
    if known := next((path for path in here if path.suffix.lower() in EXPORTS), None):
        return f"{shown(known.name)} is {EXPORTS[known.suffix.lower()]}"
    return _half(where, files)


def _half(where: Path, files: list[Path]) -> str:
    """What is said of a folder in which colour or depth was found, but not both."""
    deep = [path for path in files if is_depth(_part(where, path))]
    depth = [path for path in deep if path.suffix.lower() in images.DEPTH]
    flat = [path for path in files if path.suffix.lower() in images.COLOR and path not in deep]
    odd = next((path for path in deep if path.suffix and path.suffix.lower() not in ASIDE), None)
    if depth:
        return (
            f"it has depth ({_part(where, depth[0])}), but what is colour is not told by the "
            "names; --color-folder NAME tells it"
        )
    if odd is not None:
        known = " ".join(images.DEPTH)
        return f"{shown(odd.relative_to(where))}: depth is read from {known}; export PNG of 16 bits"
    if any(color_rank(_part(where, path)) not in (None, UNTOLD) for path in flat):
        return "it has colour, but no depth by the names; --depth-folder NAME tells the folder"
    return ""


def _part(where: Path, path: Path) -> str:
    """The name that tells what a file is: its folder's in `where`, or its own there."""
    return path.stem if path.parent == where else path.relative_to(where).parts[0]


def _files(where: Path) -> list[Path]:
    """Some of the files in a folder and in those in it."""
    folders = [where, *(path for path in _inside(where) if path.is_dir())]
    return [path for folder in folders for path in _inside(folder) if path.is_file()]


def _inside(folder: Path) -> list[Path]:
    """The first things in a folder; none if it cannot be read."""
    try:
        return sorted(islice(folder.iterdir(), LOOKED_AT))
    except OSError:
        return []


def _recordings(where: Path, recognised: Callable[[Path], bool]) -> list[Path]:
    """The recordings in a folder: below it, or below that."""
    level = [where]
    for _ in range(DEPTH_OF_TREE):
        level = [path for folder in level for path in _inside(folder) if path.is_dir()]
        if found := [path for path in level[:LOOKED_AT] if _inside(path) and recognised(path)]:
            return found
    return []
