"""Rewrite: one way to run some nodes of a plan with less time or memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from caffe.plan.ir import Node, Program

Match = Sequence[Node]


@dataclass(frozen=True)
class Rewrite:
    """A pattern, a check and an action; results equal those of the replaced layers up to rounding.

    pattern: returns the nodes to rewrite, the given one first, or None. check: returns why they
    cannot be rewritten, as a sentence without a subject; empty if they can. action: changes the
    program. train, deploy: the plans that it applies to.
    """

    name: str
    pattern: Callable[[Program, Node], Match | None]
    check: Callable[[Program, Match], str]
    action: Callable[[Program, Match], None]
    train: bool = True
    deploy: bool = True


@dataclass(frozen=True)
class Misfit:
    """A match that the check refused: the rewrite, the first node's name, and the reason."""

    rewrite: str
    node: str
    reason: str


@dataclass
class Report:
    """What the rewrites did to a program: how often each acted, and where one did not fit."""

    acted: Counter[str] = field(default_factory=Counter)
    misfits: list[Misfit] = field(default_factory=list)


def apply(rewrite: Rewrite, program: Program, report: Report) -> None:
    """Try a rewrite on every node of a program."""
    for node in list(program.nodes):
        if node not in program.nodes:  # an earlier match included it
            continue
        match = rewrite.pattern(program, node)
        if match is None:
            continue
        name = node.name
        reason = rewrite.check(program, match)
        if reason:
            report.misfits.append(Misfit(rewrite.name, name, reason))
        else:
            rewrite.action(program, match)
            report.acted[rewrite.name] += 1
