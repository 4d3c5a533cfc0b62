"""What a browser may send to eval_tools.live."""

from __future__ import annotations

from pathlib import Path

from eval_tools.live import message
from eval_tools.live.model import read
from fuzz import mutate
from fuzz.families import Draw, Target, family
from fuzz.families.pictures import header_of

COLOR = ("rgb.png", "bmp.bmp", "jpeg.jpg", "tiff.tif", "webp.webp")


@family(0.5)
def upload(draw: Draw) -> Target:
    """A message with a colour and a depth file, one of them or the message itself spoiled."""
    victim = draw.pick("color", "depth", "message")
    files = {
        "color": draw.rng.choice(draw.seeds(f"pictures/{draw.pick(*COLOR)}")),
        "depth": draw.rng.choice(draw.seeds(draw.pick("pictures/de*", "pictures/exr*.exr"))),
    }
    blocks = {part: file.read_bytes() for part, file in files.items()}
    if victim in blocks:
        blocks[victim] = _spoiled(draw, files[victim], blocks[victim])
    facts = {part: file.name for part, file in files.items()}
    data = message.pack({**facts, "unit": draw.pick("", "mm", "m", "x")}, blocks)
    if victim == "message":
        data = mutate.some_bytes(draw.rng, data[:400]) + data[400:]
    return lambda: read(*message.unpack(data), ("color", "depth"))


def _spoiled(draw: Draw, file: Path, data: bytes) -> bytes:
    if draw.chance(0.5):
        return header_of(draw.rng, file.name, data)
    return mutate.some_bytes(draw.rng, data)
