"""The table of architectures: its columns, its figures, and what is told of engines that fail."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bench import zoo
from bench.contender import Failed
from bench.worker import Job
from bench.zoo import ALONE, AUTO, PLAN, Engine, Row

ORT, OPENVINO, OPENCV = Engine("onnxruntime"), Engine("OpenVINO"), Engine("OpenCV")

TABLES = """\
ms a pass: median (least)

idle
                    batch         plan         auto  onnxruntime  OpenVINO bf16     OpenCV  x best  auto x best
P-Net                   1  3.00 (2.00)  1.00 (1.00)  2.00 (2.00)  0.100 (0.100)  123 (123)    1.50         0.50
SF5, training step      4  1000 (1000)            -            -              -          -       -            -

beside 3 busy processes
                    batch         plan  plan, 1 thread  auto    onnxruntime  OpenVINO bf16         OpenCV  x best  auto x best  x idle  x 1 thread
P-Net                   1  6.00 (6.00)     12.0 (12.0)     -  0.500 (0.500)              -  12000 (12000)   12.00            -    2.00        0.50
SF5, training step      4  2500 (2500)               -     -              -              -              -       -            -    2.50           -

what was wrong"""  # noqa: E501


class Fake:
    """OpenCV reads nothing, OpenVINO ends after its first pass, onnxruntime is wrong by a tenth."""

    made: list[Fake]
    loads = 0

    def __init__(self, job: Job) -> None:
        self.job, self.answer, self.stopped, self.asked = job, [], False, 0
        self.made.append(self)

    def run(self) -> float:
        if self.job.who == "OpenCV":
            raise Failed(self.job, "no such operator")
        return 1.0

    def run_for(self, seconds: float) -> list[float]:
        assert seconds == zoo.TURN
        if self.job.who == "OpenVINO":
            raise Failed(self.job, "it ended")
        self.asked += 1
        return [(2.0 if self.job.threads else 1.0) * (3 if Fake.loads else 1)]

    def end(self) -> None:
        self.answer = [1.0, 2.2 if self.job.who == "onnxruntime" else 2.0]

    def stop(self) -> None:
        self.stopped = True


@contextmanager
def _busy(count: int) -> Iterator[None]:
    Fake.loads = count
    yield
    Fake.loads = 0


@pytest.fixture(autouse=True)
def _fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    Fake.made = []
    monkeypatch.setattr(zoo, "Contender", Fake)
    monkeypatch.setattr(zoo.machine, "busy", _busy)


def test_the_columns() -> None:
    assert zoo.engines(False, [], False) == [PLAN, AUTO, ORT, OPENVINO, OPENCV]
    titles = [engine.title for engine in zoo.engines(True, [0, 9], True)]
    assert titles == [
        "plan", "plan bf16", "plan, 1 thread", "plan, 0 spins", "plan, 9 spins", "auto",
        "onnxruntime", "OpenVINO", "OpenVINO bf16", "OpenCV",
    ]  # fmt: skip


def test_engines_take_turns_idle_and_beside_others() -> None:
    row = zoo.measure("P-Net", [PLAN, ALONE, ORT], 2, 3)
    assert row.idle == {PLAN: [1, 1], ALONE: [2, 2], ORT: [1, 1]}
    assert row.loaded == {PLAN: [3, 3], ALONE: [6, 6], ORT: [3, 3]}
    assert Fake.loads == 0
    assert all(each.stopped and each.asked == 4 for each in Fake.made)
    assert {(each.job.net, each.job.batch, each.job.size) for each in Fake.made} == {
        ("P-Net", 1, (12, 12))
    }


def test_what_goes_wrong_is_told_and_the_others_go_on() -> None:
    row = zoo.measure("P-Net", [PLAN, ORT, OPENVINO, OPENCV], 1, 0)
    assert row.idle == {PLAN: [1], ORT: [1]}
    assert row.notes == [
        "P-Net: OpenCV: no such operator",
        "P-Net: OpenVINO: it ended",
        "P-Net: onnxruntime differs from the plan by 0.1 of the scale",
    ]
    assert all(each.stopped for each in Fake.made)


def test_an_engine_that_dies_at_the_end_keeps_its_passes(monkeypatch) -> None:
    def end(self: Fake) -> None:
        if self.job.who == "onnxruntime":
            raise Failed(self.job, "it ended")
        self.answer = [0.0, 0.0] if self.job.who == "plan" else [0.0, 0.5]

    monkeypatch.setattr(Fake, "end", end)
    row = zoo.measure("P-Net", [PLAN, ORT, AUTO], 1, 0)
    assert row.idle == {PLAN: [1], ORT: [1], AUTO: [1]}
    assert row.notes == [
        "P-Net: onnxruntime: it ended",
        "P-Net: auto differs from the plan by 0.5",
    ]
    assert all(each.stopped for each in Fake.made)


def test_a_net_that_nobody_runs_is_a_row(monkeypatch, capsys) -> None:
    def fail(self: Fake) -> float:
        raise Failed(self.job, "killed")

    monkeypatch.setattr(Fake, "run", fail)
    (row,) = zoo.main(["--only", "P-Net"])
    assert (row.idle, len(row.notes)) == ({}, len(Fake.made))
    out, err = capsys.readouterr()
    assert "P-Net: no engine runs it\nP-Net: plan: killed\n" in err
    assert "\n\nP-Net: plan: killed\n" in out


def test_few_passes_in_a_turn_make_more_turns() -> None:
    row = zoo.measure("P-Net", [PLAN, ORT], 2, 3, passes=7)
    assert {len(passes) for found in (row.idle, row.loaded) for passes in found.values()} == {7}
    row = zoo.measure("P-Net", [PLAN, OPENVINO], 9, 0, passes=7)
    assert {engine: len(passes) for engine, passes in row.idle.items()} == {PLAN: 9}


def test_a_training_step_is_this_engines_own() -> None:
    row = zoo.measure(zoo.STEP, [PLAN, ALONE, ORT], 1, 0)
    assert list(row.idle) == [PLAN, ALONE]
    assert {each.job.task for each in Fake.made} == {"train"}


def test_the_tables() -> None:
    """The plan and auto to the best other engine in fp32; the plan to idle, and to one thread."""
    half = Engine("OpenVINO", "bf16")
    seconds = {
        PLAN: [0.004, 0.002, 0.003],
        ORT: [0.002],
        half: [0.0001],
        OPENCV: [0.1234],
        AUTO: [0.001],
    }
    loaded = {PLAN: [0.006], ALONE: [0.012], ORT: [0.0005], OPENCV: [12.0]}
    columns = [PLAN, ALONE, AUTO, ORT, half, OPENCV]
    rows = [Row("P-Net", 1, seconds, loaded), Row(zoo.STEP, 4, {PLAN: [1.0]}, {PLAN: [2.5]})]
    rows[1].notes.append("what was wrong")
    assert zoo.report(rows, columns, 3) == TABLES


def test_a_row_in_one_line() -> None:
    seconds = {PLAN: [0.004, 0.002, 0.003], ORT: [0.002]}
    row = Row("P-Net", 1, seconds, {PLAN: [0.006], ALONE: [0.012]})
    assert zoo.told(row) == (
        "P-Net: idle: plan 3.00, onnxruntime 2.00, x best 1.50; "
        "loaded: plan 6.00, plan, 1 thread 12.0, x idle 2.00, x 1 thread 0.50"
    )


def test_an_interrupted_run_keeps_its_rows(tmp_path: Path, monkeypatch, capsys) -> None:
    out, figures = tmp_path / "zoo.txt", tmp_path / "zoo.json"
    seen: list[tuple[str, list[dict]]] = []
    measure = zoo.measure

    def interrupted(name: str, *rest) -> Row:
        if out.exists():
            seen.append((out.read_text(), json.loads(figures.read_text())))
        if len(seen) == 2:
            raise KeyboardInterrupt
        return measure(name, *rest)

    monkeypatch.setattr(zoo, "measure", interrupted)
    wanted = ["P-Net", "AlexNet", "VGG-16"]
    with pytest.raises(KeyboardInterrupt):
        zoo.main(["--only", *wanted, "--out", str(out), "--json", str(figures)])
    for count, (text, found) in enumerate(seen, 1):
        assert text.splitlines()[1] == f"INCOMPLETE: without {'; '.join(wanted[count:])}"
        assert [name for name in wanted if f"\n{name} " in text] == wanted[:count]
        assert found[-1] == {"incomplete": wanted[count:]}
        assert list(dict.fromkeys(each["net"] for each in found[:-1])) == wanted[:count]
    assert out.read_text() == seen[-1][0]
    assert "AlexNet: idle: plan 1000, " in capsys.readouterr().err

    monkeypatch.setattr(zoo, "measure", measure)
    zoo.main(["--only", *wanted, "--out", str(out), "--json", str(figures)])
    assert out.read_text() == capsys.readouterr().out
    assert "INCOMPLETE" not in out.read_text()
    assert all("net" in each for each in json.loads(figures.read_text()))


def test_a_file_that_cannot_be_written_is_told_in_a_line(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=rf"^bench.zoo: {tmp_path}: is a directory"):
        zoo.main(["--only", "P-Net", "--out", str(tmp_path)])


def test_a_run_of_all_nets_is_kept(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(zoo, "RESULTS", tmp_path / "zoo.txt")
    rows = zoo.main(["--rounds", "1", "--only", "P-Net", "--json", str(tmp_path / "f.json")])
    assert [row.name for row in rows] == ["P-Net"]
    assert not zoo.RESULTS.exists()
    figures = json.loads((tmp_path / "f.json").read_text())
    assert {(f["net"], f["engine"], f["state"], f["median"]) for f in figures} >= {
        ("P-Net", "plan", "idle", 1.0), ("P-Net", "onnxruntime", "idle", 1.0)
    }  # fmt: skip
    capsys.readouterr()
    rows = zoo.main(["--rounds", "1"])
    assert [row.name for row in rows] == zoo.names()
    text = zoo.RESULTS.read_text()
    assert text == capsys.readouterr().out
    assert text.startswith(f"python -m bench.zoo, {zoo.machine.about()}\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "LeNet"], "there is no net 'LeNet'; expected one of P-Net; AlexNet;"),
        (["--load", "-1"], "--load is -1, expected at least 0"),
        (["--rounds", "0"], "--rounds is 0, expected at least 1"),
        (["--passes", "0"], "--passes is 0, expected at least 1"),
        (["--out", "none/zoo.txt"], "none/zoo.txt: its folder does not exist"),
        (["--json", "none/zoo.json"], "none/zoo.json: its folder does not exist"),
    ],
)
def test_bad_usage(arguments: list[str], message: str, capsys) -> None:
    with pytest.raises(SystemExit) as stop:
        zoo.main(arguments)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
