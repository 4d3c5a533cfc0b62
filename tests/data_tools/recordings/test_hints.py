"""What is said of files and folders that are no recording."""

import layouts
import pytest


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("a.r3d", "from Record3D: export it as EXR + JPG"),
        ("a.sens", "from ScanNet: its SensReader exports color/ and depth/"),
        ("a.SVO2", "from ZED: ZED_SVO_Export writes left*.png and depth*.png"),
        ("a.mkv", "if it is an Azure Kinect's, with depth as a track of its own, Open3D's"),
        ("a.zip", "packed: unpack it first"),
    ],
)
def test_files_that_have_to_be_exported(command, tmp_path, name, hint):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / name).write_bytes(b"\0" * 99)
    for where in (f"in/{name}", "in"):
        line = command("sequence", where, "db", code=1).stderr
        assert f"{where}: not recognised as a recording: " in line
        assert hint in line
        assert "expected one of" not in line
        assert len(line.splitlines()) == 1


def test_recordings_in_the_folder_are_named(command, tmp_path, rendered):
    for name in ("a", "b", "c", "d"):
        layouts.open3d(tmp_path / "in" / "day" / name, rendered[:1], ".png")
    line = command("sequence", "in", "db", code=1).stderr
    assert "in: not recognised as a recording: but in/day/a, in/day/b, in/day/c, ... are" in line
    layouts.tum(tmp_path / "in" / "desk", rendered[:1])
    line = command("sequence", "in", "db", code=1).stderr
    assert "in: not recognised as a recording: but in/desk is one" in line


@pytest.mark.parametrize(
    ("colors", "depths", "hint"),
    [
        ("desk_Color_1.png", "desk_Depth_1.raw", "desk_Depth_1.raw: depth is read from .png "),
        ("rgb/1.png", "depth/1.npz", "depth/1.npz: depth is read from .png .exr .npy"),
        ("rgb/1.png", "depth/1.jpg", "depth/1.jpg: depth is read from .png"),
        (
            "PV/1.png",
            "Depth Long Throw/1.pgm",
            "it has depth (Depth Long Throw), but what is colour",
        ),
        ("color/1.png", "other/1.txt", "it has colour, but no depth by the names; --depth-folder"),
    ],
)
def test_what_is_missing_is_named(command, tmp_path, rendered, colors, depths, hint):
    layouts.put(tmp_path / "in" / colors, rendered[0][0])
    layouts.put(tmp_path / "in" / depths, b"\0" * 99)
    line = command("sequence", "in", "db", code=1).stderr
    assert f"in: not recognised as a recording: {hint}" in line


def test_pictures_that_opencv_does_not_read_are_named(command, tmp_path, rendered):
    layouts.put(tmp_path / "in/rgb/1.HEIC", b"\0\0\0\x18ftypheic")
    layouts.put(tmp_path / "in/depth/1.png", rendered[0][1])
    assert "its pictures are HEIC" in command("sequence", "in", "db", code=1).stderr
