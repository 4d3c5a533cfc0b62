"""Programs: who takes and makes a value, and what edits refuse."""

from __future__ import annotations

import pytest
from nets import conv, image

import caffe
from caffe.plan.build import read
from caffe.plan.ir import Program, always, circumstances

NET = image(2, 3, 9, 10) + conv("c", "x", "y") + conv("d", "y", "z") + conv("e", "y", "w")


@pytest.fixture
def program(make_net) -> Program:
    """x -> c -> its Split -> d and e; z and w are outputs."""
    return read(make_net(NET, caffe.TEST).wiring, False, circumstances())


def test_makers_and_takers(program: Program) -> None:
    x, c, split, d, e = program.nodes
    assert program.maker(c.top[0]) is c
    assert program.only_taker(c.top[0]) is split
    assert program.takers_of(split.top[0]) == [d]
    assert program.takers()[d.top[0]] == 1  # the net's output
    assert program.only_taker(d.top[0]) is None
    assert program.maker(999) is None
    assert x.blobs == []
    assert [blob.shape for blob in e.blobs] == [(4, 4, 3, 3)]


def test_renamed_values_have_their_takers_and_outputs(program: Program) -> None:
    _, c, split, d, e = program.nodes
    program.rename(split.top[1], c.top[0])
    assert program.takers_of(c.top[0]) == [split, e]
    blob = program.outputs[d.top[0]]
    program.rename(d.top[0], c.top[0])
    assert program.outputs[c.top[0]] is blob


def test_two_outputs_cannot_become_one(program: Program) -> None:
    d, e = program.nodes[-2:]
    with pytest.raises(ValueError, match="both outputs or losses"):
        program.rename(d.top[0], e.top[0])


def test_only_a_chain_is_joined(program: Program) -> None:
    _, c, split, d, _ = program.nodes
    with pytest.raises(ValueError, match="c and d are no links of one chain"):
        program.join([c, d], c.run, always(program.circumstances.dtype, 1))
    assert program.nodes[1:4] == [c, split, d]
