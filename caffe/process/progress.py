"""Lines for people who watch a run: those that stay, and one of progress, redrawn in place."""

from __future__ import annotations

from caffe.process import log, ranks

_PLACE = "progress.py:1"  # for log lines that have no counterpart in Caffe


def tell(text: str, place: str = _PLACE) -> None:
    """Say one line that also a brief log shows (there without glog's prefix); on rank 0 alone.

    place: stands in the prefix, as for emit(). Where the log is not brief, this is an INFO line.
    """
    if ranks.root_solver():
        log.show(place, text)
