"""The command: it prints an address, serves there, and ends at once."""

import http.client
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


def start(*arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "eval_tools.live", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"},
    )


def test_it_serves_until_it_is_interrupted(fusenet):
    process = start(fusenet, "--port", 0)
    try:
        url = process.stdout.readline()
        port = int(re.fullmatch(r"http://127\.0\.0\.1:(\d+)/\n", url)[1])
        link = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        link.request("GET", "/")
        assert link.getresponse().status == 200  # the connection stays open
        process.send_signal(signal.SIGINT)
        out, said = process.communicate(timeout=10)
    finally:
        process.kill()
    assert (process.returncode, out) == (130, "")
    assert said == "the page is for this machine alone; Ctrl-C ends it\ninterrupted\n"


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["none.fusenet"], 1, "none.fusenet: No such file or directory"),
        (["MODEL", "extra.caffemodel"], 2, "a packed model has its own weights"),
        (["MODEL", "--port", "70000"], 2, "not a whole number of 0 to 65535"),
        (["MODEL", "--camera", "0", "--realsense"], 2, "not allowed with argument"),
        (["MODEL", "--camera", "x"], 1, "--camera x: expected a number"),
    ],
)
def test_bad_usage_and_bad_input(fusenet, arguments, status, said, capsys, monkeypatch):
    from boundary import running
    from data_tools.cli import DataError
    from eval_tools.live import __main__ as command

    given = [str(fusenet) if text == "MODEL" else text for text in arguments]
    try:
        found = running.status("live", lambda: command.main(given), (DataError,))
    except SystemExit as end:
        found = end.code
    assert found == status
    assert said in capsys.readouterr().err
