"""What a layer type says of itself to plans holds for the cases of its row."""

from __future__ import annotations

import random
import zlib

import pytest
import torch
from cases import TABLE, from_outside, make_layer, values

NAMES = sorted(name for name in TABLE if not from_outside(name))


@pytest.mark.parametrize("name", NAMES)
def test_bounds_and_copies(name: str, tmp_path, monkeypatch) -> None:
    """`bounded`: no magnitude grows. `copies()`: the top is the bottom."""
    monkeypatch.chdir(tmp_path)
    for draw in range(4):
        case = TABLE[name].draw(random.Random(zlib.crc32(f"{name} claims {draw}".encode())))
        layer = make_layer(name, case)
        assert isinstance(layer.bounded, bool)
        assert isinstance(layer.fresh, bool)
        if not (layer.bounded or layer.copies()):
            continue
        kinds = [*case.kinds, *["real"] * len(case.shapes)]
        bottoms = [
            values(kind, shape, draw).float()
            for kind, shape in zip(kinds, case.shapes, strict=False)
        ]
        with torch.no_grad():
            tops = layer.forward(bottoms, [blob.tensor() for blob in layer.blobs])
        tops = [tops] if isinstance(tops, torch.Tensor) else tops
        if layer.copies():
            assert all(torch.equal(top, bottoms[0]) for top in tops)
        if layer.bounded:
            largest = max(float(x.abs().max()) for x in bottoms if x.numel())
            found = tops[0].abs()  # Pooling's second top holds places
            assert not found.numel() or float(found.max()) <= largest * (1 + 1e-6)
