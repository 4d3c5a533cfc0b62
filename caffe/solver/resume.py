"""The side file of a snapshot, PREFIX_iter_N.resume, holds what Caffe's own two files leave out.

With it a resumed run repeats the uninterrupted one bit for bit. It holds the nets' positions in
their data, the random states, and the losses behind the displayed mean. Caffe ignores the file and
starts its data over. It is JSON:

    format        1
    crc32         CRC-32 of all other values (as JSON without blanks, in the file's order); files of
                  earlier versions have none
    run           the number of the run among those that wrote snapshots under this prefix, from 1
                  up; files of earlier versions have none
    iteration     the snapshot's iteration
    written       the time of writing, in seconds since 1970
    model         the .caffemodel's file name, size in bytes and CRC-32
    history_crc32 CRC-32 of the .solverstate's history: float32, little-endian, blob after blob
    seed          the run's random_seed; null if it was not set
    random        for each process, PyTorch's states "cpu" and "cuda" in base64 ("cuda" is null
                  without a GPU); null for a process that could not be asked
    loss          "window": the last losses, "mean": their mean, "since": the iteration at which
                  the window began
    nets          the training net, then the test nets; for each, the positions of its data layers:
                  "layer", "type", and what the layer needs to continue. This is usually "next"
                  (the number of the next record, counted over all processes and epochs), "seed",
                  "source", "contents" (how much the source held) and "order": "seed" (without it,
                  a shuffled order also depends on the source's name, as in earlier versions); for a
                  Python layer it is "state", the value of its get_state()
    best          the best test before this iteration's (caffe/solver/best.py): "top" (its name),
                  "direction" ("max" or "min"), "value", "iteration", "since" (the number of tests
                  after it) and "last" (the iteration of the last test). Null without keep_best, and
                  missing in files of earlier versions
"""

from __future__ import annotations

import base64
import json
import os
import time
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from boundary.errors import one_line, reason
from caffe.errors import CaffeError
from caffe.formats.files import PathLike, SolverStateData, atomic_write
from caffe.net import Net
from caffe.process import device, ranks, seeds
from caffe.process.log import INFO, WARNING
from caffe.process.peers import gather
from caffe.process.progress import tell

FORMAT = 1
_PLACE = "resume.py:1"  # for log lines that have no counterpart in Caffe


@dataclass
class LossWindow:
    """The losses behind the displayed mean, and the iteration at which they began."""

    window: list[float]
    mean: float
    since: int


@dataclass(frozen=True)
class BestTest:
    """The best test so far. top: which value of a test it is about. direction: "max" or "min".

    value, iteration: its own; None if no test gave a number so far. since: the number of tests
    after it. last: the iteration of the last test, good or not.
    """

    top: str
    direction: str
    value: float | None = None
    iteration: int | None = None
    since: int = 0
    last: int | None = None


@dataclass
class Point:
    """The state of a run beside weights and history; the fields are those of the side file."""

    seed: int | None
    random: list[dict[str, str | None] | None]
    loss: LossWindow
    nets: list[list[dict[str, Any]]]
    best: BestTest | None = None


def side_file(state_file: PathLike) -> Path:
    """The side file that goes with a .solverstate or .solverstate.h5."""
    path = os.fspath(state_file)
    for suffix in (".solverstate", ".solverstate.h5"):
        if path.endswith(suffix):
            return Path(path.removesuffix(suffix) + ".resume")
    return Path(path + ".resume")


# -- capturing ---------------------------------------------------------------------------------


def capture(
    seed: int, nets: Sequence[Net], loss: LossWindow, best: BestTest | None, together: bool
) -> Point:
    """The state of a run now. together: all processes call this, and share their random states."""
    own = _random_state()
    rank, count = ranks.solver_rank(), ranks.solver_count()
    states = [own if i == rank else None for i in range(count)]
    if together:
        states = gather(own)
    positions = [_positions(net) for net in nets]
    return Point(seed if seed >= 0 else None, states, loss, positions, best)


def _random_state() -> dict[str, str | None]:
    cuda = None
    if device.current_device().type == "cuda" and torch.cuda.is_initialized():
        cuda = _to_text(torch.cuda.get_rng_state(device.current_device()))
    return {"cpu": _to_text(torch.get_rng_state()), "cuda": cuda}


def _positions(net: Net) -> list[dict[str, Any]]:
    found = []
    for layer in net.wiring.layers:
        position = layer.position()
        if position is not None:
            found.append({"layer": layer.name, "type": layer.type, **position})
    return found


