"""Settles what a layer means where forks of Caffe use one name in two ways and nothing else tells.

Mostly the parameters, bottoms and blobs decide, and the layer's class says how (docs/forks.md). A
layer without parameters leaves it open. Then a comment in the net's text does, a line of its own,

    # fork: SegNet

or, for texts that have none, the user: caffe.set_fork, the flag -fork, or CAFFE_FORK.
"""

from __future__ import annotations

import os
import re

from google.protobuf import text_format

from caffe.errors import CaffeError
from caffe.process.log import WARNING
from caffe.process.ranks import announce
from caffe.proto import caffe_pb2 as pb

# The setting is this variable, so that processes started by this one have it, too.
VARIABLE = "CAFFE_FORK"

_COMMENT = re.compile(rb"^[ \t]*#[ \t]*fork:[ \t]*([^\r\n]*?)[ \t]*\r?$", re.MULTILINE)

_SEGNET = {"BN": "bn_param { bn_mode: LEARN }"}
# Fork -> type -> the parameters that say it is this fork's layer.
MEANINGS: dict[str, dict[str, str]] = {
    "SSD": {"Normalize": "norm_param { }"},
    "caffe-windows": {
        "Normalize": "normalize_param { }",
        "BN": "bn_param { moving_average: true }",
    },
    "SegNet": _SEGNET,
    "ENet": _SEGNET,
    "DeconvNet": _SEGNET,
    "PSPNet": {"BN": "bn_param { momentum: 0.9 }"},
    "TSN": {"BN": "bn_param { momentum: 0.9 }"},
    "FlowNet2": {"L1Loss": "l1_loss_param { }"},
    "NVCaffe": {},
    "caffe-lstm": {"Lstm": "lstm_param { batch_size: 1 }"},
    "CTPN": {},
}


def set_fork(name: str) -> None:
    """The fork of Caffe whose meaning a layer has if its name has several and its parameters leave
    it open: "SegNet", ... (MEANINGS); "": none, the default of each layer's class.

    It holds for nets read from now on, here and in processes started later, unless a text has a
    comment of its own. The environment variable CAFFE_FORK starts with a fork.

    Raises CaffeError for a fork that is not known.
    """
    os.environ[VARIABLE] = _known(name, "set_fork") if name else ""


def settle(net: pb.NetParameter, text: bytes, source: str) -> None:
    """Give the layers of a net that leave their meaning open the parameters that tell it.

    text: the net's text, which may name the fork in a comment. source: its name, for messages. A
    comment that names another fork is a stranger's, perhaps: it has no effect, and a warning says
    so.

    Raises CaffeError if CAFFE_FORK is not known.
    """
    fork = _commented(text, source)
    if not fork and (name := os.environ.get(VARIABLE, "")):
        fork = _known(name, VARIABLE)
    if not fork:
        return
    for layer in net.layer:
        meaning = MEANINGS[fork].get(layer.type)
        if meaning is not None and not _says(layer, layer.type):
            text_format.Merge(meaning, layer)


def _commented(text: bytes, source: str) -> str:
    """The fork that a text names in a comment; empty if it names none that is known."""
    found = _COMMENT.search(text)
    if found is None:
        return ""
    try:
        return _known(found[1].decode(errors="replace"), f"{source}: the comment '# fork:'")
    except CaffeError as error:
        announce("upgrade_proto.cpp:1", f"{error}; it has no effect", WARNING)
        return ""


def _says(layer: pb.LayerParameter, kind: str) -> bool:
    """Whether a layer has any of the parameters by which forks tell their meanings of its type."""
    fields = {texts[kind].split()[0] for texts in MEANINGS.values() if kind in texts}
    return any(layer.HasField(field) and getattr(layer, field).ListFields() for field in fields)


def _known(name: str, where: str) -> str:
    """The fork's name as MEANINGS has it. Raises CaffeError if it is not there."""
    for fork in MEANINGS:
        if fork.lower() == name.strip().lower():
            return fork
    raise CaffeError(f"{where}: unknown fork {name!r}; expected one of {', '.join(MEANINGS)}")
