"""What the words in the name of a file or folder tell: colour, depth, or something else."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

# What words of a colour picture begin with; the groups that come first tell more.
COLOR = (("color", "colour", "rgb"), ("image", "img", "frame", "photo"), ("left", "wide", "cam"))
UNTOLD = len(COLOR)  # the rank of a name without such a word
DEPTH = ("depth",)
# Pictures that cameras' programs write beside colour and depth, and views of depth for people.
OTHER = ("conf", "mask", "label", "seman", "segm", "instance", "infra", "right", "normal", "thumb",
         "preview", "overlay", "colori", "colouri", "colormap", "disp", "pose")  # fmt: skip
OTHER_WORDS = {"ir", "vis", "viz", "seg", "uv", "amplitude"}


def words(name: str) -> tuple[str, ...]:
    """The words of a name, in small letters: runs of letters."""
    return tuple(re.findall("[a-z]+", name.lower()))


def is_other(name: str) -> bool:
    """Whether a name is that of neither colour nor depth."""
    return _is_other(words(name))


def is_infrared(name: str) -> bool:
    """Whether a name is that of infrared pictures."""
    found = words(name)
    return _begins(found, ("infra",)) or "ir" in found


def is_depth(name: str) -> bool:
    """Whether a name is that of depth."""
    found = words(name)
    return _begins(found, DEPTH) and not _is_other(found)


def color_rank(name: str) -> int | None:
    """How clearly a name is that of colour: 0 is clearest, UNTOLD says nothing; None: it is not."""
    return _color_rank(words(name))


@lru_cache(maxsize=1024)  # the names of a recording have few words
def _is_other(found: tuple[str, ...]) -> bool:
    return _begins(found, OTHER) or bool(OTHER_WORDS & set(found))


@lru_cache(maxsize=1024)
def _color_rank(found: tuple[str, ...]) -> int | None:
    if _is_other(found) or _begins(found, DEPTH):
        return None
    return next((rank for rank, group in enumerate(COLOR) if _begins(found, group)), UNTOLD)


def clearest(names: Iterable[str], untold: bool) -> list[str]:
    """The names of the first rank that occurs. untold: whether names that say nothing count."""
    ranks = {name: color_rank(name) for name in names}
    known = [rank for rank in ranks.values() if rank is not None and (untold or rank < UNTOLD)]
    return [name for name, rank in ranks.items() if known and rank == min(known)]


def _begins(found: tuple[str, ...], with_one_of: tuple[str, ...]) -> bool:
    return any(word.startswith(with_one_of) for word in found)