# -- the file ----------------------------------------------------------------------------------


def write(path: PathLike, point: Point, model: PathLike, state: SolverStateData, run: int) -> None:
    """Write a snapshot's side file, after its model and before its .solverstate.

    run: the number of the run among those under the snapshot's prefix, from 1 up.
    Raises CaffeError if a Python layer's get_state() returned something that JSON cannot hold.
    """
    content = {
        "format": FORMAT,
        "run": run,
        "iteration": state.iter,
        "written": time.time(),
        "model": fingerprint(model),
        "history_crc32": history_crc32(state.history),
        **asdict(point),
    }
    try:
        content = json.loads(json.dumps(content))  # as it will be read: keys are texts
        text = json.dumps({"format": FORMAT, "crc32": _crc32(content), **content}, indent=1)
    except (TypeError, ValueError) as error:  # caused by a Python layer
        raise CaffeError(f"{path}: get_state() gave what JSON cannot hold: {error}") from None
    with atomic_write(path) as beside:
        beside.write_text(text + "\n", encoding="utf-8")


def fingerprint(path: PathLike) -> dict[str, Any]:
    """A file's name, size in bytes and CRC-32. Raises CaffeError if it cannot be read."""
    crc, size = 0, 0
    try:
        with open(path, "rb") as file:
            while piece := file.read(2**22):
                crc, size = zlib.crc32(piece, crc), size + len(piece)
    except OSError as error:
        raise CaffeError(f"{path}: {error.strerror or error}") from None
    return {"file": os.path.basename(path), "bytes": size, "crc32": crc}


def history_crc32(history: Iterable[np.ndarray]) -> int:
    """The CRC-32 of the arrays' values as little-endian float32, one array after the other."""
    crc = 0
    for array in history:
        crc = zlib.crc32(np.ascontiguousarray(array, "<f4").view(np.uint8), crc)
    return crc


