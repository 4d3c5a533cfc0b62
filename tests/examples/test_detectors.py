"""examples/ssd.py and examples/faster_rcnn.py: their nets learn, and find boxes, on four scenes."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format

import caffe
from caffe.proto import caffe_pb2 as pb
from data_tools import synth

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Path:
    """A folder with train/ and test/, each an LMDB of four scenes of 160 x 120 pixels."""
    folder = tmp_path_factory.mktemp("scenes")
    for name, seed in (("train", 0), ("test", 1)):
        synth.write_boxes(synth.Synth(4, (160, 120), seed), folder / name, seed, False)
    return folder


@pytest.fixture
def example(monkeypatch):
    """example(name): a module of examples/; nets find it, too."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    yield __import__
    for name in ("detectors", "ssd", "faster_rcnn", "faster_rcnn_layers", "regions"):
        sys.modules.pop(name, None)


def losses(net: pb.NetParameter, iterations: int, rate: float, tops: tuple[str, ...]) -> np.ndarray:
    """The losses of each iteration of a training, (iterations, losses), by Adam."""
    caffe.set_random_seed(1)
    param = pb.SolverParameter(
        train_net_param=net, type="Adam", base_lr=rate, lr_policy="fixed", random_seed=1,
        momentum=0.9, momentum2=0.999, max_iter=iterations, display=0,
        snapshot_after_train=False,
    )  # fmt: skip
    solver = caffe.get_solver(param)
    rows = []
    for _ in range(iterations):
        solver.step(1)
        rows.append([float(solver.net.blobs[top].data) for top in tops])
    return np.array(rows)


def test_ssd_learns(scenes, example) -> None:
    net = example("ssd").train_net(scenes / "train", 4)
    (found,) = losses(net, 16, 2e-3, ("mbox_loss",)).T
    assert found[-4:].mean() < 0.6 * found[:2].mean()


def test_faster_rcnn_learns(scenes, example) -> None:
    net = example("faster_rcnn").train_net(scenes / "train")
    tops = ("rpn_score_loss", "score_loss")
    found = losses(net, 24, 1e-3, tops)
    assert (found[-6:].mean(0) < 0.8 * found[:2].mean(0)).all()


@pytest.mark.parametrize("name", ["ssd", "faster_rcnn"])
def test_the_test_net_gives_what_map_is_made_of(name, scenes, example) -> None:
    """DetectionEvaluate's first rows count each label's boxes, difficult ones left out."""
    module = example(name)
    given = (scenes / "test", 2) if name == "ssd" else (scenes / "test",)
    net = caffe.Net(module.test_net(*given), caffe.TEST)
    rows = net.forward()["detection_eval"][0, 0]
    pictures = [synth.Synth(4, (160, 120), 1).picture(i) for i in range(2 if name == "ssd" else 1)]
    boxes = [box for picture in pictures for box in picture.boxes if not box.difficult]
    counts = {label: sum(box.label == label for box in boxes) for label in (1, 2, 3)}
    assert {int(row[1]): int(row[2]) for row in rows[:3]} == counts


@pytest.mark.parametrize("name", ["ssd", "faster_rcnn"])
def test_the_texts(name, example, tmp_path, monkeypatch) -> None:
    """--nets writes nets and a solver that are read; the nets have equal weights."""
    module = example(name)
    monkeypatch.setattr(sys, "argv", [name, str(tmp_path / "out"), "--nets"])
    module.main()
    text = (tmp_path / "out" / "solver.prototxt").read_text()
    solver = text_format.Parse(text, pb.SolverParameter())
    assert solver.eval_type == "detection"
    assert solver.train_net == str(tmp_path / "out" / "train.prototxt")
    net = caffe.Net(str(tmp_path / "out" / "deploy.prototxt"), caffe.TEST)
    train = text_format.Parse((tmp_path / "out/train.prototxt").read_text(), pb.NetParameter())
    weighty = {
        layer.name
        for layer in train.layer
        if layer.type in ("Convolution", "InnerProduct", "BatchNorm", "Scale", "Normalize")
    }
    assert set(net.params) == weighty


