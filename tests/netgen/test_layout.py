"""Layouts of drawings: columns and lanes of the boxes."""

from __future__ import annotations

from caffe import TEST
from caffe.graph.rules import layers_in
from netgen import Architecture, deploy_net
from netgen.graph import build
from netgen.layout import arrange


def test_fusion_runs_side_by_side_and_the_decoder_back_beneath() -> None:
    net = deploy_net(Architecture("sf5", 40, (320, 240)))
    found, arrows = build(layers_in(net, TEST))
    layout = arrange(found, arrows)
    boxes = {box.layer.name: box for box in found}
    column = {name: layout.column[box] for name, box in boxes.items()}
    lane = {name: layout.lane[box] for name, box in boxes.items()}
    for name in boxes:
        if name.endswith("_pair"):
            assert column[name] == column[name.removesuffix("_pair")]
            assert lane[name] == lane["depth"] != lane["rgb"]
    for k in range(1, 6):
        assert column[f"unpool{k}"] == column[f"pool{k}"]
        assert lane[f"conv{k}_fuse"] == lane[f"pool{k}"] == lane["rgb"]
        assert lane[f"unpool{k}"] == lane["score"] > lane["rgb"]
    assert column["unpool5"] > column["conv5_3_D"] > column["unpool4"] > column["score"]
