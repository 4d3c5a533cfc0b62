"""The side file of a snapshot, PREFIX_iter_N.resume, holds what Caffe's own two files leave out.

With it a resumed run repeats the uninterrupted one bit for bit. It holds the nets' positions in
their data, the random states, and the losses behind the displayed mean. Caffe ignores the file and
starts its data over. It is JSON:

    format        1
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
"""

from __future__ import annotations

import base64
import json
import os
import time
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from caffe.errors import CaffeError
from caffe.formats.files import PathLike, SolverStateData, atomic_write
from caffe.net import Net
from caffe.process import device, ranks, seeds
from caffe.process.log import INFO, WARNING
from caffe.process.peers import gather

FORMAT = 1
_PLACE = "resume.py:1"  # for log lines that have no counterpart in Caffe


@dataclass
class LossWindow:
    """The losses behind the displayed mean, and the iteration at which they began."""

    window: list[float]
    mean: float
    since: int


@dataclass
class Point:
    """The state of a run beside weights and history; the fields are those of the side file."""

    seed: int | None
    random: list[dict[str, str | None] | None]
    loss: LossWindow
    nets: list[list[dict[str, Any]]]


def side_file(state_file: PathLike) -> Path:
    """The side file that goes with a .solverstate or .solverstate.h5."""
    path = os.fspath(state_file)
    for suffix in (".solverstate", ".solverstate.h5"):
        if path.endswith(suffix):
            return Path(path.removesuffix(suffix) + ".resume")
    return Path(path + ".resume")


# -- capturing ---------------------------------------------------------------------------------


def capture(seed: int, nets: Sequence[Net], loss: LossWindow, together: bool) -> Point:
    """The state of a run now. together: all processes call this, and share their random states."""
    own = _random_state()
    rank, count = ranks.solver_rank(), ranks.solver_count()
    states = [own if i == rank else None for i in range(count)]
    if together:
        states = gather(own)
    return Point(seed if seed >= 0 else None, states, loss, [_positions(net) for net in nets])


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


def write(path: PathLike, point: Point, model: PathLike, state: SolverStateData) -> None:
    """Write a snapshot's side file, after its model and before its .solverstate.

    Raises CaffeError if a Python layer's get_state() returned something that JSON cannot hold.
    """
    content = {
        "format": FORMAT,
        "iteration": state.iter,
        "written": time.time(),
        "model": fingerprint(model),
        "history_crc32": history_crc32(state.history),
        **asdict(point),
    }
    try:
        text = json.dumps(content, indent=1)
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
    """A side file's content. Raises CaffeError if it cannot be read or is damaged."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise CaffeError(f"{path}: format {content['format']}; expected {FORMAT}")
        for key, kind in (("iteration", int), ("written", float), ("model", dict),
                          ("history_crc32", int), ("random", list), ("nets", list)):  # fmt: skip
            if not isinstance(content[key], kind):
                raise ValueError(f"{key} is {content[key]!r}")
        if not isinstance(content["model"]["file"], str):
            raise ValueError(f"model is {content['model']!r}")
        content["loss"] = LossWindow(**content["loss"])
    except OSError as error:
        raise CaffeError(f"{path}: {error.strerror or error}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CaffeError(
            f"{path}: damaged ({error!r}); expected the side file of a snapshot. Without it the "
            "data starts over: remove it if that will do"
        ) from None
    return content


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
    return Point(content["seed"], content["random"], content["loss"], content["nets"])


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
            torch.cuda.set_rng_state(_from_text(known["cuda"]), device.current_device())
        else:
            _announce("The snapshot was taken on a CPU: dropout draws other numbers on this GPU")


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
    ranks.announce(_PLACE, message, severity)


def _reseed(seed: int, iteration: int) -> None:
    """Seed PyTorch so that the run's first numbers do not repeat; the same for each resumption."""
    entropy = [seed % 2**64, iteration, ranks.solver_rank()]
    seeds.seed_torch(int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0]))


def _to_text(state: torch.Tensor) -> str:
    return base64.b64encode(state.numpy().tobytes()).decode("ascii")


def _from_text(text: str) -> torch.Tensor:
    return torch.frombuffer(bytearray(base64.b64decode(text)), dtype=torch.uint8)
