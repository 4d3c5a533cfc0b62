"""SIGINT and SIGHUP as requests, and what a solver does with them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

import caffe
from caffe.process.signals import SignalRequests


def test_signals_wait_until_they_are_asked_for() -> None:
    requests = SignalRequests()
    with requests.installed():
        assert requests.next() == "none"
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGTERM)
        assert requests.next() == "end"
        assert requests.next() == "snapshot"  # SIGHUP is looked at before SIGINT, as in Caffe
        assert requests.next() == "stop"
        assert requests.next() == "none"


def test_one_answer_for_several_signals_of_a_kind() -> None:
    requests = SignalRequests()
    with requests.installed():
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGINT)
        assert [requests.next(), requests.next()] == ["stop", "none"]


def test_effects_can_be_chosen() -> None:
    requests = SignalRequests(sigint_effect="snapshot", sighup_effect="none")
    with requests.installed():
        os.kill(os.getpid(), signal.SIGHUP)
        assert requests.next() == "none"
        os.kill(os.getpid(), signal.SIGINT)
        assert requests.next() == "snapshot"


def test_the_exit_status_names_the_signal_that_ended_the_run() -> None:
    requests = SignalRequests(sigint_effect="end")
    assert requests.status(False) == 0
    assert requests.status(True) == 143
    with requests.installed():
        os.kill(os.getpid(), signal.SIGINT)
        assert requests.next() == "end"
    assert requests.status(True) == 130


AT_ONCE = """
import os, signal, sys, time
from caffe.process.signals import SignalRequests
requests = SignalRequests(at_once=True)
with requests.installed():
    if sys.argv[2] == "begun":
        requests.begin()
    os.kill(os.getpid(), int(sys.argv[1]))
    if sys.argv[2] == "waits":  # in a library, where Python's handlers do not run
        import ctypes
        ctypes.CDLL(None).sleep(600)
    print(requests.next())
    sys.exit(requests.status(True))
"""


@pytest.mark.parametrize(
    ("number", "when", "status", "said"),
    [
        (signal.SIGINT, "waits", 130, ""),
        (signal.SIGTERM, "waits", 143, ""),
        (signal.SIGHUP, "starts", 143, "snapshot\n"),
        (signal.SIGINT, "begun", 130, "stop\n"),
        (signal.SIGTERM, "begun", 143, "end\n"),
    ],
)
def test_before_training_begins_an_end_is_at_once(number, when, status, said) -> None:
    command = [sys.executable, "-c", AT_ONCE, str(int(number)), when]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert (ended.returncode, ended.stdout) == (status, said)
    name = signal.Signals(number).name
    assert ended.stderr == ("" if said else f"{name} before training began: nothing to save\n")


def test_handlers_are_given_back() -> None:
    def interrupted() -> None:
        with SignalRequests().installed():
            assert signal.getsignal(signal.SIGINT) != before[0]
            raise InterruptedError

    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGHUP)
    with pytest.raises(InterruptedError):
        interrupted()
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGHUP)) == before


@pytest.mark.parametrize("which", ["sigint_effect", "sighup_effect", "sigterm_effect"])
def test_an_unknown_effect(which: str) -> None:
    with pytest.raises(
        caffe.CaffeError, match=r'Invalid signal effect "quit".*stop, snapshot, end, none'
    ):
        SignalRequests(**{which: "quit"})
