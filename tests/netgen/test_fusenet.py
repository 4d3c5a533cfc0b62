"""The networks: names and shapes of the released ones, and what the options change."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import pytest

from caffe import TEST, TRAIN
from caffe.errors import CaffeError
from caffe.graph.rules import layers_in
from caffe.graph.sketch import sketch
from caffe.proto.caffe_pb2 import DataParameter, LayerParameter, NetParameter
from netgen import NETS, Architecture, Training, deploy_net, train_net
from netgen.summary import show

GOLDEN = Path(__file__).parents[1] / "golden" / "fusenet"
RELEASED = [
    ("sf1_nyu40", Architecture("sf1", 40, (320, 240))),
    ("sf5_nyu40", Architecture("sf5", 40, (320, 240))),
    ("sf5_sunrgbd37", Architecture("sf5", 37, (224, 224))),
]
TRAINING = Training("a/train", "a/test")


def by_name(net: NetParameter) -> dict[str, LayerParameter]:
    return {layer.name: layer for layer in net.layer}


def of_type(net: NetParameter, *types: str) -> list[LayerParameter]:
    return [layer for layer in net.layer if layer.type in types]


def arch(net: str = "sf5", size: tuple[int, int] = (320, 240), **options) -> Architecture:
    return Architecture(net, options.pop("classes", 12), size, **options)


@pytest.mark.parametrize(("name", "released"), RELEASED, ids=[name for name, _ in RELEASED])
def test_layers_of_the_released_networks(name: str, released: Architecture) -> None:
    with (GOLDEN / f"{name}_layers.csv").open() as file:
        expected = [tuple(row.values()) for row in csv.DictReader(file)]
    found = [
        (item.layer.name, item.layer.type, " ".join(map(show, item.params)))
        for item in sketch(deploy_net(released), TEST)
        if item.layer.type != "Input"
    ]
    assert found == expected


@pytest.mark.parametrize(("name", "released"), RELEASED, ids=[name for name, _ in RELEASED])
def test_blobs_of_the_released_networks(name: str, released: Architecture) -> None:
    expected = (GOLDEN / f"{name}_blobs.txt").read_text().split()
    blobs = [top for layer in deploy_net(released).layer for top in layer.top]
    assert list(dict.fromkeys(blobs)) == expected


@pytest.mark.parametrize("fusions", range(1, 6))
def test_sparse_fusion_adds_depth_before_the_first_poolings(fusions: int) -> None:
    net = deploy_net(arch(f"sf{fusions}"))
    fuse = {layer.name: list(layer.bottom) for layer in of_type(net, "Eltwise")}
    last = {1: 2, 2: 2, 3: 3, 4: 3, 5: 3}
    assert fuse == {
        f"conv{k}_fuse": [f"conv{k}_{last[k]}", f"conv{k}_{last[k]}_pair"]
        for k in range(1, fusions + 1)
    }
    for k in range(1, 6):
        before = f"conv{k}_fuse" if k <= fusions else f"conv{k}_{last[k]}_scale"
        assert list(by_name(net)[f"pool{k}"].bottom) == [before]


@pytest.mark.parametrize("fusions", range(1, 6))
def test_dense_fusion_adds_depth_after_every_convolution(fusions: int) -> None:
    net = deploy_net(arch(f"df{fusions}"))
    layers = by_name(net)
    convolutions = [(k, i) for k, n in enumerate((2, 2, 3, 3, 3), 1) for i in range(1, n + 1)]
    fused = [(k, i) for k, i in convolutions if k <= fusions]
    fuse = [list(layer.bottom) for layer in of_type(net, "Eltwise")]
    assert fuse == [[f"conv{k}_{i}", f"conv{k}_{i}_pair"] for k, i in fused]
    # Each sum is what the next convolution takes; the depth branch goes on by itself.
    assert list(layers["conv1_2"].bottom) == ["conv1_1_fuse"]
    assert list(layers["conv1_2_pair"].bottom) == ["conv1_1_pair"]
    assert list(layers["pool1"].bottom) == ["conv1_fuse"]
    # What sparse fusion learns has the same names and shapes here.
    sparse = deploy_net(arch(f"sf{fusions}"))
    shapes = [
        {item.layer.name: item.params for item in sketch(n, TEST) if item.params}
        for n in (net, sparse)
    ]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("net", NETS)
def test_the_depth_branch_ends_with_its_last_fusion(net: str) -> None:
    taken = Counter(b for layer in deploy_net(arch(net)).layer for b in layer.bottom)
    made = [t for layer in deploy_net(arch(net)).layer for t in layer.top]
    assert [blob for blob in dict.fromkeys(made) if not taken[blob]] == ["prob"]


def test_baselines_and_their_inputs() -> None:
    first = {}
    for net in ("rgb", "depth", "rgbd"):
        layers = sketch(deploy_net(arch(net)), TEST)
        inputs = [item.layer.name for item in layers if item.layer.type == "Input"]
        conv = next(item for item in layers if item.layer.type == "Convolution")
        first[net] = (inputs, conv.layer.name, conv.params[0])
        assert not of_type(deploy_net(arch(net)), "Eltwise")
    assert first == {
        "rgb": (["rgb"], "conv1_1", (64, 3, 3, 3)),
        "depth": (["depth"], "conv1_1_1ch", (64, 1, 3, 3)),
        "rgbd": (["rgb", "depth"], "conv1_1_4ch", (64, 4, 3, 3)),
    }


@pytest.mark.parametrize("net", NETS)
def test_nothing_of_the_data_becomes_an_output(net: str) -> None:
    param = train_net(arch(net), TRAINING)
    for phase in (TRAIN, TEST):
        layers = layers_in(param, phase)
        taken = {b for layer in layers for b in layer.bottom}
        made = {t for layer in layers for t in layer.top}
        assert made - taken == {"loss", "accuracy"}


def test_data_layers() -> None:
    training = Training("a/train", "a/test", batch_size=7, test_batch_size=2)
    net = train_net(arch(), training)
    train, test = of_type(net, "Data")
    assert (train.name, list(train.top)) == (test.name, list(test.top)) == ("data", ["data"])
    assert (train.include[0].phase, test.include[0].phase) == (TRAIN, TEST)
    lmdb = DataParameter.LMDB
    assert train.data_param == DataParameter(
        source="a/train", batch_size=7, backend=lmdb, shuffle=True
    )
    assert test.data_param == DataParameter(source="a/test", batch_size=2, backend=lmdb)
    in_order = train_net(arch(), Training("a", "b", shuffle=False))
    assert not any(layer.data_param.shuffle for layer in of_type(in_order, "Data"))
    slices = by_name(net)["slice_data"]
    assert list(slices.top) == ["rgb", "depth", "label"]
    assert list(slices.slice_param.slice_point) == [3, 4]


def test_learning_of_every_layer() -> None:
    net = train_net(arch("sf3", scene_classes=4), TRAINING)
    for layer in net.layer:
        rates = [(p.lr_mult, p.decay_mult) for p in layer.param]
        if layer.type in ("Convolution", "Deconvolution", "InnerProduct"):
            assert rates == [(1, 1), (2, 0)]
        elif layer.type == "BatchNorm":
            assert rates == [(0, 0)] * 3
        else:
            assert rates == []
    for layer in of_type(net, "Convolution", "Deconvolution"):
        p = layer.convolution_param
        assert (list(p.kernel_size), list(p.pad), list(p.stride)) == ([3], [1], [])
        assert (p.weight_filler.type, p.bias_filler.type) == ("msra", "constant")
    assert all(layer.scale_param.bias_term for layer in of_type(net, "Scale"))


def test_dropout() -> None:
    for ratio in (0.5, 0.4, 0.0):
        net = train_net(arch(dropout=ratio), TRAINING)
        dropouts = [layer for layer in net.layer if layer.type == "Dropout"]
        assert len(dropouts) == 8  # after three poolings in both branches but the last, 3 decoding
        assert all(d.dropout_param.dropout_ratio == pytest.approx(ratio) for d in dropouts)


def test_batch_norm_leaves_the_phase_to_decide_unless_deployed() -> None:
    trained, deployed = train_net(arch(), TRAINING), deploy_net(arch())
    assert not any(n.HasField("batch_norm_param") for n in of_type(trained, "BatchNorm"))
    assert all(n.batch_norm_param.use_global_stats for n in of_type(deployed, "BatchNorm"))
    net = train_net(arch(moving_average_fraction=0.9), TRAINING)
    for layer in of_type(net, "BatchNorm"):
        assert layer.batch_norm_param.moving_average_fraction == pytest.approx(0.9)
        assert not layer.batch_norm_param.HasField("use_global_stats")


def test_dropout_after_the_last_three_blocks_of_every_branch() -> None:
    names = [layer.name for layer in of_type(deploy_net(arch("sf5")), "Dropout")]
    assert sorted(names) == [
        "decdrop3",
        "decdrop4",
        "decdrop5",
        "encdrop3",
        "encdrop3_pair",
        "encdrop4",
        "encdrop4_pair",
        "encdrop5",
    ]


def test_loss_ignores_label_0_and_weights_when_asked() -> None:
    loss = by_name(train_net(arch(classes=3), TRAINING))["loss"].loss_param
    assert (loss.ignore_label, loss.use_weights, len(loss.label_weights)) == (0, False, 0)
    assert loss.HasField("ignore_label")
    weighted = Training("a", "b", label_weights=(0.5, 1, 2, 4))
    net = by_name(train_net(arch(classes=3), weighted))
    assert net["loss"].loss_param.use_weights
    assert list(net["loss"].loss_param.label_weights) == [0.5, 1, 2, 4]
    assert net["accuracy"].accuracy_param.HasField("ignore_label")
    with pytest.raises(CaffeError, match="4 label weights for 5 classes: expected 6"):
        train_net(arch(classes=5), weighted)


def test_scene_branch() -> None:
    net = train_net(arch(scene_classes=10), TRAINING)
    assert [list(layer.top) for layer in of_type(net, "Data")] == [["data", "scene"]] * 2
    layers = {item.layer.name: item for item in sketch(net, TRAIN, {"": (4, 5, 240, 320)})}
    assert list(layers["scene_pool"].layer.bottom) == ["pool5"]
    assert layers["scene_pool"].tops == [(4, 512, 1, 1)]
    assert layers["scene_score"].params == [(10, 512), (10,)]
    loss = layers["scene_loss"].layer
    assert list(loss.bottom) == ["scene_score", "scene"]
    assert 0 < loss.loss_weight[0] < 1
    deployed = by_name(deploy_net(arch(scene_classes=10)))
    assert deployed["scene_prob"].type == "Softmax"
    assert "scene_loss" not in deployed


@pytest.mark.parametrize("size", [(320, 240), (321, 243), (33, 47), (32, 32), (224, 224)])
@pytest.mark.parametrize("net", NETS)
def test_scores_have_the_size_of_the_input(net: str, size: tuple[int, int]) -> None:
    width, height = size
    layers = sketch(deploy_net(arch(net, size), batch_size=2), TEST)
    tops = {item.layer.name: item.tops[0] for item in layers}
    assert tops["prob"] == (2, 13, height, width)
    trained = train_net(arch(net, size), TRAINING)
    for phase in (TRAIN, TEST):
        sketch(trained, phase, {"": (3, 5, height, width)})


def test_unpooling_is_told_odd_sizes_alone() -> None:
    # 320x240, 160x120, 80x60, 40x30, 20x15: the last height is odd.
    told = {
        layer.name: (layer.unpooling_param.output_w, layer.unpooling_param.output_h)
        if layer.unpooling_param.HasField("output_h")
        else layer.unpooling_param.scale
        for layer in of_type(deploy_net(arch("sf5", (320, 240))), "Unpooling")
    }
    assert told == {"unpool5": (20, 15), "unpool4": 2, "unpool3": 2, "unpool2": 2, "unpool1": 2}


@pytest.mark.parametrize("net", ["sf5", "df2", "rgbd"])
@pytest.mark.parametrize("crop", [(288, 224), (301, 97), (320, 240), (480, 360)])
def test_crops_have_sizes_of_their_own_in_training(net: str, crop: tuple[int, int]) -> None:
    """Scores have the size of what the phase's records are: crops in TRAIN, frames in TEST."""
    how = {"crop_w": crop[0], "crop_h": crop[1], "max_scale": 1.5}
    training = Training("a", "b", transform={"augmentation_param": how})
    param = train_net(arch(net), training)
    for phase, (width, height) in ((TRAIN, crop), (TEST, (320, 240))):
        found = {
            item.layer.name: item for item in sketch(param, phase, {"data": (2, 5, height, width)})
        }
        assert found["score"].tops == [(2, 13, height, width)]
    if crop == (320, 240):
        assert param.layer[2:] == train_net(arch(net), Training("a", "b")).layer[2:]


