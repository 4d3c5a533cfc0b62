"""softmax_in_order: probabilities of deploy nets."""

from __future__ import annotations

import numpy as np
import pytest
from nets import acted, image

import caffe
from caffe.plan.rewrites import softmax_in_order


@pytest.mark.parametrize("axis", [0, 1, -2, -1])
@pytest.mark.parametrize("shape", [(2, 3, 9, 10), (4, 5, 1, 1), (6, 7), (2, 3, 4, 5, 2)], ids=str)
@pytest.mark.parametrize("piece", [1, 50, 1 << 18], ids=["rows", "some rows", "whole"])
def test_probabilities_alike(
    shape: tuple[int, ...], axis: int, piece: int, pair, same_passes, monkeypatch
) -> None:
    monkeypatch.setattr(softmax_in_order, "PIECE", piece)
    body = f"""layer {{ name: "p" type: "Softmax" bottom: "x" top: "p"
      softmax_param {{ axis: {axis} }} }}"""
    nets = pair(image(*shape) + body, caffe.TEST)
    assert acted(nets[1], "softmax_in_order") == 1
    same_passes(nets, backward=False)
    np.testing.assert_allclose(nets[1].blobs["p"].data.sum(axis), 1, rtol=1e-6)


def test_probabilities_are_written_where_they_are_seen(pair, same_passes) -> None:
    """A view of the output shows each pass, and is what the next one writes to."""
    body = 'layer { name: "p" type: "Softmax" bottom: "x" top: "p" }'
    nets = pair(image(2, 3, 9, 10) + body, caffe.TEST)
    net = nets[1]
    node = net.plan.nodes[-1]
    run, places = node.run, []

    def watched(bottom, blobs):
        (y,) = run(bottom, blobs)
        places.append(y.data_ptr())
        return [y]

    node.run = watched
    same_passes(nets, backward=False)
    assert places[-1] == net.blobs["p"].place().data_ptr()  # written there, and not copied
    view, before = net.blobs["p"].data, net.blobs["p"].data.copy()
    assert net.blobs["p"].place().data_ptr() == view.ctypes.data
    for other in nets:
        other.blobs["x"].data[...] *= 2
    same_passes(nets, backward=False)
    assert not np.allclose(view, before)
    np.testing.assert_array_equal(view, net.blobs["p"].data)
    for other in nets:  # another shape, and so another place
        other.blobs["x"].reshape(1, 3, 4, 5)
        other.blobs["x"].data[...] = 1
    same_passes(nets, backward=False)
    assert net.blobs["p"].data.shape == (1, 3, 4, 5)
