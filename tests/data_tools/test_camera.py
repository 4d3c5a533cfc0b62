"""Cameras: lenses against OpenCV, sizes, and what no camera has."""

import cv2
import numpy as np
import pytest

from data_tools.camera import Camera, Extrinsics, Intrinsics, Rig
from data_tools.cli import DataError

LENSES = {
    "none": (),
    "Brown": (0.1, -0.25, 0.001, -0.002),
    "freiburg1": (0.2624, -0.9531, -0.0054, 0.0026, 1.1633),
    "rational": (0.58252, 0.0061361, -0.00012878, -2.08e-05, -0.0013187, 0.9256, 0.1257, -0.0065),
}  # fmt: skip


def camera(lens=(), size=(64, 48)):
    return Intrinsics(50.0, 51.0, 30.5, 24.25, lens, size)


@pytest.mark.parametrize("lens", LENSES.values(), ids=LENSES)
def test_lenses_are_opencvs_and_rays_lead_back(lens):
    eye = camera(lens)
    x, y = eye.rays()
    points = np.stack([x.ravel(), y.ravel(), np.ones(x.size)], 1)
    matrix = np.array([[eye.fx, 0, eye.cx], [0, eye.fy, eye.cy], [0, 0, 1]])
    coefficients = np.array(lens or (0.0, 0.0, 0.0, 0.0))
    found, _ = cv2.projectPoints(points, np.zeros(3), np.zeros(3), matrix, coefficients)
    columns, rows = np.meshgrid(np.arange(64), np.arange(48))
    np.testing.assert_allclose(found.reshape(48, 64, 2)[..., 0], columns, atol=1e-6)
    np.testing.assert_allclose(found.reshape(48, 64, 2)[..., 1], rows, atol=1e-6)
    distorted = eye.distort(x, y)
    np.testing.assert_allclose(distorted[0] * eye.fx + eye.cx, columns, atol=1e-6)
    np.testing.assert_allclose(distorted[1] * eye.fy + eye.cy, rows, atol=1e-6)


def test_a_lens_that_turns_back_sees_nothing_beyond():
    # r (1 - r^2) rises up to r^2 = 1/3, to 0.385: 19 of the pixels beside the middle.
    eye = camera((-1.0, 0.0, 0.0, 0.0))
    assert eye.reach() == pytest.approx(1 / 3, abs=0.01)
    x, _ = eye.rays()
    seen = np.flatnonzero(np.isfinite(x[24]))
    assert (seen[0], seen[-1]) == (12, 49)


@pytest.mark.parametrize("lens", LENSES.values(), ids=LENSES)
def test_the_view_is_that_of_the_rays(lens):
    low, high = camera(lens).view()
    for axis, part in enumerate(camera(lens).rays()):
        assert low[axis] == pytest.approx(part.min(), abs=1e-3)
        assert high[axis] == pytest.approx(part.max(), abs=1e-3)


def test_pixel_centres_stay_when_a_camera_is_scaled():
    half = Intrinsics(500, 500, 319.5, 239.5, (), (640, 480)).scaled((320, 240))
    assert half == Intrinsics(250, 250, 159.5, 119.5, (), (320, 240))


def test_the_mode_of_the_size_is_taken_else_one_of_the_same_aspect():
    broad = Intrinsics(640, 640, 639.5, 359.5, (), (1280, 720))
    tall = Intrinsics(384, 384, 319.5, 239.5, (), (640, 480))
    both = Camera((broad, tall))
    assert both.at((640, 480), "depth") == tall
    assert both.at((640, 360), "depth") == broad.scaled((640, 360))
    with pytest.raises(DataError) as error:
        both.at((512, 424), "depth")
    assert str(error.value) == (
        "depth is 512x424; its camera's intrinsics are of 640x480, 1280x720"
    )


def test_intrinsics_of_no_size_are_of_the_pictures_if_its_middle_fits():
    unknown = Camera((Intrinsics(1170.2, 1170.2, 647.75, 483.75),))
    assert unknown.at((1296, 968), "colour").size == (1296, 968)
    with pytest.raises(DataError, match=r"colour is 640x480, and its camera's principal point is"):
        unknown.at((640, 480), "colour")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fx": float("nan")}, "not finite"),
        ({"fx": 0.5}, "expected pixels, from 1 up"),
        ({"distortion": (0.1, 0.2, 0.3)}, "3 distortion coefficients; expected 4, 5 or 8"),
        ({"size": (0, 48)}, "size 0x48"),
        ({"cx": 3000.0}, "the principal point 3000, 24.25 is far outside 64x48"),
    ],
)
def test_what_no_camera_has(change, message):
    with pytest.raises(DataError, match=message):
        Intrinsics(**{**vars(camera()), **change}).check()


def test_extrinsics_and_back():
    turned = cv2.Rodrigues(np.array([0.1, -0.2, 0.3]))[0]
    way = Extrinsics(tuple(turned.ravel()), (0.05, -0.01, 0.02)).check()
    there_and_back = way.then(way.inverse())
    np.testing.assert_allclose(there_and_back.matrix, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(there_and_back.translation, 0, atol=1e-12)


@pytest.mark.parametrize(
    ("rotation", "translation", "message"),
    [
        ((1, 0, 0, 0, 2, 0, 0, 0, 1), (0, 0, 0), "no rotation matrix"),
        ((1, 0, 0, 0, 1, 0, 0, 0, -1), (0, 0, 0), "no rotation matrix"),
        ((1, 0, 0, 0, 1, 0, 0, 0, float("nan")), (0, 0, 0), "no rotation matrix"),
        (Extrinsics().rotation, (50, 0, 0), "the cameras are 50 m apart; expected"),
        (Extrinsics().rotation, (float("nan"), 0, 0), "expected the translation in metres"),
        (Extrinsics().rotation, (1e300, 0, 0), "expected the translation in metres"),
        ((1e300, *Extrinsics().rotation[1:]), (0, 0, 0), "no rotation matrix"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_what_no_extrinsics_are(rotation, translation, message):
    with pytest.raises(DataError, match=message):
        Extrinsics(rotation, translation).check()


def test_a_rig_is_told_as_json():
    rig = Rig(Camera((camera(),)), Camera((camera((0.1, 0, 0, 0)), camera())), Extrinsics())
    told = rig.describe()
    assert told["color"] == {"width": 64, "height": 48, "fx": 50, "fy": 51, "cx": 30.5, "cy": 24.25}
    assert [mode.get("distortion") for mode in told["depth"]] == [[0.1, 0, 0, 0], None]
    assert told["extrinsics"]["translation"] == [0, 0, 0]
