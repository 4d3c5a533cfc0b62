"""Families whose inputs fail in every way that there is, for the tests of the harness."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

from caffe.errors import CaffeError
from fuzz.families import Draw, Target, family


@family()
def fine(draw: Draw) -> Target:
    """Returns."""
    draw.write("input", draw.rng.randbytes(10))
    return lambda: print("done")


@family()
def refused(draw: Draw) -> Target:
    """Raises a clear error; says one and ends with 1, as a command; ends with 2."""

    def say() -> None:
        print("toy: no such thing", file=sys.stderr)
        sys.exit(1)

    return (_raise(CaffeError("x: not a thing")), say, lambda: sys.exit("toy: x"),
            lambda: sys.exit(2))[draw.index]  # fmt: skip


@family()
def unclear(draw: Draw) -> Target:
    """Errors of two lines, of too many characters, of no words, and an exit without any."""
    return (_raise(_Unclear("a\nb")), _raise(_Unclear("x" * 301)), _raise(_Unclear("")),
            lambda: sys.exit(1))[draw.index]  # fmt: skip


class _Unclear(CaffeError):
    """CaffeError itself makes its message one short line."""

    def __init__(self, said: str) -> None:
        super().__init__("")
        self.said = said

    def __str__(self) -> str:
        return self.said


@family()
def raises(draw: Draw) -> Target:
    """Raises here, in the product's code, in a thread; and in the disguise of one line."""

    def in_thread() -> None:
        thread = threading.Thread(target=_raise(KeyError("x")))
        thread.start()
        thread.join()

    def in_product() -> None:
        from caffe.formats.prototext import parse

        parse(None, None, "x")

    def disguised() -> None:
        print("caffe: KeyError: 'x' (solver.py:12)", file=sys.stderr)
        sys.exit(1)

    return (_raise(ZeroDivisionError("x")), in_product, in_thread, disguised)[draw.index]


@family()
def dies(draw: Draw) -> Target:
    """Ends the process: by a signal, and by an exit that nobody sees."""
    number = (signal.SIGSEGV, signal.SIGBUS, signal.SIGKILL)
    if draw.index == 3:
        return lambda: os._exit(0)
    if draw.index > 3:
        return lambda: None
    return lambda: os.kill(os.getpid(), number[draw.index])


@family()
def hangs(draw: Draw) -> Target:
    """Computes without end; sleeps; returns."""

    def compute() -> None:
        while True:
            pass

    return (compute, lambda: time.sleep(1000), lambda: None)[draw.index]


@family()
def takes(draw: Draw) -> Target:
    """Takes memory and returns; asks for more than there is; hides that in a clear error."""
    size = 300 << 20

    def hidden() -> None:
        try:
            bytearray(1 << 40)
        except MemoryError:
            raise CaffeError("x: no picture") from None

    return (lambda: bytes(bytearray(b"1") * size)[:1], lambda: bytearray(1 << 40), hidden,
            lambda: None)[draw.index]  # fmt: skip


@family()
def broken(draw: Draw) -> Target:
    """Fails to make its input."""
    return draw.seeds("nothing")


@family(asks=True)
def asks(draw: Draw) -> Target:
    """As `takes`, by nets, which may ask."""
    return takes(draw)


def _raise(error: Exception) -> Target:
    def run() -> None:
        raise error

    return run
