"""Depth in the colour camera's picture: known answers from scenes that two cameras see."""

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest

from data_tools import calibration
from data_tools.align import align
from data_tools.camera import Camera, Extrinsics, Intrinsics, Rig
from data_tools.cli import DataError
from data_tools.depth import DepthRange, DepthUnit
from data_tools.record import Frame, RecordFormat
from data_tools.render import Material, Renderer, Scene, Solid
from data_tools.store import Reader, read_info
from data_tools.synth import draw_scene

NOISE = 1.425e-3  # of a structured-light camera: its deviation at z metres is this times z squared
DEPTH = Intrinsics(195.0, 196.0, 158.0, 120.7, (), (320, 240))
COLOR = Intrinsics(460.0, 459.0, 322.5, 176.0, (), (640, 360))
LENS = (0.1, -0.2, 0.001, -0.002, 0.05)
RATIONAL = (0.58252, 0.0061361, -0.00012878, -2.08e-05, -0.0013187, 0.9256, 0.1257, -0.0065)


def moved(translation, degrees=(0, 0, 0)):
    turned = cv2.Rodrigues(np.radians(np.array(degrees, np.float64)))[0]
    return Extrinsics(tuple(turned.ravel().tolist()), tuple(translation))


BESIDE = moved((-0.05, 0.003, 0.002), (0.5, -0.7, 0.3))
PAIRS = {
    "colour beside depth": (DEPTH, COLOR, BESIDE, 0),
    "with noise": (DEPTH, COLOR, BESIDE, NOISE),
    "as large": (DEPTH, Intrinsics(260, 260, 159.5, 119.5, (), (320, 240)), moved((0.03, 0, 0)), 0),
    "smaller": (DEPTH, Intrinsics(100, 101, 63, 40, (), (128, 80)), moved((0.05, 0, 0.01)), 0),
    "above and tilted": (DEPTH, COLOR, moved((0.002, 0.05, 0), (6, 0, 0)), 0),
    "rolled": (DEPTH, COLOR, moved((-0.05, 0, 0), (0, 0, 25)), NOISE),
    "upright": (DEPTH, COLOR, moved((-0.05, 0, 0), (0, 0, 90)), 0),
    "through lenses": (
        Intrinsics(252, 252, 160, 120, RATIONAL, (320, 240)),
        Intrinsics(460.0, 459.0, 322.5, 176.0, LENS, (640, 360)),
        BESIDE,
        0,
    ),
}


def rig(depth=DEPTH, color=COLOR, extrinsics=BESIDE):
    return Rig(Camera((color,)), Camera((depth,)), extrinsics)


def seen(scene, depth=DEPTH, color=COLOR, extrinsics=BESIDE):
    """What the two cameras measure of a scene."""
    near = Renderer(*depth.size, intrinsics=depth).render(scene)[1].copy()
    return near, Renderer(*color.size, intrinsics=color, extrinsics=extrinsics).render(scene)[1]


def both_see(measured, wanted, depth, color, extrinsics):
    """Which pixels of the colour camera show what the depth camera sees, too."""
    points = np.stack([*color.rays(), np.ones(wanted.shape)], -1) * wanted[..., None]
    back = extrinsics.inverse()
    x, y, z = np.moveaxis(points @ back.matrix.T + back.translation, -1, 0)
    x, y = depth.distort(x / z, y / z)
    column = np.rint(x * depth.fx + depth.cx).astype(int)
    row = np.rint(y * depth.fy + depth.cy).astype(int)
    inside = (column >= 0) & (column < depth.size[0]) & (row >= 0) & (row < depth.size[1])
    there = measured[row.clip(0, depth.size[1] - 1), column.clip(0, depth.size[0] - 1)]
    return inside & (np.abs(there - z) < 0.02 * z)


@pytest.mark.parametrize(("depth", "color", "extrinsics", "noise"), PAIRS.values(), ids=PAIRS)
def test_depth_is_what_the_colour_camera_would_measure(depth, color, extrinsics, noise):
    shares = []
    for seed in range(2):
        rng = np.random.default_rng(seed)
        measured, wanted = seen(draw_scene(rng), depth, color, extrinsics)
        both = both_see(measured, wanted, depth, color, extrinsics)
        measured += noise * measured**2 * rng.standard_normal(measured.shape)
        found = align(measured, rig(depth, color, extrinsics), color.size)
        assert (found.shape, found.dtype) == (wanted.shape, np.float32)
        near = np.abs(found - wanted) < 0.01 * wanted + 4 * noise * wanted**2
        shares.append(near[both].mean())
        assert both.mean() > 0.5
    assert np.mean(shares) > 0.995
    assert min(shares) > 0.99


