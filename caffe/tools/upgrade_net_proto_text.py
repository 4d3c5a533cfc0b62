"""upgrade_net_proto_text FILE_IN FILE_OUT: bring a net prototxt of any age to today's format."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from caffe.formats import files
from caffe.formats.upgrade import needs_upgrade, upgrade_net
from caffe.proto import caffe_pb2 as pb
from caffe.tools.upgrading import Tool


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the tool; returns the exit status."""
    return Tool(
        "upgrade_net_proto_text",
        "NetParameter text proto",
        lambda path: files.read_text(path, pb.NetParameter),
        needs_upgrade,
        upgrade_net,
        files.write_text,
    ).main(arguments)


if __name__ == "__main__":
    sys.exit(main())
