"""Each kind of recording, from files in its layout: recognised, paired, read."""

import json
import shutil
import struct

import cv2
import layouts
import numpy as np
import pytest

from data_tools.recordings import kinds
from data_tools.store import read_info
from data_tools.synth import Synth

MM = {"tum": 5000, "7scenes": 1000, "scannet": 1000, "open3d": 1000, "record3d": 1, "video": 1000}


def write(kind, root, frames):
    """Writes rendered frames in the layout of a kind."""
    if kind == "record3d":
        return layouts.record3d(root, [(c, (d / 1000).astype(np.float32)) for c, d in frames],
                                ".png")  # fmt: skip
    if kind == "video":
        return layouts.stray(root, frames)
    if kind == "tum":
        return layouts.tum(root, frames)
    makers = {"7scenes": layouts.seven_scenes, "scannet": layouts.scannet, "open3d": layouts.open3d}
    return makers[kind](root, frames, suffix=".png")


@pytest.mark.parametrize("kind", MM)
def test_recognised_and_said(command, tmp_path, rendered, kind, records):
    write(kind, tmp_path / "rec", rendered)
    result = command("sequence", "rec", "db")
    title = kinds.KINDS[kind].title
    unit = f"{MM[kind]} steps per metre"
    told = f"rec: {title}, 6 colour and 6 depth frames, 6 pairs; depth unit: {unit}\n"
    assert result.stderr == told
    assert result.stdout.startswith("db: 6 records of 5x30x40 uint8")
    info = read_info("db")
    assert info["source"] == {"recording": "rec", "kind": kind}
    assert info["options"]["depth_unit"] == unit
    assert info["labeled"] is False
    assert info["association"]["pairs"] == 6


@pytest.mark.parametrize("kind", [kind for kind in MM if kind != "video"])
def test_the_records_are_those_of_the_folder(command, tmp_path, rendered, kind, records):
    write(kind, tmp_path / "rec", rendered)
    command("sequence", "rec", "db", "--size", "20x15", "--depth-range", "0:8")
    if kind == "record3d":
        rendered = [(color, (depth / 1000).astype(np.float32)) for color, depth in rendered]
    suffix = ".npy" if kind == "record3d" else ".png"
    where = layouts.folder(tmp_path / "plain", rendered, depth_suffix=suffix)
    command("folder", *where, "--depth-unit", MM[kind], "wanted", "--size", "20x15",
            "--depth-range", "0:8")  # fmt: skip
    assert records("db") == records("wanted")


def test_real_frames_in_every_layout_give_the_folders_records(command, tmp_path, real, records):
    """One recording of one frame each: the data sets' frames differ in size and unit."""
    for number, (color, suffix, depth, unit) in enumerate(real):
        root = tmp_path / str(number)
        frame = [(color, depth)]
        where = layouts.folder(root / "plain", frame, suffix)
        options = ["--depth-unit", unit, "--size", "160x120"]
        command("folder", *where, root / "wanted", *options)
        layouts.tum(root / "tum", frame, suffix=suffix)
        for name in ("7scenes", "scannet", "open3d"):
            maker = layouts.seven_scenes if name == "7scenes" else getattr(layouts, name)
            maker(root / name, frame, suffix=suffix)
        layouts.redwood(root / "redwood", frame, [(5, 400)], suffix)
        for name in ("tum", "7scenes", "scannet", "open3d", "redwood"):
            command("sequence", root / name, root / f"{name}_db", *options)
            assert records(root / f"{name}_db") == records(root / "wanted"), name
        if unit == "5000":
            metres = (depth / 5000).astype(np.float32)
            where = layouts.folder(root / "floats", [(color, metres)], suffix, ".npy")
            command("folder", *where, root / "wanted_floats", "--size", "160x120")
            layouts.record3d(root / "r3d", [(color, metres)], suffix)
            command("sequence", root / "r3d", root / "r3d_db", "--size", "160x120")
            assert records(root / "r3d_db") == records(root / "wanted_floats")


