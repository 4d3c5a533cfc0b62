"""Commands in stages: a run that was killed goes on, and what other options made is not mixed in.

A stage is a folder, and the commands that fill it. Its stage.json holds these commands and what the
files of the user that they read look like. Where it says something else than is wanted now, the
stage is refused unless it may be made anew; nothing of it is used then.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest
from pathlib import Path
from types import FrameType
from typing import Any

from boundary.streams import say
from boundary.writing import atomic_write, write_bytes, write_text
from data_tools.cli import DataError

RECORD = "stage.json"
KEYS = {"commands", "after", "inputs", "done"}
SET_PARENT_DEATH_SIGNAL = 1  # of Linux's prctl
_LIBC = ctypes.CDLL(None)  # loaded here, because a new process may not load it


@dataclass(frozen=True)
class Step:
    """A command of a stage, run in the work's folder.

    command: what comes after `python -m`. makes: the file or folder that is there, whole, once the
    command has ended well, so that it need not be run again; without it, it is run until its stage
    is through. out: whether its stdout becomes that file. extra: words that the result does not
    depend on, such as those that name a GPU.
    """

    command: tuple[str, ...]
    makes: str = ""
    out: bool = False
    extra: tuple[str, ...] = ()

    def shown(self) -> str:
        """The command as one types it into a shell."""
        words = shlex.join(["python", "-m", *self.command, *self.extra])
        return words + (f" > {shlex.quote(self.makes)}" if self.out else "")


@dataclass(frozen=True)
class Lines:
    """A step that writes a file of lines. what: what they are."""

    makes: str
    lines: tuple[str, ...]
    what: str

    @property
    def command(self) -> tuple[str, ...]:
        """What the stage's record holds of it."""
        return ("lines", self.makes, *self.lines)

    def shown(self) -> str:
        """A comment that says what is written."""
        return f"# {self.makes}: {self.what}"

    def do(self, root: Path) -> None:
        """Writes the file."""
        text = "".join(f"{line}\n" for line in self.lines)
        write_text(root / self.makes, text, DataError)


@dataclass(frozen=True)
class Folder:
    """A step that makes a folder."""

    makes: str

    @property
    def command(self) -> tuple[str, ...]:
        """The shell's command."""
        return ("mkdir", self.makes)

    def shown(self) -> str:
        """The same as text."""
        return shlex.join(self.command)

    def do(self, root: Path) -> None:
        """Makes the folder."""
        (root / self.makes).mkdir()


@dataclass(frozen=True)
class Joined:
    """A step that writes log files into one, in the order of the dates that end their names."""

    pattern: str
    into: str
    makes = ""  # it is done until its stage is through: there may be more files

    @property
    def command(self) -> tuple[str, ...]:
        """The shell's command."""
        return ("cat", self.pattern, ">", self.into)

    def shown(self) -> str:
        """The same as text."""
        return " ".join(self.command)

    def do(self, root: Path) -> None:
        """Writes the file."""
        parts = sorted(root.glob(self.pattern), key=lambda path: path.name.split(".")[-2:])
        write_bytes(root / self.into, b"".join(map(Path.read_bytes, parts)), DataError)


AnyStep = Step | Lines | Folder | Joined


