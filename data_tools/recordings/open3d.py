"""Open3D and Redwood: numbered pictures, or names with a number and a timestamp.

Open3D's reconstruction system and its recorders for RealSense and Azure Kinect write `color/` and
`depth/` with equal numbers. Redwood's names are `0000012-000000400428`: a number and microseconds;
colour and depth are not in step there. Depth is in millimetres.
"""

from __future__ import annotations

from pathlib import Path

from data_tools import images
from data_tools.recordings.base import (
    COLOR_FOLDERS,
    Kind,
    Recording,
    Settings,
    color_folder,
    listed,
    needed,
    opened,
)


def _recognise(where: Path) -> bool:
    colors = any(listed(where / name, images.COLOR) for name in COLOR_FOLDERS)
    return colors and bool(listed(where / "depth", images.DEPTH))


def _open(where: Path, settings: Settings) -> Recording:
    color = needed(color_folder(where), images.COLOR)
    return opened(where, KIND, color, needed(where / "depth", images.DEPTH), settings)


KIND = Kind(
    "open3d",
    "Open3D or Redwood",
    "color/, rgb/ or image/, and depth/, with numbers or timestamps as names",
    1000,
    _recognise,
    _open,
)
