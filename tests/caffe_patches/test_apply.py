"""The command on a miniature tree: all or nothing, idempotent, back to the byte."""

import os
import signal

import pytest

from caffe_patches import cli, transaction
from caffe_patches.checkout import Checkout
from caffe_patches.insertions import PARTS

PROTO = "src/caffe/proto/caffe.proto"


@pytest.fixture
def command(miniature, capsys):
    """Runs the command; returns its status, its output and its lines on stderr."""

    def run(name, *arguments):
        status = cli.main([name, str(miniature.root), *arguments])
        out, err = capsys.readouterr()
        return status, out, err.splitlines()

    return run


def test_apply_then_revert_to_the_byte(miniature, command):
    pristine = miniature.snapshot()
    status, out, err = command("apply")
    assert (status, err) == (0, [])
    assert f"change {PROTO}\n" in out
    assert "add    include/caffe/layers/unpooling_layer.hpp\n" in out
    patched = miniature.snapshot()
    proto = patched[PROTO][0].decode()
    assert "optional bool shuffle = 11 [default = false];" in proto
    assert "repeated float label_weights = 5;" in proto
    assert "optional UnpoolingParameter unpooling_param = 150;" in proto
    assert patched["python/caffe/io.py"][1] & 0o777 == 0o755
    assert command("revert")[0] == 0
    assert miniature.snapshot() == pristine


def test_the_parts_alone_and_together(miniature, command):
    pristine = miniature.snapshot()
    assert command("apply")[0] == 0
    everything = miniature.snapshot()
    for part in PARTS:
        assert command("revert", "--only", part)[0] == 0
    assert miniature.snapshot() == pristine
    for part in reversed(PARTS):
        assert command("apply", "--only", part)[0] == 0
        assert part in Checkout(miniature.root).applied()
    assert miniature.snapshot() == everything
    assert command("revert", "--only", "shuffle,toolchain")[0] == 0
    assert Checkout(miniature.root).applied() == {"label-weights", "unpooling"}


def test_twice_is_once(miniature, command):
    command("apply")
    once = miniature.snapshot()
    status, out, _ = command("apply")
    assert status == 0
    assert out.endswith(" already\n")
    assert miniature.snapshot() == once
    command("revert")
    status, out, _ = command("revert")
    assert status == 0
    assert "nothing of" in out


def test_a_dry_run_changes_nothing(miniature, command):
    pristine = miniature.snapshot()
    status, out, _ = command("apply", "--dry-run")
    assert status == 0
    assert "would have applied" in out
    assert f"change {PROTO}" in out
    assert miniature.snapshot() == pristine
    command("apply")
    patched = miniature.snapshot()
    assert command("revert", "--dry-run")[0] == 0
    assert miniature.snapshot() == patched


def test_another_commit_takes_force(miniature, command):
    miniature.write("Makefile", (miniature.root / "Makefile").read_bytes() + b"another line\n")
    other = miniature.snapshot()
    status, out, err = command("apply")
    assert (status, out) == (1, "")
    assert any("Makefile: is not as in BVLC Caffe's commit 00000000" in line for line in err)
    assert miniature.snapshot() == other
    assert command("apply", "--force")[0] == 0
    assert command("apply")[0] == 0  # there already
    assert command("revert")[0] == 0
    assert miniature.snapshot() == other


def test_a_missing_anchor_is_no_matter_of_force(miniature, command):
    path = "include/caffe/util/db_lmdb.hpp"
    miniature.edit(path, "with NewTransaction in", "without it in")
    before = miniature.snapshot()
    status, _, err = command("apply", "--force")
    assert status == 1
    assert any(f"{path}: anchor 'NewTransaction' is there 0 times" in line for line in err)
    assert miniature.snapshot() == before


def test_a_doubled_anchor_is_no_matter_of_force(miniature, command):
    path = "src/caffe/solver.cpp"
    text = (miniature.root / path).read_bytes()
    miniature.write(path, text + b"Solver<Dtype>::Init(again) {\n}\n")
    before = miniature.snapshot()
    status, _, err = command("apply", "--force")
    assert status == 1
    assert any("anchor 'Solver<Dtype>::Init' is there 2 times" in line for line in err)
    assert miniature.snapshot() == before
    # Another part has no use for that anchor.
    assert command("apply", "--force", "--only", "unpooling")[0] == 0


