"""The command line: `python -m caffe_patches apply|status|check|revert CAFFE_DIR`."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager
from pathlib import Path

from boundary import running
from boundary.streams import say
from caffe_patches import transaction
from caffe_patches.checkout import Checkout, Plan
from caffe_patches.errors import PatchError
from caffe_patches.insertions import PARTS
from caffe_patches.transaction import Change

NAME = "python -m caffe_patches"


def main(argv: list[str] | None = None) -> int:
    """Runs one command; returns its exit status: 0, 1 for an unusable checkout, 2 for bad usage."""
    # Turns the signal into an exception, so that an unfinished change is undone.
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        return running.status(NAME, lambda: _run(argv))
    finally:
        signal.signal(signal.SIGTERM, before)


def _run(argv: list[str] | None) -> int:
    args = parse(argv)
    try:
        args.run(args)
    except PatchError as error:
        for line in error.lines:
            say(f"{NAME}: {line}")
        return 1
    except OSError as error:
        say(f"{NAME}: {error.filename or args.caffe_dir}: {error.strerror}")
        return 1
    return 0


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The arguments, with the command's function as `run`."""
    parser = argparse.ArgumentParser(
        prog=NAME,
        description="Makes a checkout of BVLC Caffe run FuseNet's prototxts.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="parts:\n"
        "  shuffle        data_param { shuffle: true }: LMDB records in a new order each epoch\n"
        "  label-weights  loss_param { use_weights: true label_weights: ... }\n"
        "  unpooling      the Unpooling layer\n"
        "  toolchain      support for today's libraries, CUDA and cuDNN\n",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    apply = commands.add_parser("apply", help="add parts to the checkout (default: all)")
    status = commands.add_parser("status", help="list the applied parts")
    check = commands.add_parser(
        "check", help="say whether apply would succeed, or whether the applied parts are complete"
    )
    revert = commands.add_parser("revert", help="remove parts; files are as before, to the byte")
    for command, run in ((apply, _apply), (status, _status), (check, _check), (revert, _revert)):
        command.add_argument("caffe_dir", type=Path, metavar="CAFFE_DIR", help="Caffe's checkout")
        command.set_defaults(run=run)
    for command in (apply, check, revert):
        command.add_argument("--only", type=_parts, metavar="PART,...", help="only these parts")
    for command, doubt in (
        (apply, "apply to another commit, if every anchor occurs exactly once"),
        (revert, "also revert files that were changed since"),
    ):
        command.add_argument("--force", action="store_true", help=doubt)
        command.add_argument(
            "--dry-run", action="store_true", help="print the changes without making them"
        )
    return parser.parse_args(argv)


def _apply(args: argparse.Namespace) -> None:
    _change(args, Checkout.plan_apply, "applied {} to {}", "{} applied to {} already")


def _revert(args: argparse.Namespace) -> None:
    _change(args, Checkout.plan_revert, "reverted {} in {}", "nothing of {} in {}")


def _change(
    args: argparse.Namespace,
    plan_for: Callable[[Checkout, Set[str]], Plan],
    done: str,
    idle: str,
) -> None:
    """Plans the changes and makes them. done and idle are the messages, formatted with the parts'
    names and the checkout, for changes made and for nothing to do."""
    parts = args.only or set(PARTS)
    with _opened(args) as checkout:
        plan = plan_for(checkout, parts)
        if plan.changes or plan.problems:
            _carry_out(args, plan, done.format(_names(parts), args.caffe_dir))
        else:
            print(idle.format(_names(parts), args.caffe_dir))


def _status(args: argparse.Namespace) -> None:
    _refuse_interrupted(args.caffe_dir)
    checkout = Checkout(args.caffe_dir)
    total, other = len(checkout.sources), len(checkout.strangers)
    commit = checkout.pin.commit[:8]
    print(f"{args.caffe_dir}: {total - other} of {total} files as in BVLC Caffe's commit {commit}")
    for path in checkout.strangers:
        print(f"  not {path}")
    for part in PARTS:
        there, lacking = checkout.present(part)
        if there and lacking:
            print(f"{part:14} applied in part; not as it should be: {', '.join(lacking)}")
        else:
            print(f"{part:14} {'not ' if lacking else ''}applied")


def _check(args: argparse.Namespace) -> None:
    _refuse_interrupted(args.caffe_dir)
    checkout = Checkout(args.caffe_dir)
    applied = checkout.applied()
    parts = args.only or applied or set(PARTS)
    plan = checkout.plan_apply(parts)
    faults = [*plan.problems, *plan.doubts]
    for part in sorted(parts & applied):
        faults += [f"{path}: lacks its share of {part}" for path in checkout.present(part)[1]]
    if faults:
        raise PatchError(*dict.fromkeys(faults))
    if parts & applied:
        print(f"{args.caffe_dir}: {_names(parts & applied)} applied and whole")
    if parts - applied:
        print(f"{args.caffe_dir}: {_names(parts - applied)} can be applied")


@contextmanager
def _opened(args: argparse.Namespace) -> Iterator[Checkout]:
    """The checkout, locked against other runs; a dry run only reads it."""
    cut_short = transaction.interrupted(args.caffe_dir)
    if args.dry_run:
        _refuse_interrupted(args.caffe_dir)
        yield Checkout(args.caffe_dir)
        return
    with transaction.exclusive(args.caffe_dir):
        if cut_short:
            say(f"{NAME}: {args.caffe_dir}: undid a change that was cut short")
        yield Checkout(args.caffe_dir)


def _carry_out(args: argparse.Namespace, plan: Plan, done: str) -> None:
    """Makes the plan's changes. Raises PatchError for problems and, without --force, for doubts."""
    if plan.problems or (plan.doubts and not args.force):
        hint = "--force does it all the same" if not plan.problems else "nothing was changed"
        raise PatchError(*plan.problems, *plan.doubts, hint)
    for doubt in plan.doubts:
        say(f"{NAME}: note: {doubt}")
    if not args.dry_run:
        transaction.write(args.caffe_dir, plan.changes)
    for change in plan.changes:
        print(f"{_verb(change):6} {change.path}")
    would = "would have " if args.dry_run else ""
    print(f"{would}{done} ({len(plan.changes)} files)")


def _verb(change: Change) -> str:
    if change.before is None:
        return "add"
    return "remove" if change.after is None else "change"


def _refuse_interrupted(root: Path) -> None:
    if transaction.interrupted(root):
        raise PatchError(f"{root}: a change was cut short; apply and revert first undo it")


def _parts(text: str) -> set[str]:
    """argparse type: `shuffle,unpooling`."""
    parts = set(text.split(","))
    if unknown := sorted(parts - set(PARTS)):
        raise argparse.ArgumentTypeError(f"no part '{unknown[0]}'; there are {', '.join(PARTS)}")
    return parts


def _names(parts: Set[str]) -> str:
    return ", ".join(part for part in PARTS if part in parts)