GREY = Material((0.5, 0.5, 0.5))
# A room whose front wall is 4 m before the camera, and a box of 0.6 x 2 x 0.4 m at 1.5 m.
ROOM = Scene((6.0, 3.0, 5.0), (3.0, 1.3, 1.0), 0.0, 0.0, (3.0, 2.7, 3.0), (GREY, GREY, GREY),
             (1, 2, 3), (), (Solid("box", (3.0, 2.7), (0.6, 1.8, 0.4), 0.0, GREY, 4),))  # fmt: skip
ASIDE = moved((-0.05, 0.0, 0.0))


@pytest.fixture(scope="module")
def box():
    """The box before the wall, as both cameras measure it."""
    return seen(ROOM, extrinsics=ASIDE)


def test_a_near_box_hides_the_wall_and_what_it_hid_stays_open(box):
    measured, wanted = box
    found = align(measured, rig(extrinsics=ASIDE), COLOR.size)
    inner = cv2.erode((wanted < 2).astype(np.uint8), np.ones((7, 7))) > 0
    assert inner.sum() > 20000
    np.testing.assert_allclose(found[inner], wanted[inner], rtol=2e-3)
    # The colour camera is to the right of the depth camera: beside the box's right edge it sees
    # wall that the box hides from the depth camera: 460 * 0.05 * (1 / 1.5 - 1 / 4) = 9.6 pixels.
    right = np.flatnonzero(wanted[170] < 2)[-1]
    assert 8 <= np.count_nonzero(found[170, right - 2 : right + 20] == 0) <= 11
    assert found[170, right + 14] == pytest.approx(4, rel=1e-3)


def ends(mask):
    """The first and the last column of the mask in the middle row, and its first row there."""
    columns = np.flatnonzero(mask[170])
    return columns[0], columns[-1], np.flatnonzero(mask[:, columns.mean().astype(int)])[0]


def test_edges_of_boxes_are_within_half_a_pixel():
    """A reading of the depth camera is 2.4 pixels of the colour camera wide. So a single edge may
    be off by more than one, but edges are not off to one side."""
    rng, off = np.random.default_rng(1), []
    for _ in range(16):
        x, z, width = rng.uniform(2.7, 3.3), rng.uniform(2.3, 3.3), rng.uniform(0.3, 0.7)
        solid = Solid("box", (x, z), (width, rng.uniform(1.6, 2.0), 0.4), 0.0, GREY, 4)
        measured, wanted = seen(replace(ROOM, solids=(solid,)), extrinsics=ASIDE)
        found = align(measured, rig(extrinsics=ASIDE), COLOR.size)
        front = z - 0.2 - ROOM.camera[2] + 0.1
        off.append(np.subtract(ends((found > 0) & (found < front)), ends(wanted < front)))
    assert np.abs(np.mean(off, 0)).max() < 0.5
    assert np.abs(off).max() <= 2


def shift(found, wanted):
    """By how many pixels, to the right and down, the edges of `found` are off: the peak of the
    correlation of both pictures' edges."""
    pictures = []
    for depth in (np.where(found > 0, found, wanted), wanted):
        level = np.log(depth).astype(np.float32)
        strength = np.hypot(cv2.Sobel(level, cv2.CV_32F, 1, 0), cv2.Sobel(level, cv2.CV_32F, 0, 1))
        pictures.append(np.minimum(strength, 0.5).astype(np.float64))
    window = cv2.createHanningWindow(wanted.shape[::-1], cv2.CV_64F)
    return cv2.phaseCorrelate(pictures[1], pictures[0], window)[0]


def test_edges_do_not_shift_and_the_wrong_direction_shifts_them():
    shifts = {"right": [], "wrong": []}
    for seed in range(4):
        rng = np.random.default_rng(seed)
        measured, wanted = seen(draw_scene(rng))
        measured += NOISE * measured**2 * rng.standard_normal(measured.shape)
        for name, way in (("right", BESIDE), ("wrong", BESIDE.inverse())):
            found = align(measured, rig(extrinsics=way), COLOR.size)
            shifts[name].append(shift(found, wanted))
    assert np.hypot(*np.mean(shifts["right"], 0)) < 0.5
    assert np.abs(shifts["right"]).max() < 1
    assert np.hypot(*np.transpose(shifts["wrong"])).min() > 10


