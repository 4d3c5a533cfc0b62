"""A contender of a benchmark: a process (bench/worker.py) that runs passes on request."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from bench.worker import Job

ROOT = Path(__file__).parent.parent


class Failed(SystemExit):
    """A contender cannot run its job. reason: why, in a line."""

    def __init__(self, job: Job, reason: str) -> None:
        super().__init__(f"bench: the contender failed: {job}: {reason}")
        self.reason = reason


class Contender:
    """A process that runs passes of a Job on request.

    seconds: those of passes that count. memory: the process's peak in bytes, and answer: some of
    the values that it predicts, both after end().
    """

    def __init__(self, job: Job) -> None:
        self.job, self.seconds, self.memory = job, [], 0.0
        self.answer: list[float] = []
        command = [sys.executable, "-m", "bench.worker", job.dumps()]
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=os.environ | job.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self) -> float:
        """One pass, in seconds."""
        return self._ask("")["seconds"][0]

    def run_for(self, seconds: float) -> list[float]:
        """The seconds of each pass for about so long, after a first one: it finds the caches filled
        by another contender.
        """
        return self._ask(str(seconds))["seconds"][1:]

    def turn(self) -> list[float]:
        """The seconds of one pass. For short jobs: of two passes after a first one."""
        if self.job.short:
            return [self.run() for _ in range(3)][1:]
        return [self.run()]

    def end(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        last = self._answer()
        self.memory, self.answer = last["memory"], last["answer"]
        self.process.wait()

    def stop(self) -> None:
        """End the process, whatever it does."""
        self.process.kill()
        self.process.wait()

    def _ask(self, line: str) -> dict[str, Any]:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(f"{line}\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # its last answer says why
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        try:
            answer = json.loads(line) if line else {"failed": "it ended"}
        except ValueError:  # it ended within the line, or a library printed it
            answer = {"failed": f"it answered {line.strip()[:80]!r}"}
        if "failed" in answer:
            raise Failed(self.job, answer["failed"])
        return answer
