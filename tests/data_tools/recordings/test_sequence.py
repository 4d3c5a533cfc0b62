"""data_tools.sequence as its users run it: selection, folders of pairs, resuming, bad frames."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import layouts
import lmdb
import numpy as np
import pytest

from boundary import writing
from data_tools.record import from_datum
from data_tools.recordings import pairs
from data_tools.recordings.association import SECOND, Pair
from data_tools.recordings.selection import Position, chosen
from data_tools.recordings.seven_scenes import SevenScenes
from data_tools.store import read_info

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def recording(tmp_path, rendered):
    """A TUM recording of six frames at rec/: times 100 to 100.167 s."""
    return layouts.tum(tmp_path / "rec", rendered)


def test_frames_are_chosen_by_number_time_and_step(command, recording, records):
    command("sequence", "rec", "all")
    everything = records("all")
    for options, expected in {
        ("--every", 2): [0, 2, 4],
        ("--start", 2): [2, 3, 4, 5],
        ("--end", 2): [0, 1],
        ("--start", 1, "--end", 5, "--every", 3): [1, 4],
        ("--start", "0.06s"): [2, 3, 4, 5],
        ("--end", "0.1s"): [0, 1, 2],  # the frame at 0.1 s is the first that is left out
        ("--start", "0.03s", "--end", 3): [1, 2],
        ("--end", 100): [0, 1, 2, 3, 4, 5],
    }.items():
        said = command("sequence", "rec", "db", "--force", *options).stderr
        assert records("db") == [everything[i] for i in expected], options
        if len(expected) < 6:
            assert f"6 pairs, of which {len(expected)} are taken" in said
    options = read_info("db")["options"]
    assert (options["end"], options["every"], options["max_gap_ms"]) == ("100", 1, 20)
    line = command("sequence", "rec", "d", "--start", 6, code=1).stderr
    assert "no frame is left by --start 6 and --end 6: the recording has 6 in 0.2 s" in line
    frame = np.zeros((3, 4, 3), np.uint8), np.ones((3, 4), np.uint16)
    layouts.open3d(recording.parent / "numbers", [frame], ".png")
    line = command("sequence", "numbers", "d", "--end", "2s", code=1).stderr
    assert "--end 2s: the frames of this recording (Open3D or Redwood) have no times" in line


def test_places_in_a_recording():
    found = [Pair(str(i), 0, 0, None, 5 * SECOND + i * SECOND // 4) for i in range(8)]
    position = Position.parse
    assert chosen(found, position("0.25s"), position("1s"), 1, "k") == [1, 2, 3]
    assert chosen(found, None, None, 3, "k") == [0, 3, 6]
    for wrong in ("-1", "1.5", "1m", "s", "1e3s", ""):
        with pytest.raises(Exception, match="neither a number of frames such as 120 nor a time"):
            position(wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        ["--every", "0"],
        ["--start", "-1"],
        ["--max-gap", "20"],
        ["--kind", "kinect"],
        ["--val-fraction", "1"],
        ["--to", "folder", "--size", "20x15"],
        ["--to", "folder", "--force"],
    ],
)
def test_bad_usage_is_2(command, recording, wrong):
    said = command("sequence", "rec", "db", *wrong, code=2).stderr
    assert "usage: python -m data_tools.sequence" in said


def test_the_last_frames_are_for_validation(command, recording, names):
    command("sequence", "rec", "db", "--val-fraction", 0.3)
    assert names("db") == ["100.000000", "100.033333", "100.066667", "100.100000"]
    assert names("db_val") == ["100.133333", "100.166667"]
    assert (read_info("db")["split"], read_info("db_val")["split"]) == ("train", "val")
    command("sequence", "rec", "pairs", "--to", "folder", "--val-fraction", 0.1)
    assert [len(list(Path(name, "rgb").iterdir())) for name in ("pairs", "pairs_val")] == [5, 1]
    line = command("sequence", "rec", "x", "--end", 1, "--val-fraction", 0.5, code=1).stderr
    assert "--val-fraction needs at least two frames" in line


def test_a_folder_of_pairs_gives_the_same_records(command, recording, records, names, tmp_path):
    result = command("sequence", "rec", "pairs", "--to", "folder")
    assert result.stdout == "pairs: 6 frames, depth in 5000 steps per metre\n"
    command("sequence", "rec", "direct")
    command("folder", "--rgb", "pairs/rgb", "--depth", "pairs/depth", "--depth-unit", 5000, "db")
    assert records("db") == records("direct")
    assert names("db") == names("direct")
    # Files are copied as they are, under colour's name.
    assert (tmp_path / "pairs/depth/100.000000.png").read_bytes() == (
        tmp_path / "rec/depth/100.004000.png"
    ).read_bytes()
    facts = json.loads((tmp_path / "pairs/dataset.json").read_text())
    assert facts["source"] == {"recording": "rec", "kind": "tum"}
    assert facts["frames"]["100.033333"] == {"time": 100.033333, "gap_ms": 4.0}
    line = command("sequence", "rec", "pairs", "--to", "folder", code=1).stderr
    assert "pairs: exists already" in line


def test_bad_frames_are_named_or_left_out(command, recording, names, tmp_path):
    (recording / "rgb/100.033333.png").write_bytes(b"no picture")
    (recording / "depth/100.004000.png").write_bytes(b"no picture")  # the first depth
    for more in ([], ["--to", "folder"]):
        result = command("sequence", "rec", "out", *more, code=1)
        assert "100.033333: rec/rgb/100.033333.png: not a picture that can be read" in result.stderr
        assert "2 of 6 frames cannot be used" in result.stderr
        assert not (tmp_path / "out").exists()
    assert "left out frame 100.000000" in command("sequence", "rec", "db", "--skip-bad").stderr
    assert read_info("db")["skipped"] == ["100.000000", "100.033333"]
    assert read_info("db")["options"]["depth_unit"] == "5000 steps per metre"
    command("sequence", "rec", "pairs", "--to", "folder", "--skip-bad")
    assert len(list((tmp_path / "pairs/depth").iterdir())) == 4
    for path in (recording / "depth").iterdir():
        path.write_bytes(b"no picture")
    line = command("sequence", "rec", "none", "--skip-bad", code=1).stderr
    assert "depth/100.004000.png: not a picture that can be read" in line


def test_eight_bit_depth_asks_for_its_unit(command, tmp_path, rendered, records):
    frames = [(color, (depth // 32).astype(np.uint8)) for color, depth in rendered]
    layouts.open3d(tmp_path / "rec", frames, ".png")
    line = command("sequence", "rec", "db", code=1).stderr
    assert "if it is already scaled to 0..255 say --depth-unit scaled" in line
    command("sequence", "rec", "db", "--depth-unit", "scaled")
    command("folder", *layouts.folder(tmp_path / "plain", frames), "--depth-unit", "scaled", "w")
    assert records("db") == records("w")


# Runs the command in a process that kills itself after some commits, each of one record or more.
KILLED = """
import os, signal, sys
from data_tools import sequence, store

