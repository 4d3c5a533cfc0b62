"""The ray caster against distances worked out by hand."""

import numpy as np
import pytest

from data_tools.render import Material, Patch, Renderer, Scene, Solid

GREY = Material((0.5, 0.5, 0.5), 0.0)
RED = Material((0.1, 0.1, 0.9), 0.0)
WALL, FLOOR, CEILING, BOX, MURAL, RUG = 1, 2, 3, 4, 5, 6


def scene(solids=(), patches=(), **changes):
    """A room of 4 x 3 x 6 m, seen level from (2, 1.5, 1) along z."""
    settings = {
        "room": (4.0, 3.0, 6.0),
        "camera": (2.0, 1.5, 1.0),
        "yaw": 0.0,
        "pitch": 0.0,
        "light": (2.0, 2.7, 3.0),
        "surfaces": (GREY, GREY, GREY),
        "labels": (WALL, FLOOR, CEILING),
        "patches": tuple(patches),
        "solids": tuple(solids),
    }
    return Scene(**{**settings, **changes})


def box(**changes):
    """1 x 2 x 1 m in the middle of the view, its front at z = 3.5."""
    settings = {"kind": "box", "center": (2.0, 4.0), "size": (1.0, 2.0, 1.0), "yaw": 0.0}
    return Solid(**{**settings, "material": RED, "label": BOX, "painted_label": MURAL, **changes})


VIEW = np.radians(90)


def render(what):
    return Renderer(161, 121, VIEW).render(what)


def test_the_room():
    _, depth, label = render(scene())
    # Straight ahead the front wall, 5 m away. At 45 degrees to the side, nearly: the tangent of
    # the last column is 160/161, and the side wall is 2 m away.
    assert depth[60, 80] == pytest.approx(5, abs=1e-5)
    assert depth[60, 160] == pytest.approx(2 * 161 / 160, abs=1e-5)
    # 60 rows down the tangent is 120/161 and the floor 1.5 m below: 1.5 * 161 / 120.
    assert depth[120, 80] == pytest.approx(1.5 * 161 / 120, abs=1e-5)
    assert (label[60, 80], label[120, 80], label[0, 80]) == (WALL, FLOOR, CEILING)


def test_yaw_turns_to_the_right_and_pitch_up():
    _, depth, label = render(scene(yaw=np.pi / 2))
    assert depth[60, 80] == pytest.approx(2, abs=1e-5)
    _, depth, label = render(scene(pitch=np.pi / 2 - 1e-3))
    assert label[60, 80] == CEILING
    assert depth[60, 80] == pytest.approx(1.5, abs=1e-2)


def test_a_box_stands_where_it_should():
    _, depth, label = render(scene([box()]))
    assert depth[60, 80] == pytest.approx(2.5, abs=1e-5)
    # Its front is 0.5 m to each side at 2.5 m: a tangent of 0.2, 16.1 columns of 80.5.
    assert (np.flatnonzero(label[60] == BOX)[[0, -1]] == [64, 96]).all()
    # It reaches 0.5 m above the camera (0.2 up at its front) and stands on the floor.
    assert label[60 - 16, 80] == BOX
    assert label[60 - 17, 80] == WALL


def test_a_turned_box_shows_its_edge():
    _, depth, _ = render(scene([box(yaw=np.pi / 4)]))
    assert depth[60, 80] == pytest.approx(3 - np.sqrt(0.5), abs=1e-2)


def test_a_cylinder_is_round_and_has_a_lid():
    low = box(kind="cylinder", size=(1.0, 1.0, 1.0))
    _, depth, label = render(scene([low]))
    row = 60 + 25  # below its rim: 0.5 m below the camera at 2.5 m is a tangent of 0.2, 16 rows
    assert depth[row, 80] == pytest.approx(2.5, abs=1e-5)
    # Off the axis by the tangent u the ray (u t, t) meets (u t)^2 + (t - 3)^2 = 0.5^2.
    u = 10 / 80.5
    t = (3 - np.sqrt(9 - (1 + u * u) * 8.75)) / (1 + u * u)
    assert depth[row, 90] == pytest.approx(t, abs=1e-4)
    # The lid is 0.5 m below the camera.
    v = 14 / 80.5
    assert depth[60 + 14, 80] == pytest.approx(0.5 / v, abs=1e-4)
    assert label[60 + 14, 80] == BOX


def test_a_painted_solid_looks_the_same_and_has_no_depth():
    solids = [box(), box(kind="cylinder", center=(1.0, 4.5), yaw=0.3)]
    real = render(scene(solids))
    painted = render(scene([box(**{**vars(s), "painted": True}) for s in solids]))
    empty = render(scene())
    assert (real[0] == painted[0]).all()
    assert (painted[1] == empty[1]).all()
    assert (real[1] < empty[1]).sum() > 1000
    assert ((painted[2] == MURAL) == (real[2] == BOX)).all()


def test_real_solids_hide_what_is_painted_behind_them():
    # The picture's subject would be nearer, but the picture is on the wall.
    near_picture = box(center=(2.0, 2.8), painted=True)
    _, depth, label = render(scene([near_picture, box()]))
    assert label[60, 80] == BOX
    assert depth[60, 80] == pytest.approx(2.5, abs=1e-5)


def test_a_patch_changes_colour_and_label_but_not_depth():
    rug = Patch(2, (1.0, 2.0), (3.0, 4.0), RED, RUG)
    color, depth, label = render(scene(patches=[rug]))
    plain = render(scene())
    assert (depth == plain[1]).all()
    assert ((label == RUG) == (color != plain[0]).any(axis=2)).all()
    # Its near edge, 1 m ahead and 1.5 m below, is out of view; the far edge is 3 m ahead: a
    # tangent of 0.5, 40 rows below the middle.
    assert (label[120, 80], label[60 + 41, 80], label[60 + 40, 80]) == (RUG, RUG, FLOOR)


def test_a_solid_behind_the_camera_is_not_seen():
    assert (render(scene([box(center=(2.0, -2.0))]))[2] != BOX).all()
