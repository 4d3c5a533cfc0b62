"""What the tests of recordings share: rendered frames, records of a command, real frames."""

from __future__ import annotations

from pathlib import Path

import cv2
import pytest

from data_tools.store import Reader
from data_tools.synth import Synth

SHARED = Path(__file__).resolve().parents[4] / "shared"


@pytest.fixture(scope="session")
def rendered():
    """Six rendered frames, 40x30: colour, and depth in millimetres."""
    source = Synth(6, (40, 30), 11)
    return [(frame.color, frame.depth) for frame in map(source.load, range(6))]


@pytest.fixture(scope="session")
def real():
    """Real frames: (bytes of the colour file, its suffix, depth as stored, --depth-unit)."""
    if not (SHARED / "rgbd").is_dir():
        pytest.skip("no real frames at ../shared/rgbd")
    found = []
    for color, depth, unit in (
        ("rgbd/nyuv2_000464/rgb.png", "rgbd/nyuv2_000464/depth.png", "5000"),
        ("rgbd/sunrgbd_img_0063/image/*", "rgbd/sunrgbd_img_0063/depth/*", "sunrgbd"),
        ("nyuv2/rgb/0003.jpg", "nyuv2/depth8/0003.png", "scaled"),
        ("nyuv2/rgb/0019.jpg", "nyuv2/depth8/0019.png", "scaled"),
    ):
        for one, other in zip(SHARED.glob(color), SHARED.glob(depth), strict=True):
            image = cv2.imread(str(other), cv2.IMREAD_UNCHANGED)
            found.append((one.read_bytes(), one.suffix, image, unit))
    return found


@pytest.fixture
def records():
    """records(LMDB): all its records, without their keys; names(LMDB): the keys."""

    def read(path):
        return [record for _, record in Reader(path)]

    return read


@pytest.fixture
def names():
    """names(LMDB): the names of its records."""

    def read(path):
        return [key.decode().partition("_")[2] for key, _ in Reader(path)]

    return read
