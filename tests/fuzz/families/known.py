"""The known hostile inputs of fuzz.corpus.hostile, one after the other."""

from __future__ import annotations

from fuzz.corpus.hostile import CASES
from fuzz.families import Draw, Target, family

NAMES = list(CASES)


@family(titles=NAMES)
def known(draw: Draw) -> Target:
    """Each known hostile input once: input N is the Nth of them."""
    return CASES[NAMES[draw.index % len(NAMES)]](draw)
