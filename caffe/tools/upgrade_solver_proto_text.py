"""upgrade_solver_proto_text FILE_IN FILE_OUT: replace a solver's solver_type by today's `type`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from caffe.formats import files
from caffe.formats.upgrade import solver_needs_upgrade, upgrade_solver
from caffe.proto import caffe_pb2 as pb
from caffe.tools.upgrading import Tool


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the tool; returns the exit status."""
    return Tool(
        "upgrade_solver_proto_text",
        "SolverParameter text proto",
        lambda path: files.read_text(path, pb.SolverParameter),
        solver_needs_upgrade,
        upgrade_solver,
        files.write_text,
    ).main(arguments)


if __name__ == "__main__":
    sys.exit(main())
