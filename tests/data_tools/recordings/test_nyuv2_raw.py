"""NYU Depth V2's raw data: the Kinect's numbers become metres."""

import cv2
import layouts
import numpy as np
import pytest

from data_tools.recordings.nyuv2_raw import metres
from data_tools.store import read_info

# By the toolbox: 351.3 / (1092.5 - n); 0 to 1 m lies below 742, and 2047 is no reading.
NUMBERS = np.array([[0, 741, 917, 1040, 1060, 1093, 2047]], np.uint16)
METRES = [[0, 351.3 / 351.5, 351.3 / 175.5, 351.3 / 52.5, 10, 0, 0]]


def test_numbers_become_metres():
    assert metres(NUMBERS) == pytest.approx(np.array(METRES), rel=1e-6)


def test_a_scene_is_paired_in_time(command, tmp_path, rendered):
    stored = np.repeat(np.repeat(NUMBERS[:, 1:5], 15, 0), 10, 1)[:, :40]
    frames = [(color[:15], stored) for color, _ in rendered[:3]]
    layouts.nyuv2_raw(tmp_path / "rec", frames)
    said = command("sequence", "rec", "out", "--to", "folder").stderr
    assert "rec: NYU Depth V2, raw, 3 colour and 3 depth frames, 3 pairs; depth unit: 1 " in said
    assert said.endswith("depth is not aligned to colour; --intrinsics kinect-v1 aligns it\n")
    depth = np.load("out/depth/r-1294886360.208451-2996770081.npy")
    assert np.array_equal(depth, metres(stored))
    assert np.array_equal(
        cv2.imread("out/rgb/r-1294886360.208451-2996770081.ppm"), rendered[0][0][:15]
    )
    command("sequence", "rec", "db")
    frames = list(read_info("db")["frames"].values())
    assert frames[0] == {"time": pytest.approx(1294886360.208451), "gap_ms": 12.0}


def test_numbers_of_eight_bits_are_refused(command, tmp_path, rendered):
    layouts.put(tmp_path / "rec/r-1.5-2.ppm", rendered[0][0])
    layouts.put(tmp_path / "rec/d-1.5-2.pgm", np.full((30, 40), 7, np.uint8))
    assert "d-1.5-2.pgm: uint8, expected 16 bits" in command("sequence", "rec", "d", code=1).stderr