@pytest.mark.parametrize("deviation", [0, 0.005])
def test_a_flat_surface_has_no_pinholes_and_holes_stay_holes(deviation):
    rng = np.random.default_rng(0)
    wall = np.full((240, 320), 1.5) + deviation * rng.standard_normal((240, 320))
    wall[100:110, 150:170] = 0
    found = align(wall, rig(extrinsics=ASIDE), COLOR.size)
    # The whole picture shows wall, but for 20 x 10 readings of 2.36 x 2.34 pixels.
    open_ = found == 0
    assert abs(open_.sum() - 200 * 2.36 * 2.34) < 60
    rows, columns = np.nonzero(open_)
    assert np.ptp(rows) <= 24
    assert np.ptp(columns) <= 48


def test_a_slope_stays_closed():
    """A floor at which the camera looks along: neighbours' depths differ by up to a tenth."""
    y = DEPTH.rays()[1]
    floor = np.where(y > 0.08, 0.5 / np.maximum(y, 1e-6), 0.0)
    found = align(floor, rig(extrinsics=moved((-0.05, 0, 0))), COLOR.size)
    rows = np.flatnonzero(COLOR.rays()[1][:, 0] > 0.09)
    np.testing.assert_allclose(found[rows], 0.5 / COLOR.rays()[1][rows], rtol=2e-3)


def test_nothing_is_filled_between_two_surfaces():
    """From the side, the gap between a near and a far half is open, however the pixels touch."""
    halves = np.full((240, 320), 3.0)
    halves[:, :160] = 1.0
    found = align(halves, rig(extrinsics=moved((0.1, 0, 0))), COLOR.size)
    values = np.unique(found.round(4))
    assert set(values) <= {0, 1, 3}
    # Beside each other they would meet; apart by 460 * 0.1 * (1 - 1 / 3) = 30.7 pixels, the near
    # half hides the far one.
    found = align(halves, rig(extrinsics=moved((-0.1, 0, 0))), COLOR.size)
    assert set(np.unique(found.round(4))) == {0, 1, 3}
    assert np.count_nonzero(found[180] == 0) == pytest.approx(30.7, abs=1)


def test_aligned_depth_stays_as_it_is():
    depth = np.random.default_rng(0).uniform(0, 5, (240, 320)).astype(np.float32)
    same = rig(DEPTH, DEPTH, Extrinsics())
    np.testing.assert_array_equal(align(depth, same, (320, 240)), depth)
    frame = Frame(np.zeros((480, 640, 3), np.uint8), np.full((480, 640), 900, np.uint16))
    assert RecordFormat(rig=calibration.rig("tum-freiburg2")).aligned(frame) is frame


def test_no_reading_in_view_is_no_reading():
    behind = rig(extrinsics=moved((0, 0, -1.9)))
    assert not align(np.full((240, 320), 0.5), behind, COLOR.size).any()
    assert not align(np.zeros((240, 320)), rig(), COLOR.size).any()


def test_sizes_that_do_not_fit():
    with pytest.raises(DataError, match="depth is 320x200; its camera's intrinsics are of 320x240"):
        align(np.ones((200, 320)), rig(), COLOR.size)
    with pytest.raises(DataError, match="colour is 64x48; its camera's intrinsics are of 640x360"):
        align(np.ones((240, 320)), rig(), (64, 48))
    # Others of the same aspect ratio are scaled.
    assert align(np.ones((120, 160)), rig(), (320, 180)).shape == (180, 320)


def test_records_hold_aligned_depth(box):
    measured, wanted = box
    frame = Frame(np.zeros((360, 640, 3), np.uint8), (measured * 1000).astype(np.uint16))
    form = RecordFormat(
        None, DepthUnit.parse("mm"), DepthRange.parse("0:5"), rig=rig(extrinsics=ASIDE)
    )
    found = form.planes(frame)[3]
    both = found > 0
    assert both.mean() > 0.9
    assert (np.abs(found - wanted * 51)[both] < 2).mean() > 0.99
    assert form.encode(frame)
    away = replace(form, rig=rig(extrinsics=moved((0, 0, -1.9))))
    with pytest.raises(DataError, match="none of its readings is in the colour picture"):
        away.planes(replace(frame, depth=np.full((240, 320), 900, np.uint16)))
    frame.files["depth"] = "d.png"
    frame.depth = frame.depth[:100]
    with pytest.raises(DataError, match=r"d\.png: depth is 320x100; its camera's"):
        form.planes(frame)


