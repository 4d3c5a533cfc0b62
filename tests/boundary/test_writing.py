import errno
import os
import subprocess
import sys
import threading

import pytest

from boundary import writing
from boundary.errors import InputError
from boundary.writing import atomic_folder, atomic_write, write_bytes, write_text


class Bad(InputError, RuntimeError):
    pass


def fill_and_fail(folder):
    (folder / "c").touch()
    raise ZeroDivisionError


def test_a_file_appears_when_it_is_complete(tmp_path):
    path = tmp_path / "a"
    path.write_text("old")
    path.chmod(0o640)
    with atomic_write(path, Bad) as beside:
        beside.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert path.stat().st_mode & 0o777 == 0o640
    assert os.listdir(tmp_path) == ["a"]


def test_after_an_error_nothing_is_left(tmp_path):
    path = tmp_path / "a"
    path.write_text("old")
    with pytest.raises(Bad, match="a: cannot be written: No space"), atomic_write(path, Bad):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(ZeroDivisionError), atomic_folder(tmp_path / "b", Bad) as beside:
        fill_and_fail(beside)
    assert os.listdir(tmp_path) == ["a"]
    assert path.read_text() == "old"


def test_links_and_devices_stay(tmp_path):
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "dangling").symlink_to(tmp_path / "made")
    write_text(tmp_path / "link", "new", Bad)
    write_text(tmp_path / "dangling", "new", Bad)
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == (tmp_path / "made").read_text() == "new"
    write_bytes("/dev/null", b"x", Bad)
    assert os.path.exists("/dev/null")
    assert not os.path.isfile("/dev/null")
    with pytest.raises(Bad, match=r"^/dev/full: cannot be written: No space"):
        write_bytes("/dev/full", b"x", Bad)


def test_a_file_behind_stdout_is_written_through(tmp_path):
    code = (
        "from boundary.writing import write_text; print('before', flush=True); "
        "write_text('/dev/stdout', 'between\\n', RuntimeError); print('after')"
    )
    with open(tmp_path / "out", "w") as out:
        subprocess.run([sys.executable, "-c", code], stdout=out, check=True)
    assert (tmp_path / "out").read_text() == "before\nbetween\nafter\n"


def test_a_pipe_is_written_through(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    got = []
    reader = threading.Thread(target=lambda: got.append((tmp_path / "pipe").read_bytes()))
    reader.start()
    write_bytes(tmp_path / "pipe", b"hello", Bad)
    reader.join(10)
    assert got == [b"hello"]


@pytest.mark.parametrize(
    ("name", "message"),
    [("", "is a directory"), ("no/x", "No such file"), ("a\0b", "zero"), ("x" * 300, "too long")],
)
def test_where_nothing_can_be_written(tmp_path, name, message):
    with pytest.raises(Bad, match=message):
        write_bytes(f"{tmp_path}/{name}", b"x", Bad)
    assert not os.listdir(tmp_path)


def test_names_of_250_bytes(tmp_path):
    name = "ü" * 125
    write_bytes(tmp_path / name, b"x", Bad)
    assert os.listdir(tmp_path) == [name]


def test_links_that_lead_in_circles_stay(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(Bad, match="a: Too many levels of symbolic links"):
        write_bytes(tmp_path / "a", b"x", Bad)
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]
    assert (tmp_path / "a").is_symlink()


KILLED = """
import os, sys
from boundary.writing import atomic_folder, atomic_write
folder, kind = sys.argv[1], RuntimeError
with atomic_write(folder + "/a", kind), atomic_folder(folder + "/b", kind):
    print("ready", flush=True)
    sys.stdin.read()
"""


def start(folder):
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout.readline() == b"ready\n"
    return process


def test_what_a_killed_process_left_is_cleared_and_a_living_ones_is_not(tmp_path):
    dead, living = start(tmp_path), start(tmp_path)
    dead.kill()
    dead.wait()
    assert len(os.listdir(tmp_path)) == 4
    writing.clear_stale(tmp_path)
    left = os.listdir(tmp_path)
    assert len(left) == 2
    assert all(f".{living.pid}." in name for name in left)
    living.communicate()
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]


def test_the_first_write_in_a_folder_clears_it(tmp_path):
    dead = start(tmp_path)
    dead.kill()
    dead.wait()
    (tmp_path / f".x.{dead.pid}.0.tmp").touch()  # not of this form
    write_bytes(tmp_path / "other", b"", Bad)
    assert sorted(os.listdir(tmp_path)) == sorted([f".x.{dead.pid}.0.tmp", "other"])


def test_a_folder_must_not_exist(tmp_path):
    with pytest.raises(Bad, match="exists already"), atomic_folder(tmp_path, Bad):
        pass
