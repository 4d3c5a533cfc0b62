"""Compresses a frame's images, so that a report of hundreds of frames stays small."""

from __future__ import annotations

import base64
import zlib
from dataclasses import dataclass

import cv2
import numpy as np

from eval_tools.drawings import smooth

# From fine to coarse: (longest side, WebP quality) of the colour image; depth gets half the side.
STEPS = ((640, 70), (640, 50), (480, 50), (320, 60), (320, 40), (240, 40), (160, 40), (120, 30))


@dataclass(frozen=True)
class Pictures:
    """One frame for the page: WebP colour and depth, zlib-compressed truth and prediction.

    `size` is (width, height) of the label maps. They have every `step`-th pixel of the evaluated
    maps along each side. `fineness` is the index in STEPS.
    """

    color: bytes
    depth: bytes
    truth: bytes
    prediction: bytes
    size: tuple[int, int]
    step: int
    fineness: int

    def __len__(self) -> int:
        parts = (self.color, self.depth, self.truth, self.prediction)
        return sum(4 * -(-len(part) // 3) for part in parts)

    def text(self) -> str:
        """The four parts in base64, separated by blanks."""
        parts = (self.color, self.depth, self.truth, self.prediction)
        return " ".join(base64.b64encode(part).decode() for part in parts)


def pack(
    color: np.ndarray,
    depth: np.ndarray,
    truth: np.ndarray,
    found: np.ndarray,
    budget: float,
    finest: int = 0,
) -> Pictures:
    """Compresses a frame into about `budget` bytes of text, or as few as possible.

    Label maps keep all pixels if they fit, else every second, third, ... pixel. Colour and depth
    get what is left, as fine as fits.

    Args:
        color: BGR uint8 (H, W, 3) of any size.
        depth: (H, W) 0..255 of any size.
        truth, found: uint8 label maps of one size.
        finest: the first index in STEPS to try; frames are alike, so start near the last frame's.
    """
    step = 1
    while True:
        maps = [zlib.compress(m[::step, ::step].tobytes(), 6) for m in (truth, found)]
        if sum(map(len, maps)) * 4 / 3 < 0.7 * budget or step == 8:
            break
        step += 1
    height, width = truth[::step, ::step].shape
    depth = np.clip(np.rint(depth), 0, 255).astype(np.uint8)
    for fineness, (side, quality) in enumerate(STEPS[finest:], finest):
        webp = (_webp(color, side, quality), _webp(depth, side // 2, quality))
        pictures = Pictures(*webp, *maps, (width, height), step, fineness)
        if len(pictures) <= budget:
            break
    return pictures


def _webp(image: np.ndarray, side: int, quality: int) -> bytes:
    scale = min(1.0, side / max(image.shape[:2]))
    size = tuple(max(1, round(length * scale)) for length in image.shape[1::-1])
    if size != image.shape[1::-1]:
        image = smooth(image, size)
    return cv2.imencode(".webp", image, [cv2.IMWRITE_WEBP_QUALITY, quality])[1].tobytes()