def test_crops_that_no_frame_fills() -> None:
    transform = {"augmentation_param": {"crop_w": 481, "crop_h": 64, "max_scale": 1.5}}
    with pytest.raises(
        CaffeError, match=r"481x64 are larger than .* 320x240, zoomed by at most 1\.5"
    ):
        train_net(arch(), Training("a", "b", transform=transform))


def test_floor_pooling() -> None:
    net = deploy_net(arch("sf2", (321, 243), floor_pooling=True))
    tops = {item.layer.name: item.tops[0] for item in sketch(net, TEST)}
    assert tops["pool1"][2:] == (121, 160)
    assert tops["pool5"][2:] == (7, 10)
    assert tops["prob"][2:] == (243, 321)


def test_width_multiplier() -> None:
    params = {
        item.layer.name: item.params
        for item in sketch(deploy_net(arch(width_multiplier=0.25, classes=6)), TEST)
    }
    assert params["conv1_1_pair1ch"] == [(16, 1, 3, 3), (16,)]
    assert params["conv5_3"] == [(128, 128, 3, 3), (128,)]
    assert params["conv4_1_D"] == [(128, 64, 3, 3), (64,)]
    assert params["score"] == [(7, 16, 3, 3), (7,)]
    thin = {i.layer.name: i.params for i in sketch(deploy_net(arch(width_multiplier=1e-9)), TEST)}
    assert thin["conv5_3"] == [(1, 1, 3, 3), (1,)]
    assert thin["score"] == [(13, 1, 3, 3), (13,)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"net": "sf6"}, "no net is called 'sf6'"),
        ({"size": (320, 31)}, "size 320x31 is too small: five 2x2 poolings"),
        ({"classes": 0}, "0 classes"),
        ({"width_multiplier": 0}, "width multiplier 0 is not above 0"),
        ({"width_multiplier": float("nan")}, "width multiplier nan"),
        ({"moving_average_fraction": 1.5}, "fraction 1.5 is not within 0 and 1"),
        ({"dropout": 1.0}, "dropout 1 is not within 0 and 1"),
        ({"scene_classes": 1}, "1 scene classes: at least 2"),
    ],
)
def test_impossible_architectures(options: dict, message: str) -> None:
    with pytest.raises(CaffeError, match=message):
        arch(**options)
