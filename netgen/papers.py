"""The papers' networks and solvers, which are the contents of the folder prototxt/."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from google.protobuf import text_format

from caffe.errors import CaffeError
from caffe.formats import files
from caffe.proto.caffe_pb2 import NetParameter
from netgen.arguments import parse
from netgen.datasets import DATASETS
from netgen.fusenet import BASELINES
from netgen.texts import net_text, solver_text

# Sparse fusion after each number of blocks, the dense fusion with published results, and the
# baselines that they are compared with.
PAPER_NETS = ("sf1", "sf2", "sf3", "sf4", "sf5", "df1", *BASELINES)
PAPER_DATASETS = ("nyuv2-40", "sunrgbd-37")
# The folder's path from where `caffe train` is run.
FOLDER = "prototxt"


def paper_files() -> Iterator[tuple[str, str]]:
    """The path, relative to the folder, and the text of every file."""
    for name in PAPER_DATASETS:
        images = DATASETS[name].images
        for net in PAPER_NETS:
            train = _net_text(net, "--dataset", name)
            yield f"{name}/{net}/train.prototxt", train
            yield f"{name}/{net}/deploy.prototxt", _net_text(net, "--dataset", name, "--deploy")
            argv = ["solver", "--net", f"{FOLDER}/{name}/{net}/train.prototxt"]
            argv += ["--train-images", str(images[0]), "--test-images", str(images[1])]
            solver, _ = solver_text(parse(argv), text_format.Parse(train, NetParameter()))
            yield f"{name}/{net}/solver.prototxt", solver


def write_papers(folder: str) -> list[Path]:
    """Write every file below `folder`; returns their paths.

    Raises CaffeError where one cannot be written.
    """
    written = []
    for name, text in paper_files():
        path = Path(folder, name)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CaffeError(f"{path.parent}: cannot be made: {error.strerror}") from None
        with files.atomic_write(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
        written.append(path)
    return written


def _net_text(*argv: str) -> str:
    text, _ = net_text(parse(list(argv)))  # warnings would concern LMDBs in the working directory
    return text