class Work:
    """A folder of stages, used as a context. One process at a time works in it.

    mark: the name of the file that says whose folder it is. force: make stages anew that were made
    by other commands. dry: only print the commands.

    Raises DataError for a folder that holds other things, or in which another process works.
    """

    def __init__(self, folder: Path, mark: str, force: bool = False, dry: bool = False):
        self.folder, self.force, self.dry = folder, force, dry
        self._mark = folder / mark
        self._process: subprocess.Popen[bytes] | None = None
        self._signal = 0
        self._files = ExitStack()

    def __enter__(self) -> Work:
        print(f"$ cd {shlex.quote(str(self.folder))}", flush=True)
        if self.dry:
            return self
        if self.folder.exists() and not self.folder.is_dir():
            raise DataError(f"{self.folder}: is no folder")
        if not self._mark.exists() and self.folder.exists() and any(self.folder.iterdir()):
            raise DataError(f"{self.folder}: holds other things; expected a new or empty folder")
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = self._files.enter_context(open(self._mark, "a+", encoding="utf-8"))
        self._acquire()
        for number in (signal.SIGINT, signal.SIGTERM):
            self._files.callback(signal.signal, number, signal.signal(number, self._pass_on))
        return self

    def __exit__(self, *_: object) -> None:
        self._files.close()

    def _acquire(self) -> None:
        """Locks the folder. A command that a killed run has left may take a moment to end."""
        self._lock.seek(0)
        last = self._lock.read().strip()
        told = False
        while True:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if last.isdecimal() and Path("/proc", last).exists():
                    raise DataError(
                        f"{self.folder}: process {last} works in it; expected to be alone"
                    ) from None
            if not told:
                print(f"waiting for the last command of process {last}, which was killed",
                      flush=True)  # fmt: skip
                told = True
            time.sleep(0.1)
        self._lock.truncate(0)
        self._lock.write(f"{os.getpid()}\n")
        self._lock.flush()

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        """Ctrl-C and SIGTERM go to the command, which may have something to save."""
        self._signal = number
        if self._process is None:
            sys.exit(128 + number)
        self._process.send_signal(number)

    def stage(
        self,
        name: str,
        steps: Sequence[AnyStep],
        inputs: Sequence[Path] = (),
        after: Sequence[str] = (),
        kept: Callable[[Path], bool] | None = None,
    ) -> None:
        """Makes a stage, or what is missing of it.

        inputs: files and folders of the user's. after: the stages that this one reads. kept:
        whether its folder, begun by other commands, holds what must not be lost; by default, it
        does if the stage is through.

        Raises DataError for a stage that other commands made, and for a command that fails.
        """
        folder = self.folder / name
        if self.dry:
            for step in steps:
                print(f"$ {step.shown()}")
            return
        old = self._read(folder)
        new = {"commands": [list(step.command) for step in steps], "after": list(after),
               "inputs": {str(path): self._facts(path, old) for path in inputs}}  # fmt: skip
        if old and (what := difference(old, new)):
            worth = kept(folder) if kept else old["done"]
            if worth and not self.force:
                raise DataError(
                    f"{folder}: was made otherwise: {what}; another folder keeps both, --force "
                    "makes it and what depends on it anew"
                )
            print(f"{name}: made anew: {what}", flush=True)
            old = None
        if not old:
            self._begin(folder, name, new)
        elif old["done"]:
            print(f"{name}: is there", flush=True)
            return
        for step in steps:
            self._do(step)
        self._write(folder, {**new, "done": True})

    def _begin(self, folder: Path, name: str, record: dict[str, Any]) -> None:
        """Empties a stage's folder. The stages that read it count as not begun from now on."""
        outdated = {name}
        records = {path.parent.name: self._read(path.parent)
                   for path in self.folder.glob(f"*/{RECORD}")}  # fmt: skip
        for _ in records:
            outdated |= {n for n, old in records.items() if outdated & set((old or {})["after"])}
        for one in outdated:
            (self.folder / one / RECORD).unlink(missing_ok=True)
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir()
        self._write(folder, {**record, "done": False})

    def _do(self, step: AnyStep) -> None:
        if step.makes and (self.folder / step.makes).exists():
            return
        print(f"$ {step.shown()}", flush=True)
        if not isinstance(step, Step):
            step.do(self.folder)
            return
        with ExitStack() as stack:
            out = None
            if step.out:
                beside = stack.enter_context(atomic_write(self.folder / step.makes, DataError))
                out = stack.enter_context(open(beside, "wb"))
            status = self._run([*step.command, *step.extra], out)
            if status:
                how = f"ended with status {status}" if status > 0 else f"died of signal {-status}"
                raise DataError(f"this command {how}: {step.shown()}")

    def _run(self, words: list[str], out: Any) -> int:
        """Runs `python -m WORDS` with this interpreter; its exit status.

        The command ends if this process is killed: what it then saves is gone on with. It holds the
        folder's lock until it has ended.
        """
        root = str(Path(__file__).resolve().parents[1])
        path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
        self._process = subprocess.Popen(
            [sys.executable, "-m", *words],
            cwd=self.folder,
            env={**_without_glog(os.environ), "PYTHONPATH": path},
            stdout=out,
            pass_fds=(self._lock.fileno(),),
            preexec_fn=partial(_end_with_parent, os.getpid()),
        )
        if self._signal:  # it came before there was a process to send it to
            self._process.send_signal(self._signal)
        status = self._process.wait()
        self._process = None
        if self._signal:
            say("stopped; the same command goes on")
            sys.exit(128 + self._signal)
        return status

    def _read(self, folder: Path) -> dict[str, Any] | None:
        """A stage's record; None if it has none."""
        try:
            found = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except ValueError:
            found = None
        if not isinstance(found, dict) or not set(found) >= KEYS:
            raise DataError(f"{folder / RECORD}: is damaged; expected {', '.join(sorted(KEYS))}")
        return found

    def _write(self, folder: Path, record: dict[str, Any]) -> None:
        write_text(folder / RECORD, json.dumps(record, indent=1) + "\n", DataError)

    def _facts(self, path: Path, old: dict[str, Any] | None) -> list[int]:
        """Number of files, bytes, and latest change of a file or folder.

        A stage that is through needs its files no more, so they may be gone. Else raises DataError.
        """
        known = (old or {}).get("inputs", {}).get(str(path))
        if known and old["done"] and not path.exists():
            return known
        return facts(path)


