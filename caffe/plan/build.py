"""From a net's wiring to a program: one node per layer, rewrites, casts between number types."""

from __future__ import annotations

import torch

from caffe.graph.wiring import Wiring
from caffe.plan.casts import insert_casts
from caffe.plan.ir import Circumstances, Node, Program, always, like_bottoms
from caffe.plan.operations import from_source, pure
from caffe.plan.rewrites import Report, apply_all


def can_plan(wiring: Wiring) -> bool:
    """Whether a plan can run the net: sources have no bottoms, other layers are pure functions.

    A net with a Python layer, say, which works on blobs, runs layer by layer.
    """
    return all(layer.num_bottoms == 0 if layer.source else layer.pure for layer in wiring.layers)


def build(wiring: Wiring, train: bool, circumstances: Circumstances) -> tuple[Program, Report]:
    """The program of a net, and what the rewrites did to it."""
    program = read(wiring, train, circumstances)
    report = apply_all(program)
    insert_casts(program)
    return program, report


def read(wiring: Wiring, train: bool, circumstances: Circumstances) -> Program:
    """A program with one node per layer; a blob that is written in place becomes several values."""
    program = Program(train, circumstances)
    newest: dict[int, int] = {}
    for i, (layer, bottoms, tops) in enumerate(wiring):
        bottom = [newest[b] for b in bottoms]
        top = [program.new_value() for _ in tops]
        newest.update(zip(tops, top, strict=True))
        run = (
            from_source(layer, wiring.top_blobs(i)) if layer.source else pure(layer, circumstances)
        )
        number = circumstances.dtype if layer.multiplies else torch.float32
        any_number = layer.takes_bfloat16()
        numbers = like_bottoms(len(top)) if any_number else always(number, len(top))
        wants = list(wiring.wants[i])
        program.nodes.append(Node([layer], bottom, top, run, wants, numbers, any_number))
        for value, weight in zip(top, layer.loss_weights, strict=True):
            if weight:
                program.losses[value] = weight
    program.outputs = {newest[i]: wiring.blobs[i] for i in wiring.outputs}
    return program
