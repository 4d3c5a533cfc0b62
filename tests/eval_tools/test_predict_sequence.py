"""predict on recordings, and the video that it writes."""

import os

import cv2
import layouts
import numpy as np
import pytest

from data_tools.cli import DataError
from data_tools.images import read_label
from data_tools.synth import Synth
from eval_tools import predict, video
from eval_tools.records import Record


@pytest.fixture(scope="module")
def frames():
    """Five rendered frames, 64x48."""
    source = Synth(5, (64, 48), 4)
    return [(frame.color, frame.depth) for frame in map(source.load, range(5))]


def run(*args):
    predict.main([str(arg) for arg in args])


def pictures(folder):
    return {path.name: read_label(path) for path in folder.iterdir() if "_" not in path.name}


def read_video(path):
    capture = cv2.VideoCapture(str(path))
    found = []
    while (got := capture.read())[0]:
        found.append(got[1])
    return found, capture.get(cv2.CAP_PROP_FPS)


@pytest.mark.parametrize("options", [[], ["--size", "original", "--fit", "pad"]])
def test_a_recording_is_labelled_as_its_files_are(model, frames, tmp_path, options, capsys):
    layouts.tum(tmp_path / "rec", frames)
    where = layouts.folder(tmp_path / "plain", frames)
    more = ["--depth-range", "0:8", *options]
    run(*model, *where, "-o", tmp_path / "files", "--depth-unit", 5000, *more)
    run(*model, "--sequence", tmp_path / "rec", "-o", tmp_path / "out", "--batch-size", 2, *more)
    assert "TUM RGB-D, 5 colour and 5 depth frames, 5 pairs" in capsys.readouterr().err
    expected = list(pictures(tmp_path / "files").items())
    found = dict(sorted(pictures(tmp_path / "out").items()))
    assert list(found) == [f"{100 + i / 30:.6f}.png" for i in range(5)]
    for label, (_, wanted) in zip(found.values(), sorted(expected), strict=True):
        assert np.array_equal(label, wanted)
    assert len(np.unique(np.stack(list(found.values())))) > 1


def test_frames_are_chosen_and_kinds_overridden(model, frames, tmp_path, capsys):
    layouts.open3d(tmp_path / "rec", frames, ".png")
    common = [*model, "--sequence", tmp_path / "rec", "--depth-range", "0:8"]
    run(*common, "-o", tmp_path / "out", "--start", 1, "--every", 2, "--overlay")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"000001.png", "000001_overlay.png", "000003.png", "000003_overlay.png",
                     "legend.png"}  # fmt: skip
    with pytest.raises(DataError, match=r"rec/rgb: no such folder"):
        run(*common, "--kind", "tum", "-o", tmp_path / "other")
    with pytest.raises(SystemExit):
        run(*common, "--rgb", tmp_path / "rec/color")


def test_the_video_shows_colour_depth_and_labels(model, toy, frames, tmp_path):
    layouts.tum(tmp_path / "rec", frames)
    film = tmp_path / "out.mp4"
    run(*model, "--sequence", tmp_path / "rec", "-o", tmp_path / "out", "--video", film,
        "--depth-range", "0:8", "--size", "original", "--every", 2)  # fmt: skip
    shown, rate = read_video(film)
    assert len(shown) == 3
    assert rate == pytest.approx(15, abs=0.1)  # every other frame of 30 a second
    assert {picture.shape for picture in shown} == {(120, 480, 3)}
    from eval_tools.labels import label_set

    colors = label_set(5, {}, None, None).colors
    for i, picture in enumerate(shown):
        color, depth, label = (picture[:, start : start + 160] for start in (0, 160, 320))
        wanted = cv2.resize(frames[2 * i][0], (160, 120), interpolation=cv2.INTER_CUBIC)
        assert np.abs(color.astype(int) - wanted).mean() < 12
        found = read_label(tmp_path / "out" / f"{100 + 2 * i / 30:.6f}.png")
        tinted = colors[cv2.resize(found, (160, 120), interpolation=cv2.INTER_NEAREST)]
        assert np.abs(label.astype(int) - tinted[..., ::-1]).mean() < 25
        assert depth.std() > 5
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "out.mp4", "rec"]


def test_a_video_of_records_at_a_rate_of_ones_own(model, data, tmp_path):
    path, frames = data
    run(*model, "--lmdb", path, "-o", tmp_path / "out", "--video", tmp_path / "v.avi", "--fps", 4)
    shown, rate = read_video(tmp_path / "v.avi")
    assert (len(shown), rate) == (len(frames), 4)