def test_pictures_of_what_is_found(example) -> None:
    """Boxes that are sure are drawn at their place, with sides as fractions of the picture's."""
    detectors = example("detectors")
    rows = np.array([[0, 1, 0.9, 0.25, 0.5, 0.75, 1.5], [0, 2, 0.1, 0, 0, 0.1, 0.1]], np.float32)
    picture = detectors.with_boxes(np.zeros((80, 160, 3), np.uint8), rows)
    green = (picture == (0, 255, 0)).all(2)
    assert np.flatnonzero(green[70]).tolist() == [39, 40, 41, 119, 120, 121]
    assert not green[:38].any()


def test_the_deploy_net_takes_pictures_of_any_size(example) -> None:
    module, detectors = example("ssd"), example("detectors")
    net = caffe.Net(module.deploy_net(), caffe.TEST)
    picture = np.full((60, 50, 3), 174, np.uint8)
    found = detectors.detect(net, picture)
    assert found.shape[1] == 7
    assert net.blobs["data"].data[0, :, 5, 5] == pytest.approx(
        [(174 - mean) / 64 for mean in (110, 115, 120)]
    )


def test_shifts_lead_to_their_goals(example) -> None:
    regions = example("regions")
    boxes = np.array([[0, 0, 9, 9], [10, 20, 29, 59]], np.float32)
    goals = np.array([[5, 0, 14, 19], [10, 20, 29, 59]], np.float32)
    by = regions.shifts(boxes, goals)
    # From a middle of (5, 5) to (10, 10), and from 10 x 10 to 10 x 20 pixels.
    assert by.tolist() == [pytest.approx([0.5, 0.5, 0, np.log(2)]), [0, 0, 0, 0]]
    np.testing.assert_allclose(regions.shifted(boxes, by), goals, atol=1e-4)
    # 5 x 10 of 100 and 200 pixels are shared.
    assert regions.overlaps(boxes[:1], goals)[0] == pytest.approx([50 / 250, 0])


def test_anchors_are_those_of_the_proposal_layer(example) -> None:
    """Scores of which one stands out give its anchor, at the place of the map."""
    rcnn, regions = example("faster_rcnn"), example("regions")
    place, chosen = (4, 6), 4  # a square of 32 pixels
    net = caffe.Net(proposal_net(rcnn, regions), caffe.TEST)
    net.blobs["scores"].data[...] = 0
    net.blobs["scores"].data[0, regions.ANCHORS + chosen, place[0], place[1]] = 1
    net.blobs["info"].data[...] = (regions.HEIGHT, regions.WIDTH, 1)
    net.blobs["shifts"].data[...] = 0
    first = net.forward()["rois"][0, 1:]
    x, y = place[1] * regions.STRIDE, place[0] * regions.STRIDE
    # Without shifts a box ends a pixel behind its anchor, as in py-faster-rcnn.
    wanted = regions.anchors()[chosen] + (x, y, x + 1, y + 1)
    np.testing.assert_allclose(first, wanted, atol=1e-4)


def proposal_net(rcnn, regions) -> pb.NetParameter:
    """The example's Proposal layer on inputs."""
    text = [layer for layer in rcnn.deploy_net().layer if layer.type == "Proposal"]
    height, width = regions.HEIGHT // regions.STRIDE, regions.WIDTH // regions.STRIDE
    net = pb.NetParameter(layer=text)
    shapes = {"scores": (1, 2 * regions.ANCHORS, height, width),
              "shifts": (1, 4 * regions.ANCHORS, height, width), "info": (1, 3)}  # fmt: skip
    net.layer[0].bottom[:] = list(shapes)
    net.layer[0].top[:] = ["rois"]
    for name, shape in shapes.items():
        layer = pb.LayerParameter(name=name, type="Input", top=[name])
        layer.input_param.shape.add(dim=shape)
        net.layer.insert(0, layer)
    return net
