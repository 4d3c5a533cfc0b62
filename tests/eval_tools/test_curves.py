"""Logs of several Caffes, read and drawn."""

import itertools
import math
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from data_tools.cli import DataError
from eval_tools import curves
from eval_tools.caffe_log import Parser, read_log
from eval_tools.tensorboard import _masked

REFERENCE = Path(__file__).parents[1] / "golden" / "interop" / "reference_train.log"
PREFIX = "I{}:00.500000 12994 solver.cpp:239] "


def feed(*lines, day="1122 16:49"):
    return Parser("run").feed(PREFIX.format(day) + line for line in lines)


def test_the_reference_log():
    run = read_log(REFERENCE)
    assert run.done
    # The numbers as the log prints them, in its lines "Iteration N ... loss = X" and so on.
    assert run.series["loss"].iterations == [0, 2, 4, 6, 8, 10, 12]
    assert run.series["loss"].values == [
        1.0828,
        1.3271,
        1.25382,
        1.05312,
        1.16513,
        1.23381,
        1.01997,
    ]
    assert run.series["lr"].values == [0.01, 0.01, 0.01, 0.01, 0.01, 0.001]
    assert run.series["test/accuracy"].iterations == [0, 5, 10]
    assert run.series["test/accuracy"].values == [0, 0, 0.166667]
    assert run.series["test/loss"].values == [1.26094, 1.22307, 1.20908]
    assert run.series["train/loss"].iterations == [0, 2, 4, 6, 8, 10]
    # From 45.278925 (testing at 0) to 45.282184 (the last loss).
    assert run.series["loss"].seconds[-1] == pytest.approx(0.003259, abs=1e-9)


def test_lines_of_older_caffes_and_of_two_test_nets():
    run = feed(
        "Iteration 0, Testing net (#0)",
        "    Test net output #0: accuracy = 0.25",
        "Iteration 0, Testing net (#1)",
        "    Test net output #0: accuracy = 0.5",
        "Iteration 0, loss = 2.5e-1",
        "    Train net output #0: loss = nan (* 1 = nan loss)",
        "Iteration 0, lr = 1e-05",
    )
    assert run.series["test/accuracy"].values == [0.25]
    assert run.series["test1/accuracy"].values == [0.5]
    assert run.series["loss"].values == [0.25]
    assert math.isnan(run.series["train/loss"].values[0])
    assert run.series["lr"].values == [1e-5]


def test_a_blob_of_several_values_is_several_curves():
    block = [f"    Test net output #{i}: per_class = 0.{i}" for i in range(3)]
    run = feed(
        "Iteration 0, Testing net (#0)", *block, "Iteration 5, Testing net (#0)", *block[::-1]
    )
    assert set(run.series) == {f"test/per_class[{i}]" for i in range(3)}
    assert run.series["test/per_class[1]"].values == [0.1, 0.1]
    assert run.series["test/per_class[2]"].values == [0.2, 0.0]


def test_a_resumed_run_goes_on_from_its_snapshot():
    steps = [0, 10, 20, 30, 20, 30, 40]
    run = feed(*(f"Iteration {n} (1 iter/s), loss = {i}" for i, n in enumerate(steps)))
    assert run.series["loss"].iterations == [0, 10, 20, 30, 40]
    assert run.series["loss"].values == [0, 1, 4, 5, 6]


def test_time_goes_on_over_new_year_without_a_year():
    parser = Parser("run")
    parser.feed([PREFIX.format("1231 23:59") + "Iteration 0, loss = 1"])
    run = parser.feed([PREFIX.format("0101 00:01") + "Iteration 9, loss = 1"])
    assert run.series["loss"].seconds == [0, 120]


def test_lines_of_other_threads_in_between_do_no_harm():
    run = feed(
        "Iteration 0, Testing net (#0)",
        "Restarting data prefetching from start.",
        "    Test net output #0: accuracy = 0.5",
    )
    assert run.series["test/accuracy"].values == [0.5]


def test_other_files_are_refused(tmp_path):
    (tmp_path / "x.log").write_text("hello\n")
    with pytest.raises(DataError, match="no line of Caffe's training log"):
        read_log(tmp_path / "x.log")


