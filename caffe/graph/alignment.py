"""Crop layers that do not say where they cut: at 0, or where the coordinates of both bottoms agree.

The forks of Caffe in which HED (s9xie/hed), CRF-RNN (torrvision/caffe) and DeconvNet
(HyeonwooNoh/caffe) were made have no crop_param. Their crop_layer.cpp goes back from each bottom,
along first bottoms, to the nearest blob that both are made of; maps of coordinates from there say
where bottom 1 lies in bottom 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np

from caffe.blob import Blob
from caffe.coord_map import AxisMismatchException, compose, inverse
from caffe.errors import CaffeError
from caffe.layers import Layer
from caffe.layers.coordinates import IDENTITY, Map, UndefinedMapException, spec_of
from caffe.process.alignment import crop_alignment
from caffe.process.log import WARNING
from caffe.process.ranks import announce

NEAR = 1e-6  # rounding of the maps


class Connected(Protocol):
    """What is read of a net's wiring: layers, blobs, and the numbers of each layer's blobs."""

    layers: Sequence[Layer]
    blobs: Sequence[Blob]
    bottoms: Sequence[Sequence[int]]
    tops: Sequence[Sequence[int]]


class Alignment:
    """Places a net's Crop layers, while its wiring grows."""

    def __init__(self, wiring: Connected) -> None:
        self._wiring = wiring
        self._maker: dict[int, int] = {}  # blob -> the layer that made it, not one in place
        self._maps: dict[int, Map] = {}  # of the crops, once they are aligned
        self._at_zero: list[str] = []  # crops that would be elsewhere by coordinates

    def place(self, i: int) -> None:
        """Take notice of layer i, which is connected, and place it if it leaves that open.

        Raises CaffeError for a crop that is to be aligned, and cannot be.
        """
        layer = self._wiring.layers[i]
        align = crop_alignment() or layer.aligned
        counts = len(self._wiring.bottoms[i]), len(self._wiring.tops[i])
        if layer.unplaced and counts == (2, 1):  # others are refused later
            try:
                axis, offset = self._offset(i)
            except (CaffeError, UndefinedMapException, AxisMismatchException, AssertionError) as e:
                layer.check(not align, f"cannot be aligned by coordinates: {e}")
                self._at_zero.append(repr(layer.name))
                layer.put(2, [])
            else:
                self._maps[i] = axis - 1, 1, -np.array(offset)
                if any(offset) and not align:
                    self._at_zero.append(f"{layer.name!r} at {', '.join(map(str, offset))}")
                layer.put(axis, offset if align else [])
        for blob in self._wiring.tops[i]:
            self._maker.setdefault(blob, i)

    def tell(self) -> None:
        """Warn once of crops that lie elsewhere in the forks."""
        if self._at_zero:
            some = "; ".join(self._at_zero[:3]) + ("; ..." if len(self._at_zero) > 3 else "")
            announce(
                "crop_layer.cpp:1",
                "Crop layers without crop_param begin at 0, as in BVLC Caffe. Nets of HED, CRF-RNN "
                "and DeconvNet mean them to be aligned by coordinates (-align_crops, "
                f"caffe.set_crop_alignment(True)): {some}",
                WARNING,
            )

    def _offset(self, i: int) -> tuple[int, list[int]]:
        """The first axis that layer i crops, and where it begins on each.

        Raises CaffeError, or as the maps do, if there is no such place.
        """
        first, second = self._wiring.bottoms[i]
        ancestors = [first, *self._ancestors(first)]
        common = next((b for b in (second, *self._ancestors(second)) if b in ancestors), None)
        if common is None:
            raise CaffeError("its bottoms are not made of one blob")
        back = inverse(self._map(common, first))
        axis, scale, shift = compose(self._map(common, second), back)
        begin = 2 if axis is None else axis + 1
        count = max(len(self._wiring.blobs[first].shape) - begin, 0)
        if not {np.size(scale), np.size(shift)} <= {1, count}:
            raise CaffeError(f"the maps before it do not fit the {count} axes that it cuts")
        scales, offsets = (np.broadcast_to(np.ravel(v), (count,)) for v in (scale, -shift))
        if np.abs(scales - 1).max(initial=0) > NEAR:
            raise CaffeError(f"its bottoms differ in scale by {', '.join(map(str, scales))}")
        whole = np.round(offsets)
        if np.abs(offsets - whole).max(initial=0) > NEAR or whole.min(initial=0) < 0:
            shown = ", ".join(f"{offset:g}" for offset in offsets)
            raise CaffeError(f"it would begin at {shown}, which are no pixels of bottom 0")
        return begin, [int(offset) for offset in whole]

    def _ancestors(self, blob: int) -> Iterator[int]:
        """The blobs that a blob is made of, along first bottoms."""
        while blob in self._maker:
            bottoms = self._wiring.bottoms[self._maker[blob]]
            if not bottoms:
                return
            blob = bottoms[0]
            yield blob

    def _map(self, ancestor: int, blob: int) -> Map:
        """The map from an ancestor's coordinates to a blob's."""
        found = IDENTITY
        while blob != ancestor:
            i = self._maker[blob]
            found = compose(found, self._layer_map(i))
            blob = self._wiring.bottoms[i][0]
        return found

    def _layer_map(self, i: int) -> Map:
        """The map of a layer. Raises CaffeError for one without."""
        if i in self._maps:
            return self._maps[i]
        layer = self._wiring.layers[i]
        found = layer.alignment(spec_of(layer.layer_param))
        if found is None:
            raise CaffeError(f"{layer.where} ({layer.type}) has no map of coordinates")
        return found
