"""Colours for labels that have none of their own."""

from __future__ import annotations


def palette(count: int) -> list[tuple[int, int, int]]:
    """The PASCAL VOC colours (r, g, b) of the first `count` labels; 0 is black."""
    colors = []
    for label in range(count):
        color = [0, 0, 0]
        for step in range(8):
            for channel in range(3):
                bit = (label >> (3 * step + channel)) & 1
                color[channel] |= bit << (7 - step)
        colors.append((color[0], color[1], color[2]))
    return colors
