"""SIGINT and SIGHUP as requests to a running solver: stop, snapshot, or nothing."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from caffe.errors import CaffeError

EFFECTS = ("stop", "snapshot", "none")


class SignalRequests:
    """Remembers signals until the solver asks for them with `next()`.

    Raises CaffeError for an effect that is not in EFFECTS.
    """

    def __init__(self, sigint_effect: str = "stop", sighup_effect: str = "snapshot") -> None:
        for effect in (sigint_effect, sighup_effect):
            if effect not in EFFECTS:
                raise CaffeError(
                    f'Invalid signal effect "{effect}" was specified: expected {", ".join(EFFECTS)}'
                )
        # SIGHUP comes first, as in Caffe.
        self._effects = {signal.SIGHUP: sighup_effect, signal.SIGINT: sigint_effect}
        self._got: dict[int, bool] = dict.fromkeys(self._effects, False)
        self._notify: Callable[[], object] = lambda: None

    def next(self) -> str:
        """The request of a signal not yet answered: 'stop', 'snapshot' or 'none'."""
        for number, effect in self._effects.items():
            if self._got[number]:
                self._got[number] = False
                return effect
        return "none"

    @contextmanager
    def installed(self, notify: Callable[[], object] = lambda: None) -> Iterator[SignalRequests]:
        """Handle the signals within the block, then restore the former handlers.

        notify: called after each signal. Outside the main thread this does nothing, because Python
        lets only the main thread set signal handlers.
        """
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        self._notify = notify
        before = {number: signal.signal(number, self._handle) for number in self._effects}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._got[number] = True
        self._notify()