def test_files_of_the_same_name_are_left_alone(miniature, command):
    path = "src/caffe/layers/unpooling_layer.cpp"
    miniature.write(path, b"somebody else's\n")
    before = miniature.snapshot()
    for force in ([], ["--force"]):
        status, _, err = command("apply", *force)
        assert status == 1
        assert any(f"{path}: is there already" in line for line in err)
        assert miniature.snapshot() == before
    command("apply", "--only", "shuffle")
    command("revert")
    assert miniature.snapshot() == before


def test_changed_lines_of_ours_are_not_lost_unasked(miniature, command):
    pristine = miniature.snapshot()
    command("apply")
    miniature.edit(PROTO, "shuffle = 11", "shuffle = 12")
    miniature.edit("include/caffe/util/shuffle.hpp", "namespace db {", "namespace  db {")
    changed = miniature.snapshot()
    for name in ("apply", "revert"):
        status, _, err = command(name)
        assert status == 1
        assert any(f"{PROTO}: our lines in it were changed" in line for line in err)
        assert any("include/caffe/util/shuffle.hpp" in line for line in err)
        assert miniature.snapshot() == changed
    assert command("revert", "--force")[0] == 0
    assert miniature.snapshot() == pristine


def test_lines_of_the_users_own_survive_a_revert(miniature, command):
    command("apply")
    miniature.write("Makefile", (miniature.root / "Makefile").read_bytes() + b"mine\n")
    assert command("revert")[0] == 0
    assert (miniature.root / "Makefile").read_bytes().endswith(b"mine\n")


def test_lines_of_the_users_own_may_stand_beside_ours(miniature, command):
    mark = "// end fusenet unpooling\n"
    command("apply", "--only", "unpooling")
    text = (miniature.root / PROTO).read_text()
    at = text.index(mark) + len(mark)
    miniature.write(PROTO, (text[:at] + "  mine = 151;\n" + text[at:]).encode())
    mixed = miniature.snapshot()
    assert command("apply", "--force", "--only", "unpooling")[0] == 0
    assert miniature.snapshot() == mixed
    assert command("revert")[0] == 0
    assert b"  mine = 151;\n" in (miniature.root / PROTO).read_bytes()


def test_only_the_files_that_a_part_changes_have_to_be_the_pinned_ones(miniature, command):
    miniature.write("Makefile", b"another one, without anchors\n")
    assert command("apply", "--only", "shuffle,label-weights,unpooling")[0] == 0
    assert command("apply")[0] == 1


def test_a_reader_that_leaves_early_is_no_matter(miniature):
    prelude = "read, write = os.pipe(); os.close(read); os.dup2(write, 1)"
    done = miniature.run("apply", prelude=prelude)
    assert (done.returncode, done.stderr) == (0, "")
    assert miniature.run("check").returncode == 0


def test_a_read_only_file_stops_all(miniature, command):
    (miniature.root / PROTO).chmod(0o444)
    before = miniature.snapshot()
    status, _, err = command("apply")
    assert status == 1
    assert any(f"{PROTO}: is read-only" in line for line in err)
    assert miniature.snapshot() == before


def test_a_read_only_folder_stops_all(miniature, command):
    folder = miniature.root / "src/caffe/proto"
    folder.chmod(0o555)
    before = miniature.snapshot()
    status, _, err = command("apply")
    assert status == 1
    assert any("folder is read-only" in line for line in err)
    assert miniature.snapshot() == before
    folder.chmod(0o755)


def test_a_link_is_not_written_through(miniature, command, tmp_path):
    (miniature.root / PROTO).rename(tmp_path / "elsewhere.proto")
    (miniature.root / PROTO).symlink_to(tmp_path / "elsewhere.proto")
    status, _, err = command("apply")
    assert status == 1
    assert any(f"{PROTO}: is no plain file" in line for line in err)


# The first step completes the journal, the others each put one file in its place.
@pytest.mark.parametrize("failing", [0, 1, 2, 15, 16, 17, 30])
def test_a_failure_half_way_leaves_nothing(miniature, command, monkeypatch, failing):
    pristine = miniature.snapshot()
    real, calls = os.replace, []

    def replace(source, target):
        calls.append(target)
        if len(calls) == failing + 1:
            raise OSError(28, "No space left on device", str(target))
        real(source, target)

    monkeypatch.setattr(transaction.os, "replace", replace)
    status, _, err = command("apply")
    assert status == 1
    assert "No space left on device; nothing was changed" in err[0]
    assert miniature.snapshot() == pristine