def facts(path: Path) -> list[int]:
    """Number of files, bytes, and latest change of a file or folder. Raises DataError."""
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    files = [f for f in path.rglob("*") if f.is_file()] if path.is_dir() else [path]
    found = [file.stat() for file in files]
    changed = max((int(one.st_mtime) for one in found), default=0)
    return [len(found), sum(one.st_size for one in found), changed]


def difference(old: dict[str, Any], new: dict[str, Any]) -> str:
    """What distinguishes two records of a stage, in words; an empty text for nothing."""
    for was, now in zip_longest(old["commands"], new["commands"], fillvalue=()):
        if list(was) == list(now):
            continue
        before, after = _options(was), _options(now)
        for option in {**before, **after}:
            if before.get(option) != after.get(option):
                return f"with {_said(option, before)}, now with {_said(option, after)}"
        return "by its commands in another order"
    for path, what in new["inputs"].items():
        if old["inputs"].get(path) != what:
            return f"{path} has changed since"
    return ""


def _options(words: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """A command's options with their values; what comes before them under an empty name."""
    found: dict[str, tuple[str, ...]] = {"": ()}
    last = ""
    for word in words:
        if word.startswith("-"):
            last = word
            found.setdefault(last, ())
        else:
            found[last] += (word,)
    return found


def _said(option: str, options: dict[str, tuple[str, ...]]) -> str:
    if option not in options:
        return f"no {option}"
    words = [option, *options[option]] if option else [*options[option]]
    return shlex.join(words[:8]) + (" ..." if len(words) > 8 else "") or "nothing"


def _without_glog(variables: Mapping[str, str]) -> dict[str, str]:
    """Without glog's variables, which would keep from the log what later commands read there."""
    return {name: value for name, value in variables.items() if not name.startswith("GLOG_")}


def _end_with_parent(parent: int) -> None:
    _LIBC.prctl(SET_PARENT_DEATH_SIGNAL, signal.SIGTERM)
    if os.getppid() != parent:  # it had ended before
        os._exit(1)
