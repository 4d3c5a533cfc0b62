"""Plans and the layer loop agree on every layer type, over the cases of its row.

They agree on outputs, gradients and statistics in both phases. Tensors have the number types that
the plan states.
"""

from __future__ import annotations

import random
import zlib

import numpy as np
import pytest
import torch
from cases import TABLE, Case, draws, from_outside, layer_param, values

import caffe
from caffe.layers.base import REGISTRY
from caffe.plan.build import can_plan
from caffe.plan.plan import Plan
from caffe.proto import caffe_pb2 as pb

DRAWS = 4
NAMES = sorted(name for name in TABLE if not from_outside(name) and name != "Filter")


def net_param(name: str, case: Case, phase: int) -> pb.NetParameter:
    """The layer on inputs; in TRAIN on Parameter layers where a bottom gets a gradient, and under a
    loss for each top that is not one.
    """
    param = pb.NetParameter()
    layer = layer_param(name, case.param, len(case.shapes), phase)
    layer.ClearField("phase")
    row, c = TABLE[name], REGISTRY[name]
    wanted = [i for i in range(len(case.shapes)) if i not in c.labels]
    wanted = wanted if row.gradient is None else [i for i in wanted if i in row.gradient]
    for i, shape in enumerate(case.shapes):
        learned = i in wanted and phase == caffe.TRAIN
        kind = "Parameter" if learned else "Input"
        source = param.layer.add(name=f"in{i}", type=kind, top=[f"in{i}"])
        if learned:
            source.parameter_param.shape.dim.extend(shape)
        else:
            source.input_param.shape.add(dim=shape)
        layer.bottom[i] = f"in{i}"
    param.layer.append(layer)
    for i, top in enumerate(layer.top):
        if phase == caffe.TRAIN and not (c.loss and i == 0) and row.gradient != ():
            name = f"loss{i}"
            loss = param.layer.add(name=name, type="Power", bottom=[top], top=[name])
            loss.power_param.power = 2
            loss.loss_weight.append(0.5)
    return param


def filled(param: pb.NetParameter, case: Case, phase: int, seed: int) -> caffe.Net:
    net = caffe.Net(param, phase)
    kinds = [*(case.kinds or ("real",) * len(case.shapes))]
    for i, (shape, kind) in enumerate(zip(case.shapes, kinds, strict=False)):
        blob = net.params[f"in{i}"][0] if f"in{i}" in net.params else net.blobs[f"in{i}"]
        blob.data[...] = values(kind, shape, seed + i).numpy()
    for blob in net.params.get("l", []):
        blob.data[...] = values("positive", blob.shape, seed).numpy()
    return net


def close(a: np.ndarray, b: np.ndarray, what: str) -> None:
    scale = max(1.0, float(np.abs(a).max(initial=0)))
    np.testing.assert_allclose(b, a, rtol=0, atol=1e-5 * scale, err_msg=what)