TIMES = [("1.000000", "1.012000"), ("1.033000", "1.041000"), ("1.066000", "1.150000"),
         ("1.100000", "1.097500"), ("1.133000", "1.133000"), ("1.166000", "1.300000")]  # fmt: skip
# By hand: 1.066 is 25 ms from 1.041 and 31 from 1.0975; 1.133 takes the equal time, and leaves
# 1.166 the depth at 1.150, which is 16 ms away; nothing is near 1.300.
TUM_PAIRS = ["1.000000", "1.033000", "1.100000", "1.133000", "1.166000"]
TUM_SAID = (
    "rec: TUM RGB-D, 6 colour and 6 depth frames, 5 pairs; depth unit: 5000 steps per metre\n"
    "rec: without a partner (nearest in time, within 20 ms): 1 colour frame (rgb/1.066000.png) "
    "and 1 depth frame (depth/1.300000.png)\n"
)


@pytest.mark.parametrize("lists", [True, False])
def test_tum_pairs_are_those_of_a_hand_made_list(command, tmp_path, rendered, names, lists):
    layouts.tum(tmp_path / "rec", rendered, TIMES, lists=lists)
    assert command("sequence", "rec", "db").stderr == TUM_SAID
    assert names("db") == TUM_PAIRS
    info = read_info("db")
    assert info["association"] == {
        "rule": "nearest in time, within 20 ms",
        "color": 6,
        "depth": 6,
        "pairs": 5,
        "unmatched": {"color": 1, "depth": 1},
        "gap_ms": {"median": 8.0, "max": 16.0},
    }
    assert info["frames"]["00000000_1.000000"] == {"time": 1.0, "gap_ms": 12.0}
    assert info["frames"]["00000002_1.100000"] == {"time": 1.1, "gap_ms": -2.5}
    assert "6 pairs" not in command("sequence", "rec", "db2", "--max-gap", "40ms").stderr
    assert names("db2") == TUM_PAIRS  # 1.066's neighbours are taken by nearer ones
    command("sequence", "rec", "db3", "--max-gap", "0ms")
    assert names("db3") == ["1.133000"]


def test_tums_lists_with_commas_and_missing_files(command, tmp_path, rendered, names):
    root = layouts.tum(tmp_path / "rec", rendered[:2])
    text = (root / "rgb.txt").read_text()
    lines = text.splitlines()
    (root / "rgb.txt").write_text("\r\n".join([lines[3].replace(" ", ",\t"), "", *lines[4:]]))
    command("sequence", "rec", "db")
    assert len(names("db")) == 2
    (root / "depth.txt").write_text((root / "depth.txt").read_text().replace("/", "\\"))
    command("sequence", "rec", "windows")
    assert len(names("windows")) == 2
    shutil.rmtree(root / "rgb")
    line = command("sequence", "rec", "db", "--force", code=1).stderr
    assert "rec/rgb/100.000000.png: No such file" in line
    (root / "rgb.txt").write_text("# list\nyesterday rgb/1.png\n")
    line = command("sequence", "rec", "db", "--force", code=1).stderr
    assert "rgb.txt:2: 'yesterday' is no timestamp in seconds" in line
    (root / "rgb.txt").write_text("# list\n1.5\n")
    line = command("sequence", "rec", "db", "--force", code=1).stderr
    assert "rgb.txt:2: '1.5': expected 'timestamp filename'" in line
    (root / "rgb.txt").write_text("# list\n")
    assert "rgb.txt: names no file" in command("sequence", "rec", "d", code=1).stderr


def test_times_that_never_meet(command, tmp_path, rendered):
    times = [(f"{i}.0", f"{i}.5") for i in range(6)]
    layouts.tum(tmp_path / "rec", rendered, times)
    result = command("sequence", "rec", "db", code=1)
    assert "rec: TUM RGB-D, 6 colour and 6 depth frames, but none belong together" in result.stderr
    assert "the closest are 500 ms apart: --max-gap sets another limit" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "db").exists()


