"""upgrade_net_proto_binary FILE_IN FILE_OUT: bring a .caffemodel of any age to today's format."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from caffe.formats import files, wire
from caffe.formats.upgrade import Log, needs_upgrade, upgrade_net
from caffe.proto import caffe_pb2 as pb
from caffe.tools.upgrading import Tool

Model = tuple[pb.NetParameter, list[wire.Blob]]  # the weights are kept apart, unchanged


def _upgrade(model: Model, path: str, log: Log) -> Model:
    return upgrade_net(model[0], path, log), model[1]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the tool; returns the exit status."""
    return Tool(
        "upgrade_net_proto_binary",
        "NetParameter binary proto",
        files.read_model,
        lambda model: needs_upgrade(model[0]),
        _upgrade,
        lambda path, model: files.write_model(path, *model),
    ).main(arguments)


if __name__ == "__main__":
    sys.exit(main())