@pytest.mark.parametrize("step", [1, 2, 9, 25])
@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM", "SIGINT"])
def test_killed_half_way(miniature, command, step, name):
    pristine = miniature.snapshot()
    prelude = f"""
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in background jobs
real, calls = os.replace, []
def replace(source, target):
    calls.append(target)
    if len(calls) == {step}:
        os.kill(os.getpid(), signal.{name})
    real(source, target)
os.replace = replace
"""
    done = miniature.run("apply", prelude=prelude)
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    if name != "SIGKILL":
        assert miniature.snapshot() == pristine
        return
    if step > 1:  # the journal was complete
        status, _, err = command("status")
        assert status == 1
        assert "cut short" in err[0]
    assert command("revert")[0] == 0
    assert miniature.snapshot() == pristine


# Of a file of ours, and of the folder that had nothing else in it.
@pytest.mark.parametrize(("removal", "step"), [("unlink", 1), ("unlink", 12), ("rmdir", 1)])
def test_a_revert_killed_half_way(miniature, command, removal, step):
    command("apply")
    patched = miniature.snapshot()
    prelude = f"""
from pathlib import Path
real, calls = Path.{removal}, []
def remove(path, *arguments, **options):
    real(path, *arguments, **options)
    calls.append(path)
    if len(calls) == {step}:
        os.kill(os.getpid(), signal.SIGKILL)
Path.{removal} = remove
"""
    assert miniature.run("revert", prelude=prelude).returncode == -signal.SIGKILL
    assert miniature.snapshot() != patched
    status, out, err = command("apply")
    assert (status, len(err)) == (0, 1)
    assert "undid a change that was cut short" in err[0]
    assert out.endswith(" already\n")
    assert miniature.snapshot() == patched


def test_apply_goes_on_after_a_kill(miniature, command):
    command("apply")
    patched = miniature.snapshot()
    command("revert")
    prelude = """
real, calls = os.replace, []
def replace(source, target):
    calls.append(target)
    if len(calls) == 20:
        os.kill(os.getpid(), signal.SIGKILL)
    real(source, target)
os.replace = replace
"""
    miniature.run("apply", prelude=prelude)
    status, _, err = command("apply")
    assert status == 0
    assert "undid a change that was cut short" in err[0]
    assert miniature.snapshot() == patched


def test_one_at_a_time(miniature, command):
    with transaction.exclusive(miniature.root):
        status, _, err = command("apply")
    assert status == 1
    assert "another caffe_patches is at work here" in err[0]


def test_status_and_check(miniature, command):
    assert command("check")[0] == 0
    status, out, _ = command("status")
    assert status == 0
    assert [line.split()[1:] for line in out.splitlines()[1:]] == [["not", "applied"]] * 4
    command("apply", "--only", "shuffle,unpooling")
    status, out, _ = command("check")
    assert status == 0
    assert "shuffle, unpooling applied and whole" in out
    (miniature.root / "include/caffe/util/shuffle.hpp").unlink()
    status, out, _ = command("status")
    assert status == 0
    assert "shuffle        applied in part; not as it should be: include/caffe/util/sh" in out
    status, _, err = command("check")
    assert status == 1
    assert err == [
        "python -m caffe_patches: include/caffe/util/shuffle.hpp: lacks its share of shuffle"
    ]
    assert command("apply", "--only", "shuffle")[0] == 0  # puts it back
    assert command("check")[0] == 0


def test_no_checkout(tmp_path, capsys):
    for name in ("apply", "status", "check", "revert"):
        assert cli.main([name, str(tmp_path)]) == 1
        assert "no checkout of BVLC Caffe" in capsys.readouterr().err
        assert cli.main([name, str(tmp_path / "nowhere")]) == 1
        assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("arguments", [[], ["apply"], ["apply", ".", "--only", "shufle"]])
def test_bad_usage(arguments, capsys):
    with pytest.raises(SystemExit) as exit_:
        cli.main(arguments)
    assert exit_.value.code == 2


def test_gits_index_is_left_alone(miniature, command):
    # Nothing but the files named is touched: what lies in .git stays to the byte.
    miniature.write(".git/index", b"an index")
    before = (miniature.root / ".git/index").stat()
    command("apply")
    command("revert")
    after = (miniature.root / ".git/index").stat()
    assert (before.st_mtime_ns, before.st_ino) == (after.st_mtime_ns, after.st_ino)