commit = store.Writer.commit

def commit_and_die(writer):
    global left
    some = bool(writer._batch)
    commit(writer)
    left -= some
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":  # workers import this file, too
    left = int(sys.argv.pop(1))
    store.BATCH_SECONDS, store.Writer.commit = 0, commit_and_die
    sequence.main()
"""


@pytest.mark.parametrize("workers", [1, 2])
def test_killed_runs_resume(tmp_path, command, records, rendered, workers):
    """What a killed run committed stays, and the result is that of an unbroken run."""
    layouts.tum(tmp_path / "rec", rendered * 4)
    (tmp_path / "killed.py").write_text(KILLED)
    command("sequence", "rec", "whole")
    more = ["rec", "db", "--workers", str(workers)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    partial, counts = tmp_path / "db.fusenet-partial", [0]
    for commits in (3, 5):
        run = subprocess.run([sys.executable, "killed.py", str(commits), *more], cwd=tmp_path,
                             env=environment, stderr=subprocess.DEVNULL, check=False)  # fmt: skip
        assert run.returncode == -signal.SIGKILL
        with lmdb.open(str(partial), readonly=True, lock=False) as env:
            counts.append(env.stat()["entries"])
        assert counts[-1] >= counts[-2] + commits
        assert not (tmp_path / "db").exists()
    assert counts[-1] < 24
    command("sequence", *more)
    assert records("db") == records("whole")
    assert read_info("db") == read_info("whole")
    assert not partial.exists()


# As above, for a folder of pairs: it dies when a frame is written but not noted yet, and leaves a
# half line.
KILLED_FOLDER = """
import os, signal, sys
from data_tools import sequence
from data_tools.recordings import partial

