"""From a written NetParameter to the layers that run: applies rules and inserts Split layers."""

from __future__ import annotations

from collections import Counter

from caffe.errors import CaffeError
from caffe.process.ranks import announce
from caffe.proto import caffe_pb2 as pb


def filter_net(param: pb.NetParameter, quiet: bool = False) -> pb.NetParameter:
    """A copy with only the layers whose include and exclude rules fit the net's state.

    quiet: do not log which rule keeps a layer out. Raises CaffeError for a layer that has both
    kinds of rules.
    """
    kept = pb.NetParameter()
    kept.CopyFrom(param)
    del kept.layer[:]
    for layer in param.layer:
        if layer.include and layer.exclude:
            raise CaffeError(
                f"layer {layer.name!r}: specify either include rules or exclude rules, not both"
            )
        if layer.include:
            use = any(_meets(param.state, rule, layer.name, quiet) for rule in layer.include)
        else:
            use = not any(_meets(param.state, rule, layer.name, quiet) for rule in layer.exclude)
        if use:
            kept.layer.add().CopyFrom(layer)
    return kept


def layers_in(param: pb.NetParameter, phase: int) -> list[pb.LayerParameter]:
    """The layers of a net in a phase (caffe.TRAIN or TEST), at its own state's level and stages."""
    net = pb.NetParameter()
    net.CopyFrom(param)
    net.state.phase = phase
    return list(filter_net(net, quiet=True).layer)


def _meets(state: pb.NetState, rule: pb.NetStateRule, name: str, quiet: bool) -> bool:
    line, why = _misfit(state, rule)
    if why and not quiet:
        announce(f"net.cpp:{line}", f"The NetState {why} specified by a rule in layer {name}")
    return not why


def _misfit(state: pb.NetState, rule: pb.NetStateRule) -> tuple[int, str]:
    """Why a rule is not met, and the line of net.cpp that says so; an empty text if it is."""
    if rule.HasField("phase") and rule.phase != state.phase:
        return 296, f"phase ({state.phase}) differed from the phase ({rule.phase})"
    if rule.HasField("min_level") and state.level < rule.min_level:
        # "above" is Caffe's own word here.
        return 306, f"level ({state.level}) is above the min_level ({rule.min_level})"
    if rule.HasField("max_level") and state.level > rule.max_level:
        return 316, f"level ({state.level}) is above the max_level ({rule.max_level})"
    for stage in rule.stage:
        if stage not in state.stage:
            return 332, f"did not contain stage '{stage}'"
    for stage in rule.not_stage:
        if stage in state.stage:
            return 347, f"contained a not_stage '{stage}'"
    return 0, ""


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


def second_maker(layer: pb.LayerParameter, index: int) -> CaffeError:
    return CaffeError(
        f"layer {layer.name!r}: top blob {layer.top[index]!r} is made by several layers; in place "
        "means that it is bottom and top of one layer at the same position"
    )


def _name(param: pb.NetParameter, top: tuple[int, int], blob: str) -> str:
    return f"{blob}_{param.layer[top[0]].name}_{top[1]}_split"
