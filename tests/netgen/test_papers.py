"""prototxt/ holds what netgen makes today, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from caffe.formats import files
from netgen.papers import paper_files, write_papers

FOLDER = Path(__file__).parents[2] / "prototxt"
PAPERS = dict(paper_files())


@pytest.mark.parametrize("name", PAPERS)
def test_file_is_up_to_date(name: str) -> None:
    # If this fails after a change that is meant: python -m netgen papers prototxt
    assert (FOLDER / name).read_text() == PAPERS[name]


def test_no_other_prototxt() -> None:
    assert {str(p.relative_to(FOLDER)) for p in FOLDER.rglob("*.prototxt")} == set(PAPERS)


def test_the_papers_networks_are_there() -> None:
    for dataset in ("nyuv2-40", "sunrgbd-37"):
        for net in ("sf1", "sf2", "sf3", "sf4", "sf5", "df1", "rgb", "depth", "rgbd"):
            for kind in ("train", "deploy", "solver"):
                assert f"{dataset}/{net}/{kind}.prototxt" in PAPERS


def test_written_files_parse_and_solvers_name_their_nets(tmp_path: Path) -> None:
    for path in write_papers(str(tmp_path)):
        if path.name == "solver.prototxt":
            solver = files.read_solver(path)
            assert solver.net == f"prototxt/{path.parent.relative_to(tmp_path)}/train.prototxt"
        else:
            assert files.read_net(path).layer
