"""The known hostile inputs of fuzz.corpus.hostile, one after the other."""

from __future__ import annotations

from fuzz.corpus.hostile import CASES
from fuzz.families import Draw, Target, family

ASKING = [name for name in CASES if name.startswith("net_")]
NAMES = [name for name in CASES if name not in ASKING]


@family(titles=NAMES)
def known(draw: Draw) -> Target:
    """Each known hostile input once: input N is the Nth of them."""
    return CASES[NAMES[draw.index % len(NAMES)]](draw)


@family(titles=ASKING, asks=True)
def known_nets(draw: Draw) -> Target:
    """Each known net that asks for more memory than there is."""
    return CASES[ASKING[draw.index % len(ASKING)]](draw)