@pytest.mark.parametrize("phase", [caffe.TRAIN, caffe.TEST], ids=["TRAIN", "TEST"])
@pytest.mark.parametrize("name", NAMES)
def test_drawn_layers(name: str, phase: int, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for draw in draws(name, DRAWS):
        seed = zlib.crc32(f"{name} plan {draw}".encode())
        case = TABLE[name].draw(random.Random(seed))
        if case.files is not None:
            case.files()
        param = net_param(name, case, phase)
        layers, plan = (filled(param, case, phase, seed) for _ in range(2))
        plan.observed = False
        outs = []
        for net in (layers, plan):
            caffe.set_random_seed(seed)
            outs.append({k: v.copy() for k, v in net.forward().items()})
            if phase == caffe.TRAIN:
                net.backward()
        assert plan.plan is not None
        for output, found in outs[0].items():
            close(found, outs[1][output], f"{param}: {output}")
        for key, blobs in layers.params.items():
            for i, (a, b) in enumerate(zip(blobs, plan.params[key], strict=True)):
                close(a.data, b.data, f"{param}: {key} {i}")
                close(a.diff, b.diff, f"{param}: gradient of {key} {i}")


@pytest.mark.parametrize("phase", [caffe.TRAIN, caffe.TEST], ids=["TRAIN", "TEST"])
@pytest.mark.parametrize("name", NAMES)
def test_values_have_the_number_types_that_the_plan_states(
    name: str, phase: int, tmp_path, monkeypatch
) -> None:
    """In bf16; a value may be float32 where bfloat16 is stated, but not the other way."""
    monkeypatch.chdir(tmp_path)
    caffe.set_precision("bf16")
    for draw in draws(name, DRAWS):
        seed = zlib.crc32(f"{name} plan {draw}".encode())
        case = TABLE[name].draw(random.Random(seed))
        if case.files is not None:
            case.files()
        net = filled(net_param(name, case, phase), case, phase, seed)
        made = Plan(net.wiring, train=phase == caffe.TRAIN)
        stated = made.program.numbers
        for node in made.nodes:
            node.run = _watched(node, stated)
        made.forward()


def _watched(node, stated):
    run = node.run

    def watched(bottom, blobs):
        if not node.any_number:
            assert all(x.dtype != torch.bfloat16 for x in bottom), node.name
        tops = run(bottom, blobs)
        for value, top in zip(node.top, tops, strict=True):
            allowed = {stated[value], torch.float32} - (
                {torch.float32} if stated[value] == torch.int64 else set()
            )
            assert top.dtype in allowed, f"{node.name}: {top.dtype}, stated {stated[value]}"
        return tops

    return watched


def test_layers_from_outside_have_plans_or_the_layer_loop() -> None:
    """Python layers and HDF5Output work on blobs; sources without bottoms do not hinder a plan."""
    for name in ("Python", "HDF5Output"):
        assert REGISTRY[name].forward_blobs is not caffe.layers.base.Layer.forward_blobs
    net = caffe.Net(net_param("ReLU", Case(shapes=[[2, 3]]), caffe.TEST), caffe.TEST)
    assert can_plan(net.wiring)


@pytest.mark.parametrize("phase", [caffe.TRAIN, caffe.TEST], ids=["TRAIN", "TEST"])
@pytest.mark.parametrize("name", NAMES)
def test_values_that_are_not_finite(name: str, phase: int, tmp_path, monkeypatch) -> None:
    """One in the first bottom or in a parameter: both give it, or refuse it, alike."""
    monkeypatch.chdir(tmp_path)
    for k, value in enumerate((np.nan, np.inf, -np.inf)):
        seed = zlib.crc32(f"{name} {k}".encode())
        case = TABLE[name].draw(random.Random(seed))
        if case.files is not None:
            case.files()
        param = net_param(name, case, phase)
        for where in ("in0", "l"):
            outs: list[dict[str, np.ndarray] | str] = []
            for observed in (True, False):
                net = filled(param, case, phase, seed)
                net.observed = observed
                parameters = net.params.get(where)
                blob = parameters[0] if parameters else net.blobs.get(where)
                if blob is None or not blob.count:
                    continue
                blob.data.reshape(-1)[blob.count // 2] = value
                caffe.set_random_seed(seed)
                outs.append(_outcome(net, phase))
            assert not outs or _same(*outs), f"{param}: {value} in {where}: {outs}"


def _outcome(net: caffe.Net, phase: int) -> dict[str, np.ndarray] | str:
    try:
        found = {k: v.copy() for k, v in net.forward().items()}
        if phase == caffe.TRAIN:
            net.backward()
    except caffe.CaffeError as error:
        return str(error)
    for key, blobs in net.params.items():
        for i, blob in enumerate(blobs):
            found[f"{key} {i}"] = blob.data.copy()
            found[f"{key} {i} diff"] = blob.diff.copy()
    return found


def _same(a: dict[str, np.ndarray] | str, b: dict[str, np.ndarray] | str) -> bool:
    if isinstance(a, str) or isinstance(b, str):
        return a == b
    return all(np.allclose(a[key], b[key], 1e-4, 1e-4, equal_nan=True) for key in a)