add, left = partial.PartialFolder.add, int(sys.argv.pop(1))

def add_and_die(folder, name, facts):
    global left
    left -= 1
    if left == 0:
        with open(folder._home / partial.DONE, "a") as file:
            file.write('["half')
        os.kill(os.getpid(), signal.SIGKILL)
    add(folder, name, facts)

partial.PartialFolder.add = add_and_die
sequence.main()
"""


def contents(folder):
    return {path.relative_to(folder): path.read_bytes()
            for path in folder.rglob("*") if path.is_file()}  # fmt: skip


def test_killed_folders_of_pairs_resume(tmp_path, command, rendered, monkeypatch):
    layouts.seven_scenes(tmp_path / "rec", rendered)
    (tmp_path / "killed.py").write_text(KILLED_FOLDER)
    more = ["rec", "out", "--to", "folder"]
    command("sequence", "rec", "whole", "--to", "folder")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    run = subprocess.run([sys.executable, "killed.py", "4", *more], cwd=tmp_path, env=environment,
                         stderr=subprocess.DEVNULL, check=False)  # fmt: skip
    assert run.returncode == -signal.SIGKILL
    assert not (tmp_path / "out").exists()
    loaded = []
    load = SevenScenes.load
    monkeypatch.setattr(SevenScenes, "load", lambda self, index: loaded.append(index) or
                        load(self, index))  # fmt: skip
    command("sequence", *more)
    assert loaded == [3, 4, 5]
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert not (tmp_path / "out.fusenet-partial-pairs").exists()


def test_other_folders_are_left_alone(tmp_path, command, recording):
    partial = tmp_path / "out.fusenet-partial-pairs"
    partial.mkdir()
    (partial / "mine.txt").write_text("mine")
    line = command("sequence", "rec", "out", "--to", "folder", code=1).stderr
    assert "out.fusenet-partial-pairs: was not made by this command; move it away" in line
    assert (partial / "mine.txt").read_text() == "mine"
    (partial / "mine.txt").unlink()
    partial.rmdir()
    partial.write_text("")
    line = command("sequence", "rec", "out", "--to", "folder", code=1).stderr
    assert "out.fusenet-partial-pairs: is no folder" in line
    partial.unlink()
    # What is left of another plan goes.
    (recording / "rgb/100.166667.png").write_bytes(b"no picture")
    command("sequence", "rec", "out", "--to", "folder", code=1)
    assert len(list((partial / "pairs/rgb").iterdir())) == 5
    command("sequence", "rec", "out", "--to", "folder", "--end", 2)
    assert len(list((tmp_path / "out/rgb").iterdir())) == 2
    assert not partial.exists()


def test_colour_and_depth_of_other_sizes_and_aspects(command, tmp_path, rendered, records):
    small = [(color, cv2.resize(depth, (20, 15), interpolation=cv2.INTER_NEAREST))
             for color, depth in rendered]  # fmt: skip
    layouts.open3d(tmp_path / "rec", small, ".png")
    said = command("sequence", "rec", "db", "--size", "20x20").stderr
    assert "000000: 40x30 is cropped to 30x30 in its middle for 20x20" in said
    command("folder", *layouts.folder(tmp_path / "plain", small), "w", "--size", "20x20")
    assert records("db") == records("w")
    narrow = [(color, depth[:, :30]) for color, depth in rendered]
    layouts.open3d(tmp_path / "odd", narrow, ".png")
    assert "expected one aspect ratio" in command("sequence", "odd", "o", code=1).stderr


def test_depth_is_aligned_for_records_and_for_folders(command, tmp_path, rendered, records):
    """With the cameras' calibrations; a folder of pairs then needs them no more."""
    color = {"width": 40, "height": 30, "fx": 35.0, "fy": 35.0, "cx": 19.5, "cy": 14.5}
    depth = {"width": 40, "height": 30, "fx": 30.0, "fy": 30.0, "cx": 19.5, "cy": 14.5}
    motion = {"rotation": [1, 0, 0, 0, 1, 0, 0, 0, 1], "translation": [0.05, 0.0, 0.0]}
    for name, what in (("color", color), ("depth", depth), ("motion", motion)):
        (tmp_path / f"{name}.json").write_text(json.dumps(what))
    cameras = ["--intrinsics", "color.json", "--depth-intrinsics", "depth.json",
               "--extrinsics", "motion.json", "--depth-range", "0:8"]  # fmt: skip
    layouts.open3d(tmp_path / "rec", rendered, ".png")
    command("sequence", "rec", "db", *cameras)
    command("folder", *layouts.folder(tmp_path / "plain", rendered), "wanted", *cameras)
    assert records("db") == records("wanted")
    command("sequence", "rec", "raw", "--depth-range", "0:8")
    assert records("db") != records("raw")
    command("sequence", "rec", "pairs", "--to", "folder", *cameras[:-2])
    assert "rig" in json.loads((tmp_path / "pairs/dataset.json").read_text())["options"]
    command("folder", "--rgb", "pairs/rgb", "--depth", "pairs/depth", "again",
            "--depth-range", "0:8")  # fmt: skip
    assert cv2.imread("pairs/depth/000000.png", -1).dtype == np.uint16
    for one, other in zip(records("again"), records("db"), strict=True):
        difference = np.abs(from_datum(one)[0].astype(int) - from_datum(other)[0])
        assert difference.max() <= 1  # whole millimetres
        assert (difference > 0).mean() < 0.02


