"""SIGINT, SIGHUP and SIGTERM as requests to a running solver: stop, snapshot, end, or nothing."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Protocol

from boundary.streams import say
from caffe.errors import CaffeError

EFFECTS = ("stop", "snapshot", "end", "none")
ENDING = ("stop", "end")  # the requests after which training does not go on


class Requests(Protocol):
    """Where a training run asks what it is to do."""

    def next(self) -> str:
        """The request of a signal not yet answered: one of EFFECTS."""
        ...

    def waiting(self) -> bool:
        """Whether next() has something to tell. Any thread may call this."""
        ...

    def begin(self) -> None:
        """Training begins: from now on there is something to save."""
        ...


class SignalRequests:
    """Remembers signals until the solver asks for them with `next()`.

    at_once: until begin() is called, a signal that asks for an end ends the process, with status
    128 + the signal's number. It does so even while the process waits for others in a library; for
    commands, which have nothing to lose before that.
    Raises CaffeError for an effect that is not in EFFECTS.
    """

    def __init__(
        self,
        sigint_effect: str = "stop",
        sighup_effect: str = "snapshot",
        sigterm_effect: str = "end",
        at_once: bool = False,
    ) -> None:
        # SIGHUP comes before SIGINT, as in Caffe. After SIGTERM there is little time left.
        self._effects = {
            signal.SIGTERM: sigterm_effect,
            signal.SIGHUP: sighup_effect,
            signal.SIGINT: sigint_effect,
        }
        for effect in self._effects.values():
            if effect not in EFFECTS:
                raise CaffeError(
                    f'Invalid signal effect "{effect}" was specified: expected {", ".join(EFFECTS)}'
                )
        self.at_once = at_once
        self._begun = False
        self._got: dict[int, bool] = dict.fromkeys(self._effects, False)
        self._ending = signal.SIGTERM  # the signal that last asked for an end
        self._notify: Callable[[], object] = lambda: None

    def next(self) -> str:
        """The request of a signal not yet answered: 'stop', 'snapshot', 'end' or 'none'."""
        for number, effect in self._effects.items():
            if self._got[number]:
                self._got[number] = False
                if effect in ENDING:
                    self._ending = number
                return effect
        return "none"

    def waiting(self) -> bool:
        """Whether there is a signal not yet answered that asks for something."""
        return any(got and self._effects[number] != "none" for number, got in self._got.items())

    def begin(self) -> None:
        """Training begins: from now on signals wait until next() is called."""
        self._begun = True

    def tell_early_end(self) -> None:
        """Say that the signal which last asked for an end came before training had begun."""
        _tell(self._ending)

    def status(self, ended: bool) -> int:
        """A command's exit status: 128 + the signal's number if a signal ended it, else 0."""
        return 128 + self._ending if ended else 0

    @contextmanager
    def installed(self, notify: Callable[[], object] | None = None) -> Iterator[SignalRequests]:
        """Handle the signals within the block, then restore the former handlers.

        notify: called after each signal; then at_once is the caller's business. Outside the main
        thread this does nothing, because Python lets only the main thread set signal handlers.
        """
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        self._begun = False
        self._notify = notify or (lambda: None)
        watched = self._watched() if self.at_once and notify is None else None
        before = {number: signal.signal(number, self._handle) for number in self._effects}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            if watched is not None:
                signal.set_wakeup_fd(watched[0])
                os.close(watched[1])

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._got[number] = True
        self._notify()

    def _watched(self) -> tuple[int, int]:
        """Have a thread see each signal at once; the main thread may wait within a library."""
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        threading.Thread(target=self._watch, args=(reader,), daemon=True).start()
        return before, writer

    def _watch(self, reader: int) -> None:
        while numbers := os.read(reader, 64):  # until the other end is closed
            for number in numbers:
                if self._effects.get(number) in ENDING and not self._begun:
                    _tell(number)
                    os._exit(128 + number)
        os.close(reader)


def _tell(number: int) -> None:
    say(f"{signal.Signals(number).name} before training began: nothing to save")
