"""SIGINT and SIGHUP as requests, and what a solver does with them."""

from __future__ import annotations

import os
import signal

import pytest

import caffe
from caffe.process.signals import SignalRequests


def test_signals_wait_until_they_are_asked_for() -> None:
    requests = SignalRequests()
    with requests.installed():
        assert requests.next() == "none"
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGHUP)
        assert requests.next() == "snapshot"  # SIGHUP is looked at first, as in Caffe
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


def test_handlers_are_given_back() -> None:
    def interrupted() -> None:
        with SignalRequests().installed():
            assert signal.getsignal(signal.SIGINT) != before[0]
            raise InterruptedError

    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGHUP)
    with pytest.raises(InterruptedError):
        interrupted()
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGHUP)) == before


@pytest.mark.parametrize("which", ["sigint_effect", "sighup_effect"])
def test_an_unknown_effect(which: str) -> None:
    with pytest.raises(
        caffe.CaffeError, match=r'Invalid signal effect "quit".*stop, snapshot, none'
    ):
        SignalRequests(**{which: "quit"})