def test_redwoods_timestamps_pair_by_time_and_not_by_number(command, tmp_path, rendered, names):
    stamps = [(0, 20_000), (33_000, 53_000), (66_000, 70_000), (100_000, 103_000)]
    layouts.redwood(tmp_path / "rec", rendered[:4], stamps)
    said = command("sequence", "rec", "db", "--max-gap", "15ms").stderr
    assert "rec: Open3D or Redwood, 4 colour and 4 depth frames, 3 pairs; " in said
    # By hand: 66 takes 70, 100 takes 103; 33 is 13 from 20, and 0 has nothing within 15 ms.
    assert names("db") == ["0000002-000000033000", "0000003-000000066000", "0000004-000000100000"]
    assert read_info("db")["frames"]["00000000_0000002-000000033000"] == {
        "time": 0.033,
        "gap_ms": -13.0,
    }
    assert "1 colour frame (image/0000001-000000000000.png)" in said
    assert "1 depth frame (depth/0000002-000000053000.png)" in said


@pytest.fixture(scope="module")
def large():
    """Two rendered frames, 160x120: colour, and depth in millimetres."""
    source = Synth(2, (160, 120), 5)
    return [(frame.color, frame.depth) for frame in map(source.load, range(2))]


def test_sun3ds_rotated_bits_are_told_by_the_values(command, tmp_path, large, records):
    rotated = [(color, (depth << 3 | depth >> 13).astype(np.uint16)) for color, depth in large]
    for name, frames in (("sun3d", rotated), ("redwood", large)):
        layouts.redwood(tmp_path / name, frames, [(0, 5000), (33000, 38000)])
    assert "depth unit: sunrgbd\n" in command("sequence", "sun3d", "a", "--size", "80x60").stderr
    said = command("sequence", "redwood", "b", "--size", "80x60").stderr
    assert "depth unit: 1000 steps per metre\n" in said
    assert records("a") == records("b")
    assert read_info("a")["options"]["depth_unit"] == "sunrgbd"


