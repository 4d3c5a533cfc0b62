"""`python -m caffe` is the `caffe` command; also where the installed commands start.

Their modules load slowly, and an interrupt meanwhile ends the process at once.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module

from boundary.interrupts import end_at_once


def _command(module: str) -> Callable[[], int]:
    def main() -> int:
        end_at_once()
        return import_module(module).main()

    return main


caffe = _command("caffe.commands.cli")
convert_imageset = _command("caffe.tools.convert_imageset")
compute_image_mean = _command("caffe.tools.compute_image_mean")
upgrade_net_proto_text = _command("caffe.tools.upgrade_net_proto_text")
upgrade_net_proto_binary = _command("caffe.tools.upgrade_net_proto_binary")
upgrade_solver_proto_text = _command("caffe.tools.upgrade_solver_proto_text")

if __name__ == "__main__":
    sys.exit(caffe())