@pytest.fixture
def files(tmp_path, box):
    """A frame's files, depth in millimetres, and the files of the cameras."""
    measured, _ = box
    for name, picture in (
        ("rgb", np.random.default_rng(0).integers(0, 255, (360, 640, 3), np.uint8)),
        ("depth", (measured * 1000).astype(np.uint16)),
    ):
        (tmp_path / name).mkdir()
        cv2.imwrite(str(tmp_path / name / "a.png"), picture)
    for name, camera in (("color.json", COLOR), ("depth.json", DEPTH), ("motion.json", ASIDE)):
        (tmp_path / name).write_text(json.dumps(camera.describe()))
    return ("--rgb", "rgb", "--depth", "depth", "--intrinsics", "color.json",
            "--depth-intrinsics", "depth.json", "--extrinsics", "motion.json")  # fmt: skip


def test_folder_aligns_and_records_the_cameras(command, files, box):
    said = command("folder", *files, "out", "--depth-range", "0:5").stderr
    share = round(100 * (align(box[0], rig(extrinsics=ASIDE), COLOR.size) > 0).mean())
    line = f"a: depth 320x240 is projected into colour 640x360: readings on {share}% of it"
    assert f"{line} (--intrinsics)\n" in said
    told = read_info("out")["options"]["rig"]
    assert told == rig(extrinsics=ASIDE).describe()
    depth = next(Reader("out").planes())[1][3]
    wanted = align((box[0] * 1000).astype(np.uint16) / 1000, rig(extrinsics=ASIDE), COLOR.size)
    np.testing.assert_allclose(depth, wanted * 51, atol=1)
    # The other way round, depth is another.
    command("folder", *files, "back", "--extrinsics-direction", "color-to-depth")
    assert (next(Reader("back").planes())[1][3] != depth).mean() > 0.05


def test_sequence_aligns_records_and_folders_of_pairs(command, files, tmp_path):
    for part in ("rgb", "depth"):
        (tmp_path / "rec" / part).mkdir(parents=True)
        picture = (tmp_path / part / "a.png").read_bytes()
        for number in range(2):
            (tmp_path / "rec" / part / f"{number}.5.png").write_bytes(picture)
    more = ("--depth-unit", "mm", *files[4:])
    command("sequence", "rec", "direct", "--depth-range", "0:5", *more)
    command("sequence", "rec", "pairs", "--to", "folder", *more)
    stored = cv2.imread(str(tmp_path / "pairs/depth/0.5.png"), cv2.IMREAD_UNCHANGED)
    assert (stored.shape, stored.dtype) == ((360, 640), np.uint16)
    told = json.loads((tmp_path / "pairs/dataset.json").read_text())["options"]
    assert told["rig"] == rig(extrinsics=ASIDE).describe()
    where = ("--rgb", "pairs/rgb", "--depth", "pairs/depth")
    command("folder", *where, "again", "--depth-range", "0:5")
    found, wanted = (next(Reader(name).planes())[1][3] for name in ("again", "direct"))
    np.testing.assert_allclose(found, wanted, atol=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--intrinsics", "color.json"], "--depth-intrinsics is missing"),
        (["--extrinsics", "motion.json"], "--extrinsics needs --intrinsics, the colour camera's"),
        (["--depth-intrinsics", "depth.json"], "--depth-intrinsics needs --intrinsics"),
        (["--intrinsics", "kinect-v1", "--depth-unit", "scaled"],
         "--intrinsics does not go with --depth-unit scaled"),
        (["--intrinsics", "kinect-v1"], "depth is 320x240|colour is 640x360; its camera's"),
        (["--intrinsics", "absent"], "absent: no such file, and no camera of this name"),
    ],
)  # fmt: skip
def test_options_that_do_not_go_together(command, files, options, message):
    result = command("folder", *files[:4], *options, "out", code=1)
    assert len(result.stderr.splitlines()) == 1
    assert any(part in result.stderr for part in message.split("|"))