def read(path: PathLike) -> dict[str, Any]:
    """A side file's content; "run" is 0, and "best" None, where earlier versions' have none.

    Raises CaffeError if it cannot be read, or if anything in it is not as this module says.
    """
    try:
        if not os.path.isfile(path):  # a pipe would have us wait
            raise CaffeError(f"{path}: {'not a file' if os.path.exists(path) else 'No such file'}")
        if os.path.getsize(path) > LARGEST:
            raise ValueError(f"it has more than {LARGEST >> 20} MiB")
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        if isinstance(content, dict) and content.get("format", FORMAT) != FORMAT:
            raise CaffeError(f"{path}: format {_short(content['format'])}; expected {FORMAT}")
        _check(content)
    except OSError as error:
        raise CaffeError(f"{path}: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:  # ValueError: UTF-8, JSON and base64 have it, too
        raise CaffeError(
            f"{path}: damaged ({one_line(str(error), 120)}); expected the side file of a snapshot. "
            "Without it the data starts over: remove it if that will do"
        ) from None
    best = content.get("best")
    return {
        **content,
        "run": content.get("run", 0),
        "loss": LossWindow(**content["loss"]),
        "best": best and BestTest(**best),
    }


# -- its form ----------------------------------------------------------------------------------

LARGEST = 2**30  # bytes of a side file; it may hold the states of Python layers
_MOST = 2**53  # of a number that counts something
_INT = (-(2**63), 2**64 - 1)  # of a seed


def _check(content: Any) -> None:
    """Raise ValueError, with the place, unless all of a side file is as this module's head says."""
    _need(isinstance(content, dict), "the file", "an object")
    _check_keys(content, "", _TOP)
    _need(content.get("crc32", crc := _crc32(content)) == crc, "crc32", f"{crc}")
    _need("run" not in content or _whole(content["run"], 1), "run", "a whole number from 1 up")
    _check_keys(content["model"], "model.", _MODEL)
    _check_keys(content["loss"], "loss.", _LOSS)
    _need(len(content["loss"]) == len(_LOSS), "loss", f"{', '.join(_LOSS)} alone")
    if content.get("best") is not None:
        _need(isinstance(content["best"], dict), "best", "null or an object")
        _check_keys(content["best"], "best.", _BEST)
        _need(len(content["best"]) == len(_BEST), "best", f"{', '.join(_BEST)} alone")
    for i, state in enumerate(content["random"]):
        _check_random(state, f"random[{i}]")
    for i, net in enumerate(content["nets"]):
        _need(isinstance(net, list), f"nets[{i}]", "a list")
        for k, position in enumerate(net):
            _check_position(position, f"nets[{i}][{k}]")


def _whole(value: Any, low: int = 0, high: int = _MOST) -> bool:
    return type(value) is int and low <= value <= high


_Kind = tuple[Callable[[Any], bool], str]
_COUNT: _Kind = (_whole, "a whole number from 0 up")
_CRC: _Kind = (lambda v: _whole(v, 0, 2**32 - 1), "a CRC-32")
_LIST: _Kind = (lambda v: isinstance(v, list), "a list")
_OBJECT: _Kind = (lambda v: isinstance(v, dict), "an object")
# A diverged run's loss is NaN.
_NUMBER: _Kind = (lambda v: type(v) is float or _whole(v, *_INT), "a number")
_TEXT: _Kind = (lambda v: isinstance(v, str) and _encodes(v), "a text")
_PERHAPS: _Kind = (lambda v: v is None or _whole(v, 0, 2**31 - 1), "null or a whole number")
_SEED: _Kind = (lambda v: _whole(v, *_INT), "a whole number of 64 bits")

_TOP = {
    "format": _COUNT,
    "iteration": (lambda v: _whole(v, 0, 2**31 - 1), "a whole number from 0 to 2^31 - 1"),
    "written": _NUMBER,
    "model": _OBJECT,
    "history_crc32": _CRC,
    "seed": (lambda v: v is None or _whole(v, *_INT), "null or a whole number of 64 bits"),
    "random": _LIST,
    "loss": _OBJECT,
    "nets": _LIST,
}
_MODEL = {"file": _TEXT, "bytes": _COUNT, "crc32": _CRC}
_LOSS = {
    "window": (lambda v: isinstance(v, list) and all(map(_NUMBER[0], v)), "a list of numbers"),
    "mean": _NUMBER,
    "since": _COUNT,
}
_BEST = {
    "top": _TEXT,
    "direction": (lambda v: v in ("max", "min"), "max or min"),
    "value": (lambda v: v is None or (_NUMBER[0](v) and v == v), "null or a number, not NaN"),
    "iteration": _PERHAPS,
    "since": _COUNT,
    "last": _PERHAPS,
}
# What is in a position depends on the layer's type, but a name means the same for all.
_POSITION = {
    "next": _COUNT,
    "samples": _COUNT,
    "seed": _SEED,
    "source": _TEXT,
    "contents": (
        lambda v: isinstance(v, dict) and all(map(_whole, v.values())),
        "an object of whole numbers",
    ),
}


def _check_keys(values: dict[str, Any], where: str, kinds: dict[str, _Kind]) -> None:
    for key, (fits, expected) in kinds.items():
        _need(key in values, f"{where}{key}", f"{expected}, and there is none")
        _need(fits(values[key]), f"{where}{key}", f"{expected}, got {_short(values[key])}")


def _check_random(state: Any, where: str) -> None:
    if state is None:
        return
    _need(isinstance(state, dict) and {*state} == {"cpu", "cuda"}, where, "null, or cpu and cuda")
    _check_keys(state, f"{where}.", {"cpu": _TEXT})
    generator = torch.Generator()
    try:
        generator.set_state(_from_text(state["cpu"]))
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"{where}.cpu: not a random state: {reason(error)}") from None
    if state["cuda"] is not None:
        _check_keys(state, f"{where}.", {"cuda": _TEXT})
        size = len(_from_text(state["cuda"]))
        _need(size == _CUDA_BYTES, f"{where}.cuda", f"{_CUDA_BYTES} bytes, got {size}")


_CUDA_BYTES = 16  # a seed and an offset


def _check_position(position: Any, where: str) -> None:
    _need(isinstance(position, dict), where, "an object")
    _check_keys(position, f"{where}.", {"layer": _TEXT, "type": _TEXT})
    if position["type"] != "Python":  # whose "state" may be anything
        known = {key: kind for key, kind in _POSITION.items() if key in position}
        _check_keys(position, f"{where}.", known)
    if "next" in position and "samples" in position:
        fits = position["next"] <= position["samples"]
        _need(fits, f"{where}.next", f"at most {position['samples']}")


def _need(fits: bool, where: str, expected: str) -> None:
    if not fits:
        raise ValueError(f"{where}: expected {expected}")


def _encodes(text: str) -> bool:
    """Whether a text is one that a name of a file or a layer can be."""
    try:
        return text.encode(errors="surrogateescape") is not None
    except UnicodeEncodeError:
        return False


