"""drop_copies: remove layers whose tops equal their bottom, such as Split, and Dropout in TEST."""

from __future__ import annotations

from caffe.plan.ir import Node, Program
from caffe.plan.rewrites.rewrite import Match, Rewrite


def _pattern(program: Program, node: Node) -> Match | None:
    return [node] if len(node.layers) == 1 and node.layer.copies() else None


def _check(program: Program, match: Match) -> str:
    (node,) = match
    values = [*node.bottom, *node.top]
    for what, table in (("outputs of the net", program.outputs), ("losses", program.losses)):
        if sum(value in table for value in values) > 1:
            return f"several of its blobs are {what}"
    if program.train and not all(node.wants):
        return "passes no gradient on"
    return ""


def _action(program: Program, match: Match) -> None:
    (node,) = match
    program.nodes.remove(node)
    for value in node.top:
        program.rename(value, node.bottom[0])


DROP_COPIES = Rewrite("drop_copies", _pattern, _check, _action)