def test_a_value_for_no_reading_stays_a_hole_in_a_folder(command, tmp_path, rendered):
    """It must not become a surface far away where depth is aligned."""
    spoiled = [(color, depth.copy()) for color, depth in rendered]
    for _, depth in spoiled:
        depth[:10] = 65535
    holes = [(color, np.where(depth == 65535, 0, depth)) for color, depth in spoiled]
    layouts.open3d(tmp_path / "rec", spoiled, ".png")
    layouts.open3d(tmp_path / "sound", holes, ".png")
    camera = {"width": 40, "height": 30, "fx": 35.0, "fy": 35.0, "cx": 19.5, "cy": 14.5}
    turn = [[0.9998, 0, 0.02], [0, 1, 0], [-0.02, 0, 0.9998]]
    (tmp_path / "camera.json").write_text(json.dumps(camera))
    motion = {"rotation": turn, "translation": [0.02, 0, 0.01]}
    (tmp_path / "motion.json").write_text(json.dumps(motion))
    cameras = ["--intrinsics", "camera.json", "--depth-intrinsics", "camera.json",
               "--extrinsics", "motion.json", "--to", "folder"]  # fmt: skip
    said = command("sequence", "rec", "out", *cameras).stderr
    assert "depth 65535 is taken as no reading" in said
    command("sequence", "rec", "told", *cameras, "--no-reading", 65535)
    command("sequence", "sound", "wanted", *cameras)
    wanted = contents(tmp_path / "wanted/depth")
    assert contents(tmp_path / "out/depth") == contents(tmp_path / "told/depth") == wanted
    assert json.loads((tmp_path / "out/dataset.json").read_text())["options"]["no_reading"] == [
        65535
    ]
    command("sequence", "rec", "kept", *cameras, "--no-reading", "none")
    assert contents(tmp_path / "kept/depth") != wanted
    command("sequence", "rec", "x", "--to", "folder", "--no-reading", 65535, code=2)


def test_aligned_depth_beyond_16_bits_is_a_hole(tmp_path, rendered):
    depth = np.array([[65534.4, 65534.6, 7e4, 0, 1.5]], np.float32)
    assert pairs._stored(depth, np.dtype(np.uint16)).tolist() == [[65534, 0, 0, 0, 2]]
    assert pairs._stored(depth, np.dtype(np.float32)) is depth


def test_a_full_disk_is_no_bad_frame(command, recording, tmp_path, monkeypatch):
    """Else --skip-bad would leave out sound frames."""
    write = writing.write_bytes

    def full(path, data, error):
        if "100.066667" in str(path):
            raise error(f"{path}: cannot be written: No space left on device")
        write(path, data, error)

    monkeypatch.setattr(writing, "write_bytes", full)
    line = command("sequence", "rec", "out", "--to", "folder", "--skip-bad", code=1).stderr
    assert line.endswith("100.066667.png: cannot be written: No space left on device\n")
    assert not (tmp_path / "out").exists()
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    command("sequence", "rec", "out", "--to", "folder", "--skip-bad")
    assert len(list((tmp_path / "out/rgb").iterdir())) == 6