def test_a_run_that_fails_leaves_no_video(model, frames, tmp_path):
    layouts.open3d(tmp_path / "rec", frames, ".png")
    (tmp_path / "rec/color/000003.png").write_bytes(b"no picture")
    common = [*model, "--sequence", tmp_path / "rec", "-o", tmp_path / "out"]
    film = tmp_path / "films" / "v.mp4"
    film.parent.mkdir()
    with pytest.raises(DataError, match=r"000003\.png: not a picture"):
        run(*common, "--video", film)
    assert list(film.parent.iterdir()) == []
    for path, said in {
        "v.gif": "videos are written as .mp4, .avi",
        "nowhere/v.mp4": "does not exist",
        "out": "videos are written as",
    }.items():
        with pytest.raises(DataError, match=said):
            run(*common, "--video", tmp_path / path)


def test_a_video_does_not_overwrite_what_is_read(model, frames, tmp_path):
    layouts.stray(tmp_path / "rec", frames)
    with pytest.raises(DataError, match=r"--video would overwrite the input"):
        run(*model, "--sequence", tmp_path / "rec", "-o", tmp_path / "out",
            "--video", tmp_path / "rec/rgb.avi")  # fmt: skip


def test_sizes_of_a_videos_pictures():
    assert video.panel((320, 240)) == (320, 240)
    assert video.panel((640, 480)) == (480, 360)
    assert video.panel((16, 12)) == (160, 120)
    assert video.panel((2000, 3)) == (480, 2)


def test_the_nets_view_and_the_whole_frame(tmp_path):
    """Without --size labels are those of the net's view, and so are colour and depth."""
    color = np.zeros((12, 16, 3), np.uint8)
    color[..., 2] = 250
    guide = np.zeros((24, 64, 3), np.uint8)
    guide[..., 0] = 250
    depth = np.full((12, 16), 255, np.float32)
    record = Record("x", color, depth, guide=guide)
    colors = np.array([[0, 0, 0], [0, 250, 0]], np.uint8)
    for whole, label, wanted in ((False, np.ones((12, 16), np.uint8), 2),
                                 (True, np.ones((24, 64), np.uint8), 0)):  # fmt: skip
        path = tmp_path / f"{whole}.avi"
        with video.opened(path, 5, colors) as film:
            film.add(record, label, whole)
        (picture,), _ = read_video(path)
        third = picture.shape[1] // 3
        assert picture[5, 5].argmax() == wanted
        assert picture[5, third + 5].argmax() == 2  # far is red
        assert picture[5, 2 * third + 5].argmax() == 1


@pytest.mark.parametrize("suffix", [".avi", ".mp4"])
def test_a_video_that_lacks_frames_is_none(model, frames, tmp_path, suffix, monkeypatch):
    """OpenCV says nothing where a disk is full: files end early, or lack their table."""
    layouts.tum(tmp_path / "rec", frames)

    def torn(film):
        close(film)
        os.truncate(film._path, os.path.getsize(film._path) * 2 // 3)

    close = video.Film.close
    monkeypatch.setattr(video.Film, "close", torn)
    film = tmp_path / f"v{suffix}"
    with pytest.raises(DataError, match="cannot be written in full; is there space on the disk"):
        run(*model, "--sequence", tmp_path / "rec", "-o", tmp_path / "out", "--video", film,
            "--depth-range", "0:8")  # fmt: skip
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith("v")]


def test_options_that_would_say_nothing_are_bad_usage(model, frames, tmp_path, capsys):
    where = layouts.folder(tmp_path / "plain", frames)
    with pytest.raises(SystemExit):
        run(*model, *where, "--every", 2, "--kind", "tum")
    assert "error: --kind, --every: expected --sequence" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run(*model, "--lmdb", tmp_path / "db", "--intrinsics", "kinect-v2", "--no-reading", 9)
    said = capsys.readouterr().err
    assert "error: --intrinsics, --no-reading: records of an LMDB are taken as they are" in said


def test_a_net_of_colours_alone_labels_recordings_whose_depth_is_unusable(toy, frames, tmp_path):
    """Of another aspect, not aligned, or without a reading."""
    text = toy.deploy[: toy.deploy.index('layer { name: "depth"')]
    text += toy.deploy[toy.deploy.index('layer { name: "all"') :].replace('bottom: "depth" ', "")
    text = text.replace("HEIGHT", "12").replace("WIDTH", "16")
    weight = np.random.default_rng(0).normal(size=(5, 3))
    net = toy.model(tmp_path, text, {"score": [weight, np.zeros(5)]}, "colours")
    spoiled = [(color, depth[:, :30] * (i % 2)) for i, (color, depth) in enumerate(frames)]
    layouts.tum(tmp_path / "rec", spoiled)
    where = layouts.folder(tmp_path / "plain", frames)
    run(*net, *where[:2], "-o", tmp_path / "files")
    run(*net, "--sequence", tmp_path / "rec", "-o", tmp_path / "out", "--video", tmp_path / "v.avi")
    wanted = [label for _, label in sorted(pictures(tmp_path / "files").items())]
    found = [label for _, label in sorted(pictures(tmp_path / "out").items())]
    assert len(np.unique(np.stack(wanted))) > 1
    assert np.array_equal(np.stack(found), np.stack(wanted))
    assert len(read_video(tmp_path / "v.avi")[0]) == 5
