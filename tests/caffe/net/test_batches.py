"""Passes over inputs of any number, batch by batch."""

from __future__ import annotations

import numpy as np
import pytest
from nets import CHAIN

import caffe

pytestmark = pytest.mark.usefixtures("fresh")


def test_forward_all_pads_the_last_batch_and_cuts_it_off(make_net) -> None:
    x = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    net = make_net("force_backward: true " + CHAIN)
    outs = net.forward_all(["a"], x=x)
    assert np.allclose(outs["c"], 30 * x)
    assert np.allclose(outs["a"], 2 * x)
    outs, diffs = net.forward_backward_all(x=x, c=np.ones((5, 3)), diffs=["b"])
    assert np.allclose(outs["c"], 30 * x)
    assert diffs["x"].shape == (5, 3)
    assert (diffs["x"] == 30).all()
    assert (diffs["b"] == 5).all()


def test_forward_all_wants_arrays_of_one_length(make_net) -> None:
    with pytest.raises(caffe.CaffeError, match=r"arrays of one length were expected.*\[4, 5\]"):
        make_net(CHAIN).forward_backward_all(x=np.zeros((4, 3)), c=np.zeros((5, 3)))
