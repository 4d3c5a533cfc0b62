"""Compresses a frame's images, so that a report of hundreds of frames stays small."""

from __future__ import annotations

import base64
import zlib
from dataclasses import dataclass, replace

import numpy as np

from boundary.late import cv2
from eval_tools.drawings import smooth

# From fine to coarse: (longest side, WebP quality) of the colour image; depth gets half the side.
STEPS = ((640, 70), (640, 50), (480, 50), (320, 60), (320, 40), (240, 40), (160, 40), (120, 30))

COARSEST = 16  # the step of another model's label maps, at most


@dataclass(frozen=True)
class Pictures:
    """One frame for the page: WebP colour, depth and perhaps confidence, zlib-compressed truth (if
    there is one) and prediction, and those of other models.

    `size` is (width, height) of the label maps. They have every `step`-th pixel of the evaluated
    maps along each side; of those, each of `others` has every pixel that `factors` says.
    `fineness` is the index in STEPS.
    """

    color: bytes
    depth: bytes
    truth: bytes
    prediction: bytes
    size: tuple[int, int]
    step: int
    fineness: int
    confidence: bytes = b""
    others: tuple[bytes, ...] = ()
    factors: tuple[int, ...] = ()

    @property
    def parts(self) -> dict[str, bytes]:
        """The parts that there are, by the names that the page's script gives them."""
        named = {"color": self.color, "depth": self.depth, "truth": self.truth,
                 "confidence": self.confidence, "model0": self.prediction}  # fmt: skip
        named |= {f"model{k}": part for k, part in enumerate(self.others, 1)}
        return {name: part for name, part in named.items() if part}

    def __len__(self) -> int:
        return sum(4 * -(-len(part) // 3) for part in self.parts.values())

    def text(self) -> str:
        """The parts in base64, separated by blanks."""
        return " ".join(base64.b64encode(part).decode() for part in self.parts.values())

    def with_other(self, found: np.ndarray, budget: float) -> Pictures:
        """With the labels of another model, uint8 of the evaluated maps' size, in about `budget`
        bytes of text: thinned out until they fit.
        """
        factor = 1
        while True:
            step = self.step * factor
            data = _packed(found, step)
            if 4 * len(data) / 3 <= budget or step >= COARSEST:
                break
            factor *= 2
        others, factors = (*self.others, data), (*self.factors, factor)
        return replace(self, others=others, factors=factors)


def pack(
    color: np.ndarray,
    depth: np.ndarray,
    truth: np.ndarray | None,
    found: np.ndarray,
    budget: float,
    finest: int = 0,
    confidence: np.ndarray | None = None,
) -> Pictures:
    """Compresses a frame into about `budget` bytes of text, or as few as possible.

    Label maps keep all pixels if they fit, else every second, third, ... pixel. Colour and depth
    get what is left, as fine as fits.

    Args:
        color: BGR uint8 (H, W, 3) of any size.
        depth: (H, W) 0..255 of any size.
        truth, found: uint8 label maps of one size; truth is None if there is none.
        finest: the first index in STEPS to try; frames are alike, so start near the last frame's.
        confidence: of `found`, 0..1, float of its size.
    """
    step = 1
    while True:
        maps = [b"" if labels is None else _packed(labels, step) for labels in (truth, found)]
        if sum(map(len, maps)) * 4 / 3 < 0.7 * budget or step == 8:
            break
        step += 1
    height, width = found[::step, ::step].shape
    depth = np.clip(np.rint(depth), 0, 255).astype(np.uint8)
    sure = None if confidence is None else np.rint(255 * confidence).astype(np.uint8)
    for fineness, (side, quality) in enumerate(STEPS[finest:], finest):
        webp = (_webp(color, side, quality), _webp(depth, side // 2, quality))
        third = b"" if sure is None else _webp(sure, side // 2, quality)
        pictures = Pictures(*webp, *maps, (width, height), step, fineness, third)
        if len(pictures) <= budget:
            break
    return pictures


def _packed(labels: np.ndarray, step: int) -> bytes:
    return zlib.compress(labels[::step, ::step].tobytes(), 6)


def _webp(image: np.ndarray, side: int, quality: int) -> bytes:
    scale = min(1.0, side / max(image.shape[:2]))
    size = tuple(max(1, round(length * scale)) for length in image.shape[1::-1])
    if size != image.shape[1::-1]:
        image = smooth(image, size)
    return cv2.imencode(".webp", image, [cv2.IMWRITE_WEBP_QUALITY, quality])[1].tobytes()
