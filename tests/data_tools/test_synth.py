"""data_tools.synth: seeded, fast, and hard for colour or depth alone."""

import dataclasses

import cv2
import numpy as np

from data_tools import synth
from data_tools.render import Renderer
from data_tools.store import Reader
from data_tools.synth import CABINET, CLASSES, FRIDGE, MURAL, Synth


def test_a_frame_depends_on_seed_and_number_alone():
    one = Synth(5, (64, 48), 3).load(4)
    other = Synth(9, (64, 48), 3).load(4)
    for part in ("color", "depth", "label"):
        assert (getattr(one, part) == getattr(other, part)).all()
    assert (Synth(5, (64, 48), 4).load(4).color != one.color).any()
    assert (Synth(5, (64, 48), 3).load(3).color != one.color).any()


def test_every_class_occurs_and_holes_do_too():
    frames = [Synth(60, (64, 48), 0).load(i) for i in range(60)]
    labels = np.bincount(np.concatenate([f.label.ravel() for f in frames]), minlength=10)
    share = labels / labels.sum()
    assert len(labels) == len(CLASSES.names) == 10
    assert (share[1:] > 0.01).all()
    assert 0 < share[0] < 0.05
    holes = np.mean([(f.depth == 0).mean() for f in frames])
    assert 0.005 < holes < 0.2


def test_colour_alone_cannot_tell_a_mural():
    rng = np.random.default_rng(5)
    scene = synth.draw_scene(rng)
    real = dataclasses.replace(
        scene, solids=tuple(dataclasses.replace(s, painted=False) for s in scene.solids)
    )
    mural = dataclasses.replace(
        scene,
        solids=tuple(
            dataclasses.replace(s, painted=True, painted_label=MURAL) for s in scene.solids
        ),
    )
    renderer = Renderer(64, 48)
    (color, depth, label), (same, flat, other) = map(renderer.render, (real, mural))
    assert (color == same).all()
    assert (label != other).any()
    assert (depth[label != other] < flat[label != other]).all()


def test_depth_alone_cannot_tell_a_cabinet_from_a_fridge():
    scene = synth.draw_scene(np.random.default_rng(5))

    def all_are(label):
        material = synth._material(np.random.default_rng(1), label)
        solids = tuple(
            dataclasses.replace(s, label=label, material=material, painted=False)
            for s in scene.solids
        )
        return Renderer(64, 48).render(dataclasses.replace(scene, solids=solids))

    cabinets, fridges = all_are(CABINET), all_are(FRIDGE)
    assert (cabinets[1] == fridges[1]).all()
    assert (cabinets[0] != fridges[0]).any()


def test_records_are_of_one_depth_range(command, tmp_path):
    command("synth", "db", "--count", 3, "--size", "64x48", "--seed", 2, "--workers", 2)
    frames = Synth(3, (64, 48), 2)
    reader = Reader(tmp_path / "db")
    for index, (key, planes, scene) in enumerate(reader.planes()):
        frame = frames.load(index)
        assert key == f"{index:08d}_synth{index}".encode()
        assert scene == 0
        assert (planes[:3] == frame.color.transpose(2, 0, 1)).all()
        assert (planes[3] == np.rint(frame.depth / 8000 * 255)).all()
        assert (planes[4] == frame.label).all()
    assert reader.info["classes"][9] == "mural"
    assert reader.info["labeled"] is True


def test_the_folder_of_pngs_makes_the_same_lmdb(command, tmp_path):
    command("synth", "db", "--count", 2, "--size", "64x48", "--folder", "png")
    depth = cv2.imread(str(tmp_path / "png" / "depth" / "00000001.png"), cv2.IMREAD_UNCHANGED)
    assert depth.dtype == np.uint16
    command("folder", "--rgb", "png/rgb", "--depth", "png/depth", "--label", "png/label",
            "--depth-range", "0:8", "--classes", "png/classes.csv", "again")  # fmt: skip
    one, two = (
        [(planes, scene) for _, planes, scene in Reader(tmp_path / name).planes()]
        for name in ("db", "again")
    )
    assert all((a == b).all() for (a, _), (b, _) in zip(one, two, strict=True))


def test_bad_usage_is_2(command):
    assert "whole number" in command("synth", "db", "--count", 0, code=2).stderr
