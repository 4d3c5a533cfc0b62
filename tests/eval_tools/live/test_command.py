"""The command: it prints an address, serves there, and ends at once."""

import http.client
import re
import signal
import subprocess
import sys
from pathlib import Path

import layouts
import numpy as np
import pytest

from boundary import running
from data_tools import framing
from data_tools.cli import DataError
from data_tools.record import RecordFormat
from eval_tools.live import __main__ as command
from eval_tools.live import message
from eval_tools.live.model import DROPPED, Given, Model
from eval_tools.predictor import Predictor

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


def test_the_frames_of_a_recording(predictor, tools, fusenet, tmp_path, capsys):
    frames = [tools.draw(seed) for seed in range(5)]
    where = str(layouts.tum(tmp_path / "rec", frames))
    args = command.arguments().parse_args(
        [str(fusenet), "--sequence", where, "--start", "1", "--every", "2"]
    )
    recording = command.frames(args, True, DROPPED)
    assert "TUM RGB-D, 5 colour and 5 depth frames, 5 pairs, of which 2" in capsys.readouterr().err
    assert recording.facts()["count"] == 2
    assert np.allclose(recording.facts()["times"], [0, 2 / 30], atol=1e-3)
    with tools.serving(predictor, recording) as server:
        client = tools.Client(server)
        for place, index in enumerate((1, 3)):
            body = client.send("POST", "/frame", message.pack({"at": place}, {}))[2]
            facts, blocks = message.unpack(body)
            labels = np.frombuffer(blocks["labels"], np.uint8).reshape(24, 32)
            np.testing.assert_array_equal(labels, predictor(*frames[index], unit=5000))
            shown = np.frombuffer(blocks["depth"], np.uint16).reshape(24, 32)
            assert np.abs(shown - frames[index][1] / 5).max() <= 0.5
            assert facts["at"] == place
        status, _, body = client.send("POST", "/frame", message.pack({"at": 2}, {}))
        assert status == 400
        assert b"there is no frame 2" in body
    args.sequence = tmp_path
    with pytest.raises(DataError, match="not recognised as a recording"):
        command.frames(args, True, DROPPED)


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
    given = [str(fusenet) if text == "MODEL" else text for text in arguments]
    try:
        found = running.status("live", lambda: command.main(given), (DataError,))
    except SystemExit as end:
        found = end.code
    assert found == status
    assert said in capsys.readouterr().err


def test_what_the_options_say_of_no_reading_is_all_that_is_done(fusenet, tools):
    """The predictor behind the page does not look for such values once more."""
    bgr, depth = tools.draw()
    depth[4:8, 4:8] = 65535
    args = command.arguments().parse_args([str(fusenet), "--no-reading", "none"])
    form = RecordFormat(**framing.doctor_fields(args))
    kept = Model(command.loaded(args), form).answer(Given("a", bgr, depth))
    labels = np.frombuffer(message.unpack(kept)[1]["labels"], np.uint8).reshape(depth.shape)
    assert (labels == Predictor(fusenet, no_reading=())(bgr, depth)).all()
    assert (labels != Predictor(fusenet)(bgr, depth)).any()


def test_options_of_recordings_need_one(fusenet, capsys):
    with pytest.raises(SystemExit):
        command.main([str(fusenet), "--every", "2"])
    assert "error: --every: expected --sequence" in capsys.readouterr().err