def test_millimetres_are_doubted_where_nothing_is_near(command, tmp_path, large):
    """As of ICL-NUIM's numbered pictures, which have TUM's unit."""
    near = [(color, np.where(depth > 0, depth // 4 + 700, 0).astype(np.uint16))
            for color, depth in large]  # fmt: skip
    layouts.open3d(tmp_path / "mm", near, ".png")
    fives = [(color, depth * np.uint16(5)) for color, depth in near]
    layouts.open3d(tmp_path / "icl", fives, ".png")
    said = command("sequence", "icl", "a", "--size", "80x60").stderr
    assert "icl: 95 % of the readings are beyond " in said
    assert " in millimetres; --depth-unit 5000 makes the median " in said
    for source, more in (("mm", []), ("icl", ["--depth-unit", "mm"])):
        said = command("sequence", source, f"{source}_db", "--size", "80x60", *more).stderr
        assert "of the readings are beyond" not in said


@pytest.mark.parametrize("lists", [True, False])
def test_tums_layout_may_have_millimetres(command, tmp_path, large, lists):
    """TUM's unit is assumed, and doubted where millimetres are likelier."""
    times = [("1.00", "1.01"), ("2.00", "2.01")]
    layouts.tum(tmp_path / "own", large, times, lists=lists)
    said = command("sequence", "own", "db", "--size", "80x60").stderr
    metres = float(np.median(large[0][1][large[0][1] > 0])) / 1000
    assert (
        f"own: the median distance is {metres / 5:.3g} m in TUM's unit, and {metres:.3g} m in"
        in (said)
    )
    assert "(--depth-unit mm)\n" in said
    said = command("sequence", "own", "mm", "--size", "80x60", "--depth-unit", "mm").stderr
    assert "TUM's unit" not in said
    # Of TUM's own all are multiples of 5; others are not so near.
    near = [(color, depth // 25 * 5) for color, depth in large]
    layouts.tum(tmp_path / "near", near, times, lists=lists)
    far = [(color, depth * 5 + 1) for color, depth in large]
    layouts.tum(tmp_path / "far", far, times, lists=lists)
    for name in ("near", "far"):
        said = command("sequence", name, f"{name}_db", "--size", "80x60").stderr
        assert "TUM's unit" not in said


def test_65535_is_no_reading_in_7_scenes(command, tmp_path, rendered, records):
    color, depth = rendered[0]
    spoiled = np.where(depth == 0, 65535, depth).astype(np.uint16)
    spoiled[3, 5] = 65535
    layouts.seven_scenes(tmp_path / "scene" / "seq-01", [(color, spoiled)])
    depth = depth.copy()
    depth[3, 5] = 0
    layouts.seven_scenes(tmp_path / "scene" / "seq-02", [(color, depth)])
    command("sequence", "scene", "db", "--depth-range", "valid")
    first, second = records("db")
    assert first == second
    command("sequence", "scene", "pairs", "--to", "folder")
    read = cv2.imread("pairs/depth/seq-01/frame-000000.png", cv2.IMREAD_UNCHANGED)
    assert np.array_equal(read, depth)


def test_unpaired_numbers_are_named(command, tmp_path, rendered, names):
    layouts.open3d(tmp_path / "rec", rendered, ".png")
    (tmp_path / "rec/depth/000002.png").rename(tmp_path / "rec/depth/12.png")
    (tmp_path / "rec/depth/000003.png").unlink()
    said = command("sequence", "rec", "db").stderr
    assert "6 colour and 5 depth frames, 4 pairs" in said
    assert (
        "without a partner (equal numbers in the names): 2 colour frames (color/000002.png, "
        "color/000003.png) and 1 depth frame (depth/12.png)"
    ) in said
    assert names("db") == ["000000", "000001", "000004", "000005"]


TABLE = "id\traw_category\tnyu40id\n1\twall\t1\n2\tchair\t5\n1163\tobject\t40\n22\tthing\t\n"


def labels(*values):
    return [np.full((30, 40), value, np.uint16) for value in values]


def test_scannets_raw_labels_become_nyuv2s(command, tmp_path, rendered):
    (tmp_path / "map.tsv").write_text(TABLE)
    layouts.scannet(tmp_path / "rec", rendered[:3], labels(1, 1163, 0), suffix=".png")
    command("sequence", "rec", "db", "--label-map", "map.tsv")
    info = read_info("db")
    assert info["label_pixels"] == {"0": 1200, "1": 1200, "40": 1200}
    assert (info["dataset"], info["labeled"], len(info["classes"])) == ("scannet-40", True, 41)
    assert "ScanNet's raw ids" not in command("sequence", "rec", "n", "--no-labels").stderr
    said = command("sequence", "rec", "ids", "--end", 1).stderr
    assert "label-filt: these labels are taken as they are, ScanNet's raw ids; --label-map" in said
    line = command("sequence", "rec", "raw", code=1).stderr
    assert "label-filt/1.png: label 1163 is one of ScanNet's raw ids; --label-map" in line
    command("sequence", "rec", "none", "--no-labels")
    assert read_info("none")["labeled"] is False
    layouts.put(tmp_path / "rec/label-filt/1.png", labels(77)[0])
    line = command("sequence", "rec", "odd", "--label-map", "map.tsv", code=1).stderr
    assert "label 77 is not in --label-map" in line
    command("sequence", "rec", "odd", "--label-map", "map.tsv", "--unknown", "ignore")
    assert read_info("odd")["unknown_labels"] == {"pixels": 1200, "frames": 1}
    command("sequence", "rec", "out", "--label-map", "map.tsv", "--to", "folder", "--end", 1)
    assert (cv2.imread("out/label/0.png", cv2.IMREAD_UNCHANGED) == 1).all()


def test_labels_of_scannets_25k_frames_are_classes(command, tmp_path, rendered):
    layouts.scannet(tmp_path / "rec", rendered[:2], labels(3, 40), "label", ".png")
    command("sequence", "rec", "db")
    info = read_info("db")
    assert info["label_pixels"] == {"3": 1200, "40": 1200}
    assert info["classes"][40] == "other prop" or info["classes"][40].startswith("other")
    for row, said in (("x\t1", "must be whole numbers"), ("70000\t1", "out of range")):
        (tmp_path / "map.tsv").write_text(f"id\tnyu40id\n{row}\n")
        line = command("sequence", "rec", "d", "--label-map", "map.tsv", code=1).stderr
        assert f"map.tsv:2: {said}" in line or said in line
    (tmp_path / "map.tsv").write_text(TABLE)
    line = command("sequence", "rec", "d", "--label-map", "map.tsv", code=1).stderr
    assert "label: these labels are NYUv2's 40 classes already; leave --label-map out" in line
    layouts.open3d(tmp_path / "other", rendered[:2], ".png")
    line = command("sequence", "other", "d", "--label-map", "map.tsv", code=1).stderr
    assert "--label-map is for ScanNet's labels; other is Open3D or Redwood" in line


def test_record3ds_rate_gives_times(command, tmp_path, rendered):
    write("record3d", tmp_path / "rec", rendered)
    command("sequence", "rec", "db", "--start", "0.06s", "--end", "0.15s")
    info = read_info("db")  # frames at 0, 33, 67, 100, 133, 167 ms
    assert [facts["time"] for facts in info["frames"].values()] == pytest.approx(
        [2 / 30, 3 / 30, 4 / 30], abs=1e-6
    )
    (tmp_path / "rec/EXR_RGBD/metadata.json").write_text("{")
    assert "metadata.json: not JSON" in command("sequence", "rec", "d", code=1).stderr


def painted(count):
    """Frames that a lossy video cannot confuse: each a grey of its own; depth says its number."""
    return [(np.full((48, 64, 3), 20 * i + 10, np.uint8), np.full((48, 64), 1000 + i, np.uint16))
            for i in range(count)]  # fmt: skip


@pytest.mark.parametrize("codec", ["MJPG", "mp4v", "vp09"])
@pytest.mark.parametrize("first", [0, 1])
def test_video_frames_meet_the_depth_of_their_number(command, tmp_path, codec, first):
    name = "rgb.avi" if codec == "MJPG" else "color.mp4"
    layouts.stray(tmp_path / "rec", painted(10), first, codec, name)
    command("sequence", "rec", "pairs", "--to", "folder")
    for i in range(10):
        color = cv2.imread(f"pairs/rgb/{i:06d}.png")
        assert abs(color.mean() - (20 * i + 10)) < 4
        depth = cv2.imread(f"pairs/depth/{i:06d}.png", cv2.IMREAD_UNCHANGED)
        assert (depth == 1000 + i).all()
    rule = json.loads((tmp_path / "pairs/dataset.json").read_text())["association"]["rule"]
    assert rule == f"depth picture {first} is the video's first frame, and so on"


def test_videos_give_the_folders_records(command, tmp_path, rendered, records):
    layouts.stray(tmp_path / "rec", rendered)
    capture = cv2.VideoCapture(str(tmp_path / "rec/rgb.avi"))
    decoded = [capture.read()[1] for _ in rendered]
    frames = [(color, depth) for color, (_, depth) in zip(decoded, rendered, strict=True)]
    command("folder", *layouts.folder(tmp_path / "plain", frames), "wanted")
    command("sequence", "rec", "db")
    assert records("db") == records("wanted")


def test_a_video_that_its_header_turns_is_taken_as_stored(command, tmp_path, rendered):
    """Depth has no such header."""
    path = layouts.stray(tmp_path / "rec", rendered, codec="mp4v", name="rgb.mp4") / "rgb.mp4"
    data = bytearray(path.read_bytes())
    place = data.index(b"tkhd") + 44  # of the matrix in a track's header
    data[place : place + 36] = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    assert cv2.VideoCapture(str(path)).read()[1].shape == (40, 30, 3)
    said = command("sequence", "rec", "db").stderr
    assert "rgb.mp4: its header turns frames by 90 degrees; they are taken as stored" in said
    assert read_info("db")["shape"] == [5, 30, 40]


def test_many_without_a_partner_are_counted(command, tmp_path, rendered):
    layouts.open3d(tmp_path / "rec", rendered, ".png")
    for number in range(1, 6):
        (tmp_path / f"rec/depth/00000{number}.png").unlink()
    said = command("sequence", "rec", "db").stderr
    assert "5 colour frames (color/000001.png, color/000002.png, color/000003.png, ...)\n" in said


def test_videos_are_the_same_with_workers_and_gaps(command, tmp_path, records, monkeypatch):
    monkeypatch.setattr("data_tools.recordings.video.Video.block", 3)
    layouts.stray(tmp_path / "rec", painted(10))
    for number in (2, 7):
        (tmp_path / f"rec/depth/{number:06d}.png").unlink()
    said = command("sequence", "rec", "one").stderr
    assert "2 colour frames (frame 2 of rgb.avi, frame 7 of rgb.avi)" in said
    command("sequence", "rec/rgb.avi", "file")
    command("sequence", "rec", "two", "--workers", 2)
    assert records("one") == records("two") == records("file")
    assert len(records("one")) == 8
    command("sequence", "rec", "some", "--start", "0.35s", "--every", 2)
    assert [facts["time"] for facts in read_info("some")["frames"].values()] == [0.4, 0.6, 0.9]
    assert records("some") == [records("one")[i] for i in (3, 5, 7)]


def test_videos_that_are_none(command, tmp_path):
    root = layouts.stray(tmp_path / "rec", painted(2))
    (root / "rgb.avi").write_bytes(b"#EXTM3U\nhttp://localhost/x.ts\n")
    line = command("sequence", "rec", "db", code=1).stderr
    assert "rgb.avi: not a video that can be read: expected MP4, MOV, AVI, MKV or WebM" in line
    (root / "rgb.avi").write_bytes(b"RIFF" + bytes(200))
    assert (
        "rgb.avi: not a video that can be read" in command("sequence", "rec", "db", code=1).stderr
    )
    (root / "b.mp4").write_bytes(b"")
    assert "holds 2 videos" in command("sequence", "rec", "d", "--kind", "video", code=1).stderr


def test_a_video_of_depth_beside_it_does_not_count(command, tmp_path, names):
    layouts.stray(tmp_path / "rec", painted(3))
    for name in ("depth.avi", "ir.avi"):
        shutil.copy(tmp_path / "rec/rgb.avi", tmp_path / "rec" / name)
    command("sequence", "rec", "db")
    assert names("db") == ["000000", "000001", "000002"]


def test_a_video_cut_off_names_the_frames(command, tmp_path):
    root = layouts.stray(tmp_path / "rec", painted(10), name="rgb.mkv")
    data = (root / "rgb.mkv").read_bytes()
    (root / "rgb.mkv").write_bytes(data[: len(data) * 6 // 10])
    result = command("sequence", "rec", "db", "--skip-bad")
    whole = read_info("db")["records"]
    assert 0 < whole < 10
    assert f"left out frame {whole:06d}: rec/rgb.mkv: frame {whole} cannot be read" in result.stderr
    assert result.stderr.count("left out frame") == 10 - whole


def test_kind_overrides_and_what_it_lacks_is_said(command, tmp_path, rendered):
    layouts.tum(tmp_path / "rec", rendered)
    said = command("sequence", "rec", "db", "--kind", "open3d").stderr
    assert "rec: Open3D or Redwood, 6 colour and 6 depth frames, 6 pairs; depth unit: 1000 " in said
    assert read_info("db")["options"]["depth_unit"] == "1000 steps per metre"
    for kind, lacks in {
        "scannet": "rec/color: no such folder",
        "7scenes": "no frame-N.color.* in it",
        "record3d": "rec/depth: holds none of the files looked for (.exr)",
        "video": "holds 0 videos",
        "bag": "not a bag that can be read",
    }.items():
        result = command("sequence", "rec", "other", "--kind", kind, code=1)
        assert lacks in result.stderr
        assert len(result.stderr.splitlines()) == 1


def test_numbered_pictures_of_tums_unit(command, tmp_path, rendered, names):
    """As ICL-NUIM has them."""
    layouts.tum(tmp_path / "rec", rendered, [(str(i), str(i)) for i in range(6)], lists=False)
    assert "rec: Open3D or Redwood" in command("sequence", "rec", "db").stderr
    command("sequence", "rec", "tum", "--kind", "tum")
    assert names("tum") == list("012345")
    assert read_info("tum")["options"]["depth_unit"] == "5000 steps per metre"


def test_a_list_of_pairs_is_followed(command, tmp_path, rendered, names):
    """What associate.py prints, and ICL-NUIM's, which names depth first and numbers the frames."""
    root = layouts.tum(
        tmp_path / "rec", rendered, [(str(i), str(i)) for i in range(6)], lists=False
    )
    (root / "associations.txt").write_text("".join(
        f"{i} depth/{i}.png {i} rgb/{i + 1}.png\n" for i in range(5)))  # fmt: skip
    said = command("sequence", "rec", "db", "--to", "folder").stderr
    assert "rec: TUM RGB-D, 5 colour and 5 depth frames, 5 pairs; depth unit: 5000" in said
    for i in range(5):
        assert np.array_equal(cv2.imread(f"db/rgb/{i + 1}.png"), rendered[i + 1][0])
        assert np.array_equal(cv2.imread(f"db/depth/{i + 1}.png", -1), rendered[i][1])
    assert json.loads((tmp_path / "db/dataset.json").read_text())["association"]["rule"] == (
        "the list associations.txt"
    )
    (root / "associations.txt").rename(root / "associate.txt")
    (root / "associate.txt").write_text("0.5 rgb/0.png 0.51 depth/3.png\n")
    command("sequence", "rec", "one")
    assert read_info("one")["frames"] == {"00000000_0": {"time": 0.5, "gap_ms": 10.0}}
    for text, said in (("0.5 rgb/0.png\n", "'0.5 rgb/0.png': expected 'timestamp filename time"),
                       ("1 rgb/0.png 1 depth/0.png\n" * 2, "names a colour picture twice"),
                       ("# nothing\n", "names no file")):  # fmt: skip
        (root / "associate.txt").write_text(text)
        assert said in command("sequence", "rec", "none", code=1).stderr


def test_other_rates_are_told_by_the_counts(command, tmp_path, rendered):
    """Colour at 60 frames a second, depth at 30, both numbered from 0."""
    layouts.open3d(tmp_path / "rec", rendered, ".png")
    for number in range(6, 12):
        layouts.put(tmp_path / f"rec/color/{number:06d}.png", rendered[0][0])
    said = command("sequence", "rec", "db").stderr
    assert (
        "goes on for long (12 colour and 6 depth frames): if they were recorded at different rates"
        in said
    )
    for number in range(6, 10):  # a few more at the end, and gaps, are a matter of course
        (tmp_path / f"rec/color/{number:06d}.png").unlink()
    assert "different rates" not in command("sequence", "rec", "db2").stderr
    (tmp_path / "rec/color/000000.png").unlink()
    (tmp_path / "rec/depth/000003.png").unlink()
    assert "different rates" not in command("sequence", "rec", "db3").stderr


def test_folders_with_capitals(command, tmp_path, rendered, names):
    layouts.open3d(tmp_path / "rec", rendered, ".png")
    (tmp_path / "rec/color").rename(tmp_path / "rec/Color")
    (tmp_path / "rec/depth").rename(tmp_path / "rec/Depth")
    command("sequence", "rec", "db")
    assert len(names("db")) == 6


def test_what_is_no_recording_lists_the_kinds(command, tmp_path):
    (tmp_path / "rec").mkdir()
    line = command("sequence", "rec", "db", code=1).stderr
    assert "rec: not recognised as a recording; expected one of: " in line
    for kind in kinds.KINDS.values():
        assert f"{kind.name} ({kind.needs})" in line
    assert len(line.splitlines()) == 1
    (tmp_path / "a.r3d").write_bytes(b"PK")
    assert "export it as EXR + JPG" in command("sequence", "a.r3d", "db", code=1).stderr
    assert "nowhere: no such folder" in command("sequence", "nowhere", "db", code=1).stderr
