"""The page as people use it, in a real browser."""

import json
import threading

import cv2
import numpy as np
import pytest

from data_tools.cli import DataError
from data_tools.depth import DepthUnit
from data_tools.record import Frame
from eval_tools.live.sources import Camera, Recording
from eval_tools.predictor import Predictor

READY = "document.body.dataset.frame"


@pytest.fixture
def opened(page, server):
    """The page, opened; afterwards the console must be free of errors."""
    page.open(server.url)
    yield page
    assert complaints(page) == []


def complaints(page):
    # Reading canvases back is the test's doing; and the browser notes each refusal, which the page
    # tells in its own words.
    known = ("getImageData", "status of 400")
    return [c for c in page.complaints if not any(text in c.get("text", "") for text in known)]


@pytest.fixture
def files(tools, tmp_path):
    """Two frames as files: name -> (colour, depth, bgr, stored depth)."""
    found = {}
    for seed, size in ((1, (24, 32)), (2, (30, 60))):
        bgr, depth = tools.draw(seed, size)
        names = tmp_path / f"f{seed}_rgb.png", tmp_path / f"f{seed}_depth.png"
        cv2.imwrite(str(names[0]), bgr)
        cv2.imwrite(str(names[1]), depth)
        found[seed] = (*map(str, names), bgr, depth)
    return found


def choose(page, field, path):
    """Chooses a file as with the browser's dialogue."""
    document = page.call("DOM.getDocument")["root"]["nodeId"]
    node = page.call("DOM.querySelector", nodeId=document, selector=field)["nodeId"]
    page.call("DOM.setFileInputFiles", nodeId=node, files=[str(path)])


def drop(page, paths, selector="body"):
    """Drops files from outside, as a file manager does."""
    box = page.js(f"document.querySelector('{selector}').getBoundingClientRect().toJSON()")
    at = {"x": box["x"] + box["width"] / 2, "y": box["y"] + 5}
    data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        page.call("Input.dispatchDragEvent", type=kind, data=data, **at)


def shown(page, name):
    page.wait(f"{READY} === {json.dumps(name)}")


def labels(page):
    size = page.js("[state.frame.height, state.frame.width]")
    return np.array(page.js("Array.from(state.frame.labels)"), np.uint8).reshape(size)


def pixels(page, canvas):
    """What a canvas shows: (H, W, 3)."""
    canvas = f"document.getElementById('{canvas}')"
    width, height = page.js(f"[{canvas}.width, {canvas}.height]")
    flat = page.js(
        f"Array.from({canvas}.getContext('2d').getImageData(0, 0, {width}, {height}).data)"
    )
    return np.array(flat, np.uint8).reshape(height, width, 4)


def set_value(page, name, value, event="input"):
    page.js(f"$('{name}').value = {json.dumps(value)}")
    page.js(f"$('{name}').dispatchEvent(new Event('{event}'))")


def test_opens_without_complaint_or_network(opened, server):
    assert opened.js("document.title") == "FuseNet: toy.fusenet"
    assert opened.requests == [server.url + path for path in ("", "page.css", "page.js")] + [
        "data:,"
    ] * opened.requests.count("data:,")
    model = opened.text("#model")
    assert "colour and depth at 16x12" in model
    assert "4 classes; depth range 0:8 m; mean IoU 45 % on 654 test frames" in model
    assert opened.js("result.hidden")
    assert opened.js("player.hidden")


def test_the_example_with_one_click(opened, predictor):
    opened.point("#example", 0.5, 0.5, press=True)
    shown(opened, "the model's example")
    np.testing.assert_array_equal(labels(opened), predictor(*predictor.example()))
    assert "labelled in" in opened.text("#status")


def test_two_files_dropped(opened, predictor, files):
    for seed, order in ((1, (0, 1)), (2, (1, 0))):
        drop(opened, [files[seed][place] for place in order])
        shown(opened, f"f{seed}_rgb.png and f{seed}_depth.png")
        expected = predictor(files[seed][2], files[seed][3])
        np.testing.assert_array_equal(labels(opened), expected)
        table = np.array(opened.js("data.colors"), np.uint8)
        seen = pixels(opened, "labels")
        np.testing.assert_array_equal(seen[expected > 0][:, :3], table[expected[expected > 0]])
        assert not seen[expected == 0].any()
    assert opened.js("$('color-file').files[0].name") == "f2_rgb.png"


def test_files_chosen_one_by_one(opened, predictor, files):
    color, depth, bgr, stored = files[1]
    choose(opened, "#depth-file", depth)
    opened.wait("$('status').textContent.includes('colour file')")
    assert opened.js(READY) == "none"
    choose(opened, "#color-file", color)
    shown(opened, "f1_rgb.png and f1_depth.png")
    np.testing.assert_array_equal(labels(opened), predictor(bgr, stored))
    assert opened.text("#name") == "f1_rgb.png and f1_depth.png"


