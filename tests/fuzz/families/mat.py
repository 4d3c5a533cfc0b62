"""MATLAB files of level 5: by bytes, and by elements that lie about themselves."""

from __future__ import annotations

import struct
import zlib

from data_tools import matfile
from fuzz import commands, mutate
from fuzz.families import Draw, Target, family

NAMES = ("text", "numbers", "cells", "rows")


def _element(draw: Draw, data: bytes) -> bytes:
    """Another type or size of one of the elements."""
    places = [
        at for at in range(128, len(data) - 8, 4) if 0 < struct.unpack_from("<I", data, at)[0] < 20
    ]
    if not places:
        return data
    at = draw.rng.choice(places)
    kind, size = struct.unpack_from("<II", data, at)
    if draw.chance(0.4):
        kind = draw.pick(0, 1, 2, 3, 5, 6, 9, 14, 15, 16, 17, 18, 255, 65536, 2**31)
    else:
        size = draw.pick(0, 1, 2, 3, 7, 100, size + 1, size - 1, 2**16, 2**31 - 1, 2**32 - 1)
    return data[:at] + struct.pack("<II", kind, size % 2**32) + data[at + 8 :]


def level5(draw: Draw, pattern: str, path: str) -> None:
    """A spoiled level-5 file; compressed variables are unpacked, spoiled, and packed again."""
    data = draw.sound(pattern)
    if draw.chance(0.3) or mutate.idle:
        draw.write(path, mutate.some_bytes(draw.rng, data))
        return
    head, at, variables = data[:128], 128, []
    while at + 8 <= len(data):
        kind, size = struct.unpack_from("<II", data, at)
        payload = data[at + 8 : at + 8 + size]
        variables.append(zlib.decompress(payload) if kind == 15 else data[at : at + 8 + size])
        at += 8 + size
    plain = head + b"".join(variables)
    for _ in range(draw.pick(1, 1, 2, 3)):
        plain = (_element if draw.chance(0.7) else _bytes)(draw, plain)
    body = plain[128:]
    if draw.chance(0.5):
        packed = zlib.compress(body)
        if draw.chance(0.2):
            packed = mutate.some_bytes(draw.rng, packed)
        body = struct.pack("<II", 15, len(packed)) + packed
    draw.write(path, head + body)


def _bytes(draw: Draw, data: bytes) -> bytes:
    return data[:128] + mutate.some_bytes(draw.rng, data[128:])


@family()
def mat5(draw: Draw) -> Target:
    """A spoiled level-5 file, variable by variable."""
    level5(draw, draw.pick("mat/plain.mat", "mat/packed5.mat"), "x.mat")
    name, fields = draw.pick(*NAMES), draw.pick(None, ("one",), ("two", "one"))

    return lambda: matfile.read("x.mat", name, fields)


@family(0.5)
def sunrgbd(draw: Draw) -> Target:
    """data_tools.sunrgbd with spoiled metadata, splits or pictures."""
    draw.copy("sunrgbd")
    how = draw.rng.randrange(3)
    if how == 0:
        place = "sunrgbd/toolbox/Metadata/SUNRGBDMeta.mat"
        level5(draw, place, place)
    elif how == 1:
        place = "sunrgbd/toolbox/traintestSUNRGBD/allsplit.mat"
        level5(draw, place, place)
    else:
        victim = draw.rng.choice(draw.seeds("sunrgbd/data/*/*/*/*/*"))
        place = victim.relative_to(draw.corpus).as_posix()
        draw.bytes(place, place)
    more = ("--skip-bad",) if draw.chance(0.3) else ()
    return commands.data_tool("sunrgbd", "sunrgbd/data", "sunrgbd/toolbox", "out", *more)
