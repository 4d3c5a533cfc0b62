"""The harness sees every way to fail, names its place, and gives the same inputs for a seed."""

from __future__ import annotations

from pathlib import Path

import pytest

from caffe.proto import caffe_pb2 as pb
from fuzz import campaign, families, judge, mutate
from fuzz.corpus import hostile

TOYS = ("fuzz.toys",)
LIMITS = {"seconds": 2.0, "peak": 200 << 20}


@pytest.fixture(scope="module")
def toys(tmp_path_factory):
    """toys(family, count): the outcomes of a toy family's inputs, in order."""
    worker = campaign.Worker(tmp_path_factory.mktemp("corpus"), TOYS)

    def run(name: str, count: int) -> list[judge.Outcome]:
        task = {"family": name, "seed": 0, "indices": list(range(count)), **LIMITS}
        found = list(worker.run(task))
        assert [outcome.index for outcome in found] == list(range(count))
        return found

    yield run
    worker.close()


def kinds(outcomes: list[judge.Outcome]) -> list[str]:
    return [outcome.kind for outcome in outcomes]


def test_sound_answers_are_no_failures(toys) -> None:
    assert kinds(toys("fine", 3)) == ["fine"] * 3
    assert kinds(toys("refused", 4)) == ["one line"] * 3 + ["fine"]


def test_unclear_messages(toys) -> None:
    found = toys("unclear", 4)
    assert kinds(found) == ["message"] * 4
    assert [outcome.text.partition(":")[0] for outcome in found] == [
        "message of several lines", "message of 301 characters", "no message", "no message",
    ]  # fmt: skip


def test_tracebacks(toys) -> None:
    here, product, thread, disguised = toys("raises", 4)
    assert {here.kind, product.kind, thread.kind, disguised.kind} == {"traceback"}
    assert (here.error, thread.error, disguised.error) == (
        "ZeroDivisionError", "KeyError", "KeyError",
    )  # fmt: skip
    assert product.place.startswith("caffe/formats/prototext.py:")
    assert disguised.place == "solver.py:12"


def test_deaths_and_what_comes_behind_them(toys) -> None:
    found = toys("dies", 6)
    assert kinds(found) == ["signal"] * 3 + ["exit"] + ["fine"] * 2
    assert [outcome.error for outcome in found[:3]] == ["SIGSEGV", "SIGBUS", "SIGKILL"]


def test_hangs_in_computing_and_in_waiting(toys) -> None:
    assert kinds(toys("hangs", 3)) == ["hang", "hang", "fine"]


def test_memory_that_is_taken_refused_or_hidden(toys) -> None:
    assert kinds(toys("takes", 4)) == ["memory"] * 3 + ["fine"]


def test_those_who_may_ask_are_told_in_one_line(toys) -> None:
    taken, refused, told, fine = toys("asks", 4)
    assert (taken.kind, refused.kind, told.kind, fine.kind) == (
        "memory", "memory", "one line", "fine",
    )  # fmt: skip


def test_a_family_that_makes_no_input_is_a_failure(toys) -> None:
    found = toys("broken", 2)
    assert kinds(found) == ["broken"] * 2
    assert found[0].error == "LookupError"


def test_the_table_names_the_smallest_input_of_each_failure() -> None:
    found = campaign.Campaign()
    for index, size in enumerate((30, 10, 20)):
        outcome = judge.Outcome("toy", index, "traceback", "KeyError", "a.py:1", "x", size)
        found.add(outcome)
    found.add(judge.Outcome("toy", 3, "fine"))
    assert [outcome.index for outcome in found.failures.values()] == [1]
    assert "    3  toy: traceback KeyError at a.py:1: x" in found.table(7)
    assert "python -m tests.fuzz --family toy --seed 7 --only 1" in found.table(7)


def test_an_input_follows_from_seed_family_and_number(tmp_path: Path) -> None:
    made = []
    for run in ("one", "two"):
        tasks = [
            {"family": name, "seed": 3, "indices": [0, 1, 2], "keep": str(tmp_path / run)}
            for name in ("weights_hdf5", "lmdb_records", "state_dict")
        ]
        campaign.run(tasks, 1)
        files = sorted(path for path in (tmp_path / run).rglob("*") if path.is_file())
        made.append({path.relative_to(tmp_path / run): path.read_bytes() for path in files})
    assert len(made[0]) > 9
    assert made[0] == made[1]


def test_fixed_inputs_are_shared_out_by_the_families_shares() -> None:
    known = families.load(campaign.MODULES)
    tasks = campaign.fixed(list(known), 2000, 0)
    counts = dict.fromkeys(known, 0)
    for task in tasks:
        counts[task["family"]] += len(task["indices"])
    assert abs(sum(counts.values()) - len(hostile.CASES) - 2000) < len(known)
    assert min(counts.values()) >= 1
    assert counts["layer"] > counts["curves"]


def test_mutators_change_their_input_and_stay_within_types() -> None:
    changed = 0
    for index in range(300):
        rng = families.rng_of(0, "mutators", index)
        changed += mutate.some_bytes(rng, bytes(range(200))) != bytes(range(200))
        changed += mutate.some_text(rng, b'a: 1 b { c: "x" }\n' * 3) != b'a: 1 b { c: "x" }\n' * 3
        solver = pb.SolverParameter(base_lr=1, type="SGD")
        mutate.some_message(rng, solver)
        solver.SerializeToString()
        mutate.some_json(rng, b'{"a": [1, {"b": "x"}]}')
    assert changed > 500
