"""grow_concats: chains of Concats, as in DenseNet's blocks."""

from __future__ import annotations

import numpy as np
import pytest
from nets import acted, conv, image, misfits, norm, set_statistics

import caffe

LINKS = 4
INPUT = image(2, 3, 9, 10)
HEAD = INPUT + conv("c", "x", "c0", 5)
TAIL = conv("f", f"c{LINKS}", "z")


def link(i: int, bottoms: str = "", of: str = "") -> str:
    """BatchNorm, Scale, ReLU and a convolution, and the Concat of its top with their bottom."""
    bottoms = bottoms or f'bottom: "{of}c{i}" bottom: "{of}e{i}"'
    return (
        norm(f"{of}n{i}", f"{of}c{i}", f"{of}m{i}")
        + conv(f"{of}d{i}", f"{of}m{i}", f"{of}e{i}", i + 1)
        + f'layer {{ name: "{of}join{i}" type: "Concat" {bottoms} top: "{of}c{i + 1}" }}'
    )


BLOCK = "".join(map(link, range(LINKS)))


def statistics(nets) -> None:
    norms = [name for name, layer in nets[0].layer_dict.items() if layer.type == "BatchNorm"]
    set_statistics(nets, *norms)


def places(net: caffe.Net) -> list[int]:
    """Where in memory the tops of the Concats begin in a pass."""
    seen = []  # the tops, kept: freed memory may be handed out again
    for node in net.plan.nodes:
        if "join" in node.name:

            def watched(bottom, blobs, run=node.run):
                tops = run(bottom, blobs)
                seen.append(tops[0])
                return tops

            node.run = watched
    net.forward()
    return [top.untyped_storage().data_ptr() for top in seen]


def test_a_block_lies_in_one_memory(pair, same_passes) -> None:
    nets = pair(HEAD + BLOCK + TAIL, caffe.TEST)
    statistics(nets)
    assert acted(nets[1], "grow_concats") == 1
    same_passes(nets, backward=False)  # two passes: the first finds out how many channels come
    assert len({*places(nets[1])}) == 1


def test_passes_do_not_share_memory(pair) -> None:
    """What a pass gives out is not written over by the next one."""
    net = pair(HEAD + BLOCK, caffe.TEST)[1]
    net.forward()
    node = next(node for node in net.plan.nodes if node.name == "join3")
    tops, run = [], node.run

    def kept(bottom, blobs):
        tops.append(run(bottom, blobs)[0])
        return tops[-1:]

    node.run = kept
    net.forward()
    before = tops[0].clone()
    net.blobs["x"].data[...] += 1
    net.forward()
    assert (tops[0] == before).all()
    assert (tops[1] != before).any()


def test_two_blocks_have_two_memories(pair, same_passes) -> None:
    second = "".join(link(i, of="k") for i in range(LINKS)) + conv("f", f"kc{LINKS}", "z")
    between = conv("g", f"c{LINKS}", "kc0", 6)
    nets = pair(HEAD + BLOCK + between + second, caffe.TEST)
    statistics(nets)
    assert acted(nets[1], "grow_concats") == 2
    same_passes(nets, backward=False)
    assert len({*places(nets[1])}) == 2


def test_other_shapes(pair) -> None:
    nets = pair(HEAD + BLOCK + TAIL, caffe.TEST)
    statistics(nets)
    for shape in ((2, 3, 9, 10), (1, 3, 7, 5), (1, 3, 1, 1), (3, 3, 9, 10)):
        for net in nets:
            net.blobs["x"].reshape(*shape)
            net.blobs["x"].data[...] = np.random.default_rng(1).normal(size=shape)
        outs = [net.forward()["z"] for net in nets]
        np.testing.assert_allclose(*outs, rtol=0, atol=1e-5 * np.abs(outs[0]).max())


def test_in_bfloat16(pair) -> None:
    caffe.set_precision("bf16")
    nets = pair(HEAD + BLOCK + TAIL, caffe.TEST)
    statistics(nets)
    for _ in range(2):
        first, second = (net.forward()["z"] for net in nets)
        assert np.abs(first - second).max() < 0.05 * np.abs(first).max()


@pytest.mark.parametrize(
    ("text", "chains"),
    [
        (HEAD + link(0) + TAIL.replace(f"c{LINKS}", "c1"), 0),
        (HEAD + link(0) + link(1, 'bottom: "e1" bottom: "c1"') + conv("f", "c2", "z"), 0),
        (HEAD + link(0) + link(1) + conv("g", "c1", "v") + conv("f", "c2", "z"), 0),
        (HEAD + BLOCK + conv("g", "c2", "v") + TAIL, 2),
        (HEAD + BLOCK + image(4, 20, 9, 10, name="w"), 1),
    ],
    ids=["one", "the new before the old", "another taker", "one that breaks it", "as an output"],
)
def test_how_many_chains_there_are(text: str, chains: int, pair, same_passes) -> None:
    nets = pair(text, caffe.TEST)
    statistics(nets)
    assert acted(nets[1], "grow_concats") == chains
    same_passes(nets, backward=False)


def test_a_bottom_that_does_not_fit_is_refused_as_by_the_layer(pair, same_refusal) -> None:
    other = image(2, 2, 9, 10, name="w")
    last = link(1, 'bottom: "c1" bottom: "e1" bottom: "w"')
    nets = pair(HEAD + other + link(0) + last + conv("f", "c2", "z"), caffe.TEST)
    same_refusal(nets, "w", (2, 2, 9, 11))


def test_on_a_gpu_it_does_not_fit(pretend_gpu, pair) -> None:
    nets = pair(HEAD + BLOCK + TAIL, caffe.TEST)
    assert [*misfits(nets[1], "grow_concats")] == ["join0"]
