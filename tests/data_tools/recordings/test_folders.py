"""Folders of colour and depth with other names, and colour and depth in one folder."""

import layouts
import numpy as np
import pytest

from data_tools.store import read_info

HASH = 0x00EBBF3782C64D74AAF7DD39CD561175


def matterport(number, letter):
    return f"{HASH + number * 0x1234567:032x}_{letter}{number % 3}_{number % 6}"


def arkit(number, gap=0.0):
    return f"40753679_{6791.123 + number / 60 + gap:.3f}"


# Of each layout: the names of colour and depth, the steps in a metre, the title, other files.
FOLDERS, MIXED = "folders of colour and depth", "colour and depth in one folder"
LAYOUTS = {
    "ARKitScenes": (
        lambda i: f"lowres_wide/{arkit(i)}.png", lambda i: f"lowres_depth/{arkit(i, 0.002)}.png",
        1000, FOLDERS, lambda i: f"confidence/{arkit(i)}.png",
    ),
    "Matterport3D": (
        lambda i: f"undistorted_color_images/{matterport(i, 'i')}.png",
        lambda i: f"undistorted_depth_images/{matterport(i, 'd')}.png", 4000, FOLDERS, None,
    ),
    "Redwood": (
        lambda i: f"livingroom1-color/{i:05d}.png",
        lambda i: f"livingroom1-depth-clean/{i:05d}.png", 1000, FOLDERS, None,
    ),
    "InteriorNet": (
        lambda i: f"cam0/data/{i * 40}.png", lambda i: f"depth0/data/{i * 40}.png",
        1000, FOLDERS, lambda i: f"label0/data/{i * 40}.png",
    ),
    "pyorbbecsdk": (
        lambda i: f"color_images/color_1280x720_{i}_{7000 + i * 33}.png",
        lambda i: f"depth_images/depth_640x400_{i}_{7004 + i * 33}.png",
        1000, FOLDERS + ", 6 colour and 6 depth frames, 6 pairs (equal first numbers", None,
    ),
    "3D Scanner App": (
        lambda i: f"frame_{i:05d}.png", lambda i: f"depth_{i:05d}.png",
        1000, MIXED, lambda i: f"conf_{i:05d}.png",
    ),
    "ZED": (
        lambda i: f"left{i:06d}.png", lambda i: f"depth{i:06d}.png",
        1000, MIXED, lambda i: f"right{i:06d}.png",
    ),
    "Azure Kinect by ffmpeg": (
        lambda i: f"color{i + 1:04d}.png", lambda i: f"depth{i + 1:04d}.png",
        1000, MIXED, lambda i: f"ir{i + 1:04d}.png",
    ),
    "Orbbec": (
        lambda i: f"Color_{1680000000000 + i * 33}.png",
        lambda i: f"Depth_{1680000000004 + i * 33}.png", 1000, MIXED, None,
    ),
    "RGB-D Object": (
        lambda i: f"desk_1_{i + 1}.png", lambda i: f"desk_1_{i + 1}_depth.png",
        1000, MIXED, lambda i: f"desk_1_{i + 1}_mask.png",
    ),
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_give_the_folders_records(command, tmp_path, rendered, records, layout):
    color, depth, steps, title, other = LAYOUTS[layout]
    layouts.named(tmp_path / "rec", rendered, color, depth, other)
    said = command("sequence", "rec", "db", "--depth-range", "0:4").stderr
    assert said.startswith(f"rec: {title}")
    assert "6 colour and 6 depth frames, 6 pairs" in said
    assert said.endswith(f"depth unit: {steps} steps per metre\n")
    where = layouts.folder(tmp_path / "plain", rendered)
    command("folder", *where, "--depth-unit", steps, "wanted", "--depth-range", "0:4")
    assert sorted(records("db")) == sorted(records("wanted"))  # hashes are not in order


def test_folders_are_named_and_chosen(command, tmp_path, rendered, records):
    layouts.named(
        tmp_path / "rec",
        rendered,
        lambda i: f"wide/{i}.png",
        lambda i: f"highres_depth/{i}.png",
        lambda i: f"lowres_depth/{i}.png",
    )
    line = command("sequence", "rec", "db", code=1).stderr
    assert "2 folders of depth: highres_depth, lowres_depth; choose one with --depth-folder" in line
    command("sequence", "rec", "db", "--depth-folder", "highres_depth")
    assert read_info("db")["options"]["depth_folder"] == "highres_depth"
    (tmp_path / "rec/wide").rename(tmp_path / "rec/kamera")
    (tmp_path / "rec/highres_depth").rename(tmp_path / "rec/tiefe")
    names = ["--color-folder", "kamera", "--depth-folder", "tiefe"]
    command("sequence", "rec", "own", *names)
    assert records("own") == records("db")
    line = command("sequence", "rec", "d", "--depth-folder", "tiefe", code=1).stderr
    assert "rec: no folder of colour, by the names; --color-folder NAME" in line
    line = command("sequence", "rec", "d", *names[:3], "nothing", code=1).stderr
    assert "rec/nothing: no such folder" in line
    line = command("sequence", "rec", "d", *names, "--kind", "tum", code=1).stderr
    assert "--color-folder and --depth-folder do not go with --kind tum" in line


@pytest.mark.parametrize(
    ("color", "depth"),
    [
        (lambda i: f"rgb_{7 + i / 30:.6f}", lambda i: f"depth_{7.009 + i / 30:.6f}"),
        (lambda i: f"{1600000000000.1 + i * 33:.3f}", lambda i: f"{1600000000004.1 + i * 33:.3f}"),
        (lambda i: f"20230401_12030{i}_123", lambda i: f"20230401_12030{i}_129"),
        (lambda i: f"C_2023-04-01_12-03-0{i}.123", lambda i: f"D_2023-04-01_12-03-0{i}.13"),
        (lambda i: f"640x480_{i}", lambda i: f"1280x720_{i:04d}"),
    ],
)
def test_names_with_more_than_a_number(command, tmp_path, rendered, records, color, depth):
    layouts.named(tmp_path / "rec", rendered, lambda i: f"color/{color(i)}.png",
                  lambda i: f"depth/{depth(i)}.png")  # fmt: skip
    assert "6 colour and 6 depth frames, 6 pairs" in command("sequence", "rec", "db").stderr
    command("folder", *layouts.folder(tmp_path / "plain", rendered), "wanted")
    assert records("db") == records("wanted")


def test_names_that_never_meet_are_shown(command, tmp_path, rendered):
    layouts.named(
        tmp_path / "rec", rendered, lambda i: f"color/{i + 1}.png", lambda i: f"depth/9{i}.png"
    )
    line = command("sequence", "rec", "db", code=1).stderr
    assert "none belong together (equal numbers in the names): color/1.png and depth/90.png" in line


def test_polycams_names_are_microseconds(command, tmp_path, rendered, records):
    def stem(number):
        return 1442008525605 + number * 250_000

    layouts.named(
        tmp_path / "rec",
        rendered,
        lambda i: f"keyframes/images/{stem(i)}.png",
        lambda i: f"keyframes/depth/{stem(i)}.png",
        lambda i: f"keyframes/confidence/{stem(i)}.png",
    )
    for number in range(6):
        layouts.put(tmp_path / f"rec/keyframes/cameras/{stem(number)}.json", b"{}")
    said = command("sequence", "rec", "db", "--start", "0.6s").stderr
    assert "rec: Polycam, 6 colour and 6 depth frames, 6 pairs, of which 3 are taken" in said
    times = [facts["time"] for facts in read_info("db")["frames"].values()]
    assert np.diff(times) == pytest.approx([0.25, 0.25])
    command("folder", *layouts.folder(tmp_path / "plain", rendered[3:]), "wanted")
    assert records("db") == records("wanted")
