"""Which of a net's layers a phase has."""

from __future__ import annotations

from caffe import TEST, TRAIN
from caffe.proto.caffe_pb2 import LayerParameter, NetParameter, NetState, NetStateRule

PHASES = {"train": TRAIN, "test": TEST}


def layers_in(net: NetParameter, phase: int) -> list[LayerParameter]:
    """The layers whose `include` and `exclude` rules admit the phase (caffe.TRAIN or TEST), at the
    level and with the stages that the net states."""
    state = NetState()
    state.CopyFrom(net.state)
    state.phase = phase
    return [layer for layer in net.layer if _admitted(layer, state)]


def default_phase(net: NetParameter) -> int:
    """TRAIN for a net that has layers for training alone, such as its data; else TEST."""
    train, test = layers_in(net, TRAIN), layers_in(net, TEST)
    return TRAIN if any(layer not in test for layer in train) else TEST


def _admitted(layer: LayerParameter, state: NetState) -> bool:
    # Without include rules a layer is in unless excluded; with them it is out unless included.
    if layer.include:
        return any(_meets(rule, state) for rule in layer.include)
    return not any(_meets(rule, state) for rule in layer.exclude)


def _meets(rule: NetStateRule, state: NetState) -> bool:
    return not (
        (rule.HasField("phase") and rule.phase != state.phase)
        or (rule.HasField("min_level") and state.level < rule.min_level)
        or (rule.HasField("max_level") and state.level > rule.max_level)
        or set(rule.stage) - set(state.stage)
        or set(rule.not_stage) & set(state.stage)
    )
