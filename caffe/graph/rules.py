"""From a NetParameter as it is written to the layers that run: rules, and Split layers."""

from __future__ import annotations

from collections import Counter

from caffe.errors import CaffeError
from caffe.process.ranks import announce
from caffe.proto import caffe_pb2 as pb


def filter_net(param: pb.NetParameter) -> pb.NetParameter:
    """A copy with only the layers whose include and exclude rules fit the net's state."""
    kept = pb.NetParameter()
    kept.CopyFrom(param)
    del kept.layer[:]
    for layer in param.layer:
        if layer.include and layer.exclude:
            raise CaffeError(
                f"layer {layer.name!r}: specify either include rules or exclude rules, not both"
            )
        if layer.include:
            use = any(_meets(param.state, rule, layer.name) for rule in layer.include)
        else:
            use = not any(_meets(param.state, rule, layer.name) for rule in layer.exclude)
        if use:
            kept.layer.add().CopyFrom(layer)
    return kept


def _meets(state: pb.NetState, rule: pb.NetStateRule, name: str) -> bool:
    reason = None
    if rule.HasField("phase") and rule.phase != state.phase:
        reason = f"phase ({state.phase}) differed from the phase ({rule.phase})"
        line = 296
    elif rule.HasField("min_level") and state.level < rule.min_level:
        reason = f"level ({state.level}) is above the min_level ({rule.min_level})"
        line = 306
    elif rule.HasField("max_level") and state.level > rule.max_level:
        reason = f"level ({state.level}) is above the max_level ({rule.max_level})"
        line = 316
    if reason is not None:
        message = f"The NetState {reason} specified by a rule in layer {name}"
        announce(f"net.cpp:{line}", message)
        return False
    for stage in rule.stage:
        if stage not in state.stage:
            message = f"The NetState did not contain stage '{stage}' specified by a rule in layer"
            announce("net.cpp:332", f"{message} {name}")
            return False
    for stage in rule.not_stage:
        if stage in state.stage:
            message = f"The NetState contained a not_stage '{stage}' specified by a rule in layer"
            announce("net.cpp:347", f"{message} {name}")
            return False
    return True


def insert_splits(param: pb.NetParameter) -> pb.NetParameter:
    """A copy in which a top that several layers take goes through a Split layer.

    A loss weight counts as one more taker. Names are Caffe's (insert_splits.cpp):
    <blob>_<layer>_<i>_split, and _<j> behind it for its tops.
    """
    made_by: dict[str, tuple[int, int]] = {}  # blob -> (layer, top) that made its newest version
    sources: dict[tuple[int, int], tuple[int, int]] = {}  # (layer, bottom) -> (layer, top)
    takers: Counter[tuple[int, int]] = Counter()
    weights: dict[tuple[int, int], float] = {}
    for i, layer in enumerate(param.layer):
        for j, blob in enumerate(layer.bottom):
            if blob not in made_by:
                raise unknown_bottom(layer, j)
            sources[i, j] = made_by[blob]
            takers[made_by[blob]] += 1
        for j, blob in enumerate(layer.top):
            made_by[blob] = (i, j)
        for j, weight in enumerate(layer.loss_weight[: len(layer.top)]):
            if weight:
                weights[i, j] = weight
                takers[i, j] += 1

    split = pb.NetParameter()
    split.CopyFrom(param)
    del split.layer[:]
    given: Counter[tuple[int, int]] = Counter()
    for i, original in enumerate(param.layer):
        layer = split.layer.add()
        layer.CopyFrom(original)
        for j, blob in enumerate(original.bottom):
            top = sources[i, j]
            if takers[top] > 1:
                layer.bottom[j] = f"{_name(param, top, blob)}_{given[top]}"
                given[top] += 1
        for j, blob in enumerate(original.top):
            if takers[i, j] <= 1:
                continue
            name = _name(param, (i, j), blob)
            added = split.layer.add(name=name, type="Split", bottom=[blob])
            added.top.extend(f"{name}_{k}" for k in range(takers[i, j]))
            if (i, j) in weights:
                added.loss_weight.extend([weights[i, j]] + [0.0] * (takers[i, j] - 1))
                del layer.loss_weight[:]
                given[i, j] += 1
    return split


def unknown_bottom(layer: pb.LayerParameter, index: int) -> CaffeError:
    return CaffeError(
        f"layer {layer.name!r}: unknown bottom blob {layer.bottom[index]!r} (bottom {index}); "
        "no layer before it makes that blob, or one has already replaced it in place"
    )


def _name(param: pb.NetParameter, top: tuple[int, int], blob: str) -> str:
    return f"{blob}_{param.layer[top[0]].name}_{top[1]}_split"