def test_files_are_told_apart_by_what_they_hold(opened, tools, tmp_path):
    """If names do not tell: 16 bits of grey are depth. Or by the field that they are dropped on."""
    bgr, depth = tools.draw(3)
    cv2.imwrite(str(tmp_path / "1.png"), depth)
    cv2.imwrite(str(tmp_path / "2.png"), bgr)
    cv2.imwrite(str(tmp_path / "3.png"), (depth // 32).astype(np.uint8))
    drop(opened, [tmp_path / "1.png", tmp_path / "2.png"])
    shown(opened, "2.png and 1.png")
    set_value(opened, "unit", "scaled", "change")
    drop(opened, [tmp_path / "3.png"], "#depth-slot")
    shown(opened, "2.png and 3.png")
    drop(opened, [tmp_path / "3.png", tmp_path / "2.png"])
    shown(opened, "2.png and 3.png")


def test_units(opened, predictor, files):
    color, depth, bgr, stored = files[1]
    drop(opened, [color, depth])
    shown(opened, "f1_rgb.png and f1_depth.png")
    for choice, unit in (("5000", 5000), ("m", "m"), ("mm", "mm")):
        before = opened.js("state.asked")
        set_value(opened, "unit", choice, "change")
        opened.wait(f"state.asked > {before} && state.frame.number === state.asked")
        np.testing.assert_array_equal(labels(opened), predictor(bgr, stored, unit))
    set_value(opened, "unit", "other", "change")
    set_value(opened, "steps", "2000", "change")
    opened.wait("state.frame.number === state.asked")
    np.testing.assert_array_equal(labels(opened), predictor(bgr, stored, 2000))


def test_files_that_cannot_be_told_apart(opened, files, tools, tmp_path):
    color, depth, *_ = files[1]
    drop(opened, [color, depth, files[2][0]])
    opened.wait("!error.hidden")
    assert opened.text("#error") == "3 files were dropped; expected colour and depth."
    (tmp_path / "folder").mkdir()
    drop(opened, [tmp_path / "folder"])
    opened.wait("error.textContent.startsWith('folder: cannot be read')")
    drop(opened, [color, depth])
    shown(opened, "f1_rgb.png and f1_depth.png")
    assert opened.js("error.hidden")
    cv2.imwrite(str(tmp_path / "x.tif"), tools.draw()[0])
    drop(opened, [tmp_path / "x.tif"])
    opened.wait("!error.hidden")
    assert opened.text("#error") == "x.tif: is it colour or depth? Drop it on its field."
    drop(opened, [tmp_path / "x.tif"], "#color-slot")
    shown(opened, "x.tif and f1_depth.png")


@pytest.mark.parametrize(("part", "planes"), [("color", 3), ("depth", 1)])
def test_a_net_that_looks_at_one_of_the_two(page, toy, tools, files, tmp_path, part, planes):
    """Its page asks for that file alone, and shows no other."""
    text = f"""
    layer {{ name: "x" type: "Input" top: "x" input_param {{ shape {{ dim: 1 dim: {planes}
             dim: 12 dim: 16 }} }} }}
    layer {{ name: "score" type: "Convolution" bottom: "x" top: "score"
             convolution_param {{ num_output: 4 kernel_size: 1 }} }}"""
    weight = np.random.default_rng(0).normal(size=(4, planes))
    bias = [0, 20, 40, 60] if planes == 1 else [0] * 4
    model = Predictor(*toy.model(tmp_path, text, {"score": [weight, bias]}))
    other = "depth" if part == "color" else "color"
    with tools.serving(model) as server:
        page.open(server.url)
        assert page.js(f"[$('{part}-slot').hidden, $('{other}-slot').hidden]") == [False, True]
        assert page.js("$('unit-choice').hidden") == (part == "color")
        path, array = (files[1][0], files[1][2]) if part == "color" else files[1][1::2]
        drop(page, [path])
        page.wait(f"{READY} !== 'none'")
        expected = model(array) if part == "color" else model(None, array)
        np.testing.assert_array_equal(labels(page), expected)
        assert page.js(f"[$('{part}-view').hidden, $('{other}-view').hidden]") == [False, True]
        page.point("#overlay", 0.5, 0.5)
        assert ("depth" in page.text("#readout")) == (part == "depth")
    assert complaints(page) == []


@pytest.mark.parametrize(("option", "chosen"), [("5000", "5000"), ("2500", "other"), ("mm", "mm")])
def test_the_unit_of_the_command_line_is_chosen(page, predictor, tools, option, chosen):
    with tools.serving(predictor, unit=DepthUnit.parse(option)) as server:
        page.open(server.url)
        assert page.js("[$('unit').value, unit()]") == [chosen, option]
        assert page.js("$('steps-choice').hidden") == (chosen != "other")


def test_what_cannot_be_read_is_one_line_and_goes_away(opened, files, tmp_path):
    bad = tmp_path / "bad_depth.png"
    bad.write_bytes(b"no picture")
    drop(opened, [files[1][0], bad])
    opened.wait("!error.hidden")
    assert opened.text("#error") == "depth bad_depth.png: not a picture that can be read"
    drop(opened, [files[1][1]])
    shown(opened, "f1_rgb.png and f1_depth.png")
    assert opened.js("error.hidden")


def test_legend_and_shares(opened, predictor, files):
    color, depth, bgr, stored = files[1]
    drop(opened, [color, depth])
    shown(opened, "f1_rgb.png and f1_depth.png")
    found = predictor(bgr, stored)
    for label in range(1, 5):
        share = np.mean(found == label)
        text = opened.text(f"#l{label} .pixels")
        assert abs(float(text.removesuffix(" %") or 0) / 100 - share) <= 0.005
    assert opened.text("#l2 span:nth-of-type(2)") == "<b>green</b>"
    before = pixels(opened, "labels")
    opened.point("#l2 input", 0.5, 0.5, press=True)
    after = pixels(opened, "labels")
    assert not after[found == 2].any()
    np.testing.assert_array_equal(after[found != 2], before[found != 2])
    opened.key("o")
    assert not pixels(opened, "labels").any()
    np.testing.assert_array_equal(pixels(opened, "overlay"), pixels(opened, "color"))
    opened.key("a")
    np.testing.assert_array_equal(pixels(opened, "labels"), before)
    assert opened.js("document.querySelectorAll('#legend input:checked').length") == 4


def test_strength(opened, files, predictor):
    color, depth, bgr, stored = files[1]
    drop(opened, [color, depth])
    shown(opened, "f1_rgb.png and f1_depth.png")
    found = predictor(bgr, stored)
    set_value(opened, "strength", "100")
    seen = pixels(opened, "overlay")[..., :3]
    table = np.array(opened.js("data.colors"), np.uint8)
    np.testing.assert_array_equal(seen[found > 0], table[found[found > 0]])
    opened.js("strength.focus()")
    set_value(opened, "strength", "0")
    np.testing.assert_array_equal(pixels(opened, "overlay"), pixels(opened, "color"))


def test_readout_under_the_pointer_and_by_keyboard(opened, files, predictor):
    color, depth, bgr, stored = files[1]
    drop(opened, [color, depth])
    shown(opened, "f1_rgb.png and f1_depth.png")
    found, sure = predictor.with_confidence(bgr, stored)

    def expected(x, y):
        text = f"x {x}, y {y}: {predictor.names[found[y, x]]}, probability "
        text += f"{np.floor(np.rint(255 * sure[y, x]) / 2.55 + 0.5):.0f} %; "
        metres = stored[y, x] / 1000
        return text + (f"depth {metres:.3f} m" if metres else "no depth")

    for canvas in ("overlay", "depth", "labels", "confidence", "color"):
        opened.point(f"#{canvas}", 10.5 / 32, 7.5 / 24)
        assert opened.text("#readout") == expected(10, 7)
    assert (
        opened.js("readout_.ariaLive".replace("readout_", "document.querySelector('#readout')"))
        == "off"
    )
    opened.point("#overlay", 3.5 / 32, 0.5 / 24)
    assert opened.text("#readout") == expected(3, 0)
    opened.js("$('overlay').focus()")
    for key in ("ArrowRight", "ArrowDown", "ArrowDown", "ArrowLeft", "ArrowUp"):
        opened.key(key)
    assert opened.text("#readout") == expected(16, 13)
    assert opened.js("$('readout').ariaLive") == "polite"
    opened.point("#overlay", 5.5 / 32, 20.5 / 24, press=True)
    opened.key("ArrowLeft")
    assert opened.text("#readout") == expected(4, 20)


def test_everything_can_be_reached_by_keyboard(opened, files):
    """From the top with Tab: the fields, the unit, the example, the picture, the legend."""
    drop(opened, files[1][:2])
    shown(opened, "f1_rgb.png and f1_depth.png")
    opened.js("document.activeElement.blur(); document.querySelector('.skip').focus()")
    reached = []
    name = "document.activeElement.id || document.activeElement.value || 'summary'"
    for _ in range(13):
        opened.key("Tab")
        reached.append(opened.js(name))
    above = ["summary", "color-file", "depth-file", "unit", "example", "overlay", "strength"]
    assert reached == [*above, "all", "none", "1", "2", "3", "4"]


# -- frames as they come ---------------------------------------------------------------------------


class Few:
    """A recording in memory, of which every frame is another size."""

    def __init__(self, tools, count):
        self.names = [f"frame {i}" for i in range(count)]
        self.frames = [Frame(*tools.draw(i, (24 + i, 32 + i))) for i in range(count)]

    def load(self, index):
        return self.frames[index]

    def about(self, index):
        return {"time": 5 + index / 50}


def test_a_recording_plays_and_stops_at_its_end(page, predictor, tools):
    few = Few(tools, 5)
    with tools.serving(predictor, Recording(few, "few")) as server:
        page.open(server.url)
        shown(page, "frame 4")
        page.wait("!state.playing")
        assert page.text("#position") == "Frame 5 of 5"
        assert page.text("#rate").endswith("frames a second")
        assert page.text("#play") == "Play"
        for key, index in (("p", 3), ("p", 2), ("n", 3)):
            page.key(key)
            shown(page, f"frame {index}")
            frame = few.frames[index]
            np.testing.assert_array_equal(labels(page), predictor(frame.color, frame.depth))
        set_value(page, "seek", "1")
        shown(page, "frame 1")
        assert page.text("#position") == "Frame 2 of 5"
        page.js("document.body.focus()")
        page.key(" ", "Space")
        shown(page, "frame 4")
        page.wait("!state.playing")
        page.point("#play", 0.5, 0.5, press=True)  # from the start again
        page.wait("state.at < 3")
        shown(page, "frame 4")
    assert complaints(page) == []


def test_a_camera_shows_its_newest_frames_until_it_fails(page, predictor, tools, files):
    frames, gate = [tools.draw(i) for i in range(3)], threading.Semaphore(0)
    taken = []

    def read():
        if taken:
            gate.acquire()
        taken.append(1)
        if len(taken) > 4:
            raise DataError("camera 0: gives no more frames")
        return frames[len(taken) % 3]

    with tools.serving(predictor, Camera(read, "camera 0")) as server:
        page.open(server.url)
        page.wait("state.at === 0")
        np.testing.assert_array_equal(labels(page), predictor(*frames[1]))
        gate.release()
        page.wait("state.at === 1")
        np.testing.assert_array_equal(labels(page), predictor(*frames[2]))
        # Dropped files stop it.
        drop(page, files[1][:2])
        shown(page, "f1_rgb.png and f1_depth.png")
        page.wait("!state.playing")
        assert page.js("$('seek-choice').hidden")
        gate.release()
        page.point("#play", 0.5, 0.5, press=True)
        shown(page, "camera 0")
        page.wait("state.at === 2")
        gate.release()
        page.wait("state.at === 3")
        gate.release()
        page.wait("!error.hidden")
        assert page.text("#error") == "camera 0: gives no more frames"
        page.wait("!state.playing")
    page.complaints.clear()


def test_a_program_that_has_ended_is_told(opened):
    nothing = {"latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
    opened.call("Network.emulateNetworkConditions", offline=True, **nothing)
    opened.point("#example", 0.5, 0.5, press=True)
    opened.wait("!error.hidden")
    opened.call("Network.emulateNetworkConditions", offline=False, **nothing)
    assert opened.text("#error").startswith("The program does not answer")
    opened.complaints.clear()


# -- everybody -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("width", "phone"), [(1280, False), (375, True)])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(page, predictor, tools, width, phone, scheme):
    page.scheme(scheme)
    with tools.serving(predictor, Recording(Few(tools, 1), "few")) as server:
        page.open(server.url, width, 800, phone)
        page.js("complain('something went wrong')")
        shown(page, "frame 0")
        found = page.grave()
    page.scheme()
    assert found == []


def test_nothing_sticks_out_on_a_phone(page, predictor, tools):
    with tools.serving(predictor, Recording(Few(tools, 1), "few")) as server:
        page.open(server.url, 375, 800, True)
        shown(page, "frame 0")
        assert page.js("document.documentElement.scrollWidth") <= 375
        boxes = page.js(
            "[...document.querySelectorAll('main button, select, canvas, input, label')]"
            ".filter(e => e.offsetHeight).map(e => [e.id, e.getBoundingClientRect().right,"
            " e.closest('label')?.offsetHeight ?? e.offsetHeight])"
        )
    assert [box for box in boxes if box[1] > 375] == []
    assert [box for box in boxes if box[2] < 24] == []