@pytest.mark.parametrize(
    ("suffix", "head"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")]
)
def test_the_command_draws_and_sums_up(tmp_path, suffix, head, capsys):
    out = tmp_path / f"c.{suffix}"
    curves.main([str(REFERENCE), str(REFERENCE), "--names", "a,b", "-o", str(out), "--x", "time"])
    assert out.read_bytes().startswith(head)
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["a", "12", "1.02", "0.1667", "at", "10"]


def test_panels_and_curves_of_the_figure():
    run = read_log(REFERENCE)
    axes = curves.draw([run]).axes
    assert [a.get_ylabel() for a in axes] == ["loss", "accuracy", "learning rate"]
    train, test = axes[0].lines
    assert list(train.get_ydata()) == run.series["loss"].values
    assert list(test.get_xdata()) == [0, 5, 10]
    run.series.pop("lr")
    assert len(curves.draw([run]).axes) == 2
    assert curves.smoothed([4, 2, 0, 2], 2) == [4, 3, 1, 1]


def test_all_labels_are_within_the_figure():
    """Also long ones: a small loss, and a rate that stays within a decade."""
    run = feed(
        "Iteration 0, loss = 2.5e-05",
        "Iteration 0, lr = 2.5e-08",
        "Iteration 1, loss = 3.75e-05",
        "Iteration 1, lr = 2.6e-08",
    )
    figure = curves.draw([run])
    box = figure.get_tightbbox()  # inches
    assert box.x0 >= 0
    assert box.y0 >= 0
    assert (box.x1, box.y1) <= tuple(figure.get_size_inches())


def test_ious_are_drawn_and_summed_up_beside_accuracies():
    text = REFERENCE.read_text().replace(
        "accuracy = ", "accuracy = 0.5\nTest net output #9: NAME = "
    )
    for name in ("mean_iou", "mIoU", "iou", "meanIoU"):
        run = Parser("a").feed(text.replace("NAME", name).splitlines())
        table = curves.summary([run])
        assert table.head[3:] == ["best test accuracy", "best test IoU"]
        assert table.rows[0][3:] == ["0.5 at 10", "0.1667 at 10"]
        assert f"test {name}" in [line.get_label() for line in curves.draw([run]).axes[1].lines]
    run = Parser("a").feed(text.replace("NAME", "previous").splitlines())
    assert curves.summary([run]).head[3:] == ["best test accuracy"]


def test_names_of_runs_are_text(tmp_path, capsys):
    names = ["$x^$", "<b>\x1b[31m", "-->\nb"]
    out = tmp_path / "c.svg"
    curves.main([*[str(REFERENCE)] * 3, "--names", ",".join(names), "-o", str(out)])
    assert ElementTree.parse(out).getroot().tag.endswith("svg")
    assert "$x^$: train loss" in out.read_text()
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    assert len(printed.splitlines()) == 4


def test_follow_draws_as_the_log_grows(tmp_path, monkeypatch):
    log, out = tmp_path / "train.log", tmp_path / "c.png"
    lines = REFERENCE.read_text().splitlines(keepends=True)
    cuts = [0, 100, len(lines) - 10, len(lines)]
    parts = ["".join(lines[a:b]) for a, b in itertools.pairwise(cuts)]
    parts[1:2] = [parts[1][:-20], parts[1][-20:]]  # a line that is only half written
    log.write_text("")
    drawn = []

    def grow(_seconds):
        drawn.append(out.stat().st_mtime_ns if out.exists() else None)
        with open(log, "a") as file:
            file.write(parts.pop(0))

    monkeypatch.setattr(curves.time, "sleep", grow)
    args = curves.arguments().parse_args([str(log), "-o", str(out), "--follow"])
    (run,) = curves.follow(args, ["train"])
    assert not parts
    assert drawn[0] is None
    assert run.done
    assert run.series["loss"].values == read_log(REFERENCE).series["loss"].values
    assert out.exists()


def test_damaged_lines_are_left_out_and_counted(tmp_path, capsys):
    good = "I1122 16:49:0{}.500000 1 solver.cpp:239] Iteration {}, loss = {}\n"
    lines = [good.format(i, i, 2.5) for i in range(4)]
    lines += [
        good.format(4, 4, "1.51.5"),
        good.format(4, 4, "0x10"),
        good.format(4, "9" * 30, 1),
        "I9999 16:49:00.5 1 solver.cpp:239] Iteration 4, loss = 7\n",  # month 99
        "I1122 16:49:04.5 1 solver.cpp:239]     Test net output #0: $\\frac = 1.2.3\n",
        "I1122 16:49:04.5 1 solver.cpp:239]     Test net output #0: $\\frac_loss = 1e300\n",
        good.format(5, 5, 1e300),
        good.format(6, 6, "-nan"),
        good.format(7, 7, "inf"),
    ]
    path = tmp_path / "train.log"
    path.write_bytes("".join(lines).encode() + b"\0\xff\xfe" * 100 + b"\n")
    run = read_log(path)
    assert run.unread == 5
    assert run.series["loss"].iterations == [0, 1, 2, 3, 5, 6, 7]
    out = [str(path), "-o", str(tmp_path / "c.svg"), "--tensorboard", str(tmp_path / "events")]
    curves.main([*out, "--names", "$x$"])
    assert "warning: $x$: 5 damaged lines were left out" in capsys.readouterr().err


def test_a_log_with_nothing_to_draw_is_refused(tmp_path):
    path = tmp_path / "train.log"
    path.write_text(PREFIX.format("1122 16:49") + "    Train net output #0: prob = 0.5\n")
    with pytest.raises(DataError, match=r"train\.log: no line of Caffe's training log"):
        curves.main([str(path), "-o", str(tmp_path / "c.png")])


def test_logs_of_other_encodings(tmp_path):
    path = tmp_path / "train.log"
    path.write_text(PREFIX.format("1122 16:49") + "Iteration 3, loss = 1.5\n", encoding="utf-16")
    assert read_log(path).series["loss"].values == [1.5]
    with pytest.raises(DataError, match="zero character"):
        read_log("a\0b")


def test_a_run_goes_on_past_new_year_into_a_leap_day():
    log = Parser("run")
    for day in ("0303", "0229"):
        log.feed([PREFIX.format(f"{day} 10:00") + f"Iteration {day}, loss = 1"])
    assert log.run.unread == 0
    assert log.run.series["loss"].seconds[0] > 0


def test_tensorboard_reads_the_event_file(tmp_path):
    curves.main([str(REFERENCE), "-o", str(tmp_path / "c.png"), "--tensorboard", str(tmp_path)])
    (file,) = (tmp_path / "reference_train").iterdir()
    data = file.read_bytes()
    # The first record: length, checksum, an event with the version. The checksum of RFC 3720's
    # example, 32 zeros, is 0x8a9136aa before it is masked.
    assert b"brain.Event:2" in data[:40]
    crc = 0x8A9136AA
    assert _masked(bytes(32)) == ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
    loader = pytest.importorskip(
        "tensorboard.backend.event_processing.event_file_loader",
        reason="tensorboard is not installed",
    )
    points = {}
    for event in loader.LegacyEventFileLoader(str(file)).Load():
        for value in event.summary.value:
            points.setdefault(value.tag, []).append((event.step, value.simple_value))
    assert points["test/accuracy"] == [(0, 0), (5, 0), (10, pytest.approx(0.166667))]


def test_names_of_runs_stay_inside_the_folder(tmp_path):
    out = ["-o", str(tmp_path / "c.png"), "--tensorboard", str(tmp_path / "in" / "events")]
    curves.main([str(REFERENCE), *out, "--names", "../../X"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.png", "in"]
    assert [path.name for path in (tmp_path / "in").iterdir()] == ["events"]
    assert [path.name for path in (tmp_path / "in/events").iterdir()] == ["%2E.%2F..%2FX"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["-o", "x.txt"], r"x\.txt: a figure is written as \.png"),
        (["-o", "no/x.png"], "the folder no does not exist"),
    ],
)
def test_bad_output_is_refused(args, message):
    with pytest.raises(DataError, match=message):
        curves.main([str(REFERENCE), *args])


def test_a_log_is_not_overwritten(tmp_path):
    log = tmp_path / "log.png"
    log.write_bytes(REFERENCE.read_bytes())
    with pytest.raises(DataError, match=r"log\.png: -o would overwrite LOG"):
        curves.main([str(log), "-o", str(log)])
    assert log.read_bytes() == REFERENCE.read_bytes()