def _short(value: Any) -> str:
    return (
        one_line(repr(value), 40) if isinstance(value, str | int | float) else type(value).__name__
    )


def _crc32(content: dict[str, Any]) -> int:
    """The CRC-32 of a side file's values, in their order, however the file is laid out."""
    rest = {key: value for key, value in content.items() if key != "crc32"}
    return zlib.crc32(json.dumps(rest, separators=(",", ":")).encode())


# -- resuming from it --------------------------------------------------------------------------


def point_of(state_file: PathLike, state: SolverStateData) -> Point | None:
    """The point that a snapshot's side file holds.

    None, with a log line, if there is no side file or it belongs to another snapshot. Raises
    CaffeError if it is damaged.
    """
    path = side_file(state_file)
    if not path.exists():
        _announce(f"No {path} beside it: data starts over, as in Caffe")
        return None
    content = read(path)
    mine = state.iter, history_crc32(state.history)
    if (content["iteration"], content["history_crc32"]) != mine:
        _announce(f"{path} is not {state_file}'s, but another's: data starts over", WARNING)
        return None
    return Point(*(content[key] for key in ("seed", "random", "loss", "nets", "best")))


# -- resuming ----------------------------------------------------------------------------------


def go_on(point: Point, iteration: int, seed: int, nets: Sequence[Net]) -> None:
    """Bring the nets' data and the random numbers back to where they were at `point`.

    What does not fit the snapshot starts over, with a warning. seed: this run's random_seed.
    """
    for i, net in enumerate(nets):
        _place(net, point.nets[i] if i < len(point.nets) else [])
    other = "dropout and fillers draw other numbers from here on"
    if seed >= 0 and seed != point.seed:
        _announce(f"random_seed is {seed}, the snapshot's was {point.seed}: {other}", WARNING)
        _reseed(seed, iteration)
        return
    rank, count = ranks.solver_rank(), ranks.solver_count()
    known = point.random[rank] if len(point.random) == count else None
    if known is None:
        then = f"The snapshot has the random states of {len(point.random)} process(es)"
        if len(point.random) == count:
            then = f"The snapshot lacks the random states of rank {rank}"
        _announce(f"{then}, this run has {count}: the data goes on, {other}", WARNING)
        _reseed(seeds.common_seed() if point.seed is None else point.seed, iteration)
        return
    torch.set_rng_state(_from_text(known["cpu"]))
    if device.current_device().type == "cuda" and torch.cuda.is_initialized():
        if known["cuda"] is not None:
            _set_cuda_state(known["cuda"])
        else:
            _announce("The snapshot was taken on a CPU: dropout draws other numbers on this GPU")


def _set_cuda_state(text: str) -> None:
    try:
        torch.cuda.set_rng_state(_from_text(text), device.current_device())
    except RuntimeError as error:
        raise CaffeError(f"the snapshot's CUDA state is damaged: {reason(error)}") from None


def _place(net: Net, positions: list[dict[str, Any]]) -> None:
    """Bring a net's data layers to their positions; layers are matched by name and type."""
    left = list(positions)
    for layer in net.wiring.layers:
        found = next((p for p in left if (p["layer"], p["type"]) == (layer.name, layer.type)), None)
        try:
            if found is not None:
                left.remove(found)
                layer.go_on(found)
            elif layer.position() is not None:
                raise CaffeError("the snapshot does not know it")
        except (CaffeError, KeyError, TypeError, ValueError) as error:
            reason = error if isinstance(error, CaffeError) else repr(error)
            _announce(f"{layer.where} ({layer.type}): its data starts over: {reason}", WARNING)
    for position in left:
        _announce(f"The snapshot's layer {position['layer']!r} is not in the net {net.name!r}")


def _announce(message: str, severity: int = INFO) -> None:
    if severity == INFO:
        tell(message, _PLACE)
    else:
        ranks.announce(_PLACE, message, severity)


def _reseed(seed: int, iteration: int) -> None:
    """Seed PyTorch so that the run's first numbers do not repeat; the same for each resumption."""
    entropy = [seed % 2**64, iteration, ranks.solver_rank()]
    seeds.seed_torch(int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0]))


def _to_text(state: torch.Tensor) -> str:
    return base64.b64encode(state.numpy().tobytes()).decode("ascii")


def _from_text(text: str) -> torch.Tensor:
    return torch.frombuffer(bytearray(base64.b64decode(text, validate=True)), dtype=torch.uint8)
