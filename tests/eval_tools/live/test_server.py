"""The server: who is answered, how much is taken, and what it answers."""

import json
import re
import socket
import threading
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from fuzz.corpus.sound import exr

from data_tools.camera import Camera, Extrinsics, Intrinsics, Rig
from data_tools.cli import DataError
from data_tools.depth import DepthUnit
from data_tools.record import RecordFormat
from data_tools.synth import Synth
from eval_tools.live import message
from eval_tools.live import server as module
from eval_tools.live.model import DROPPED, Given, Model
from eval_tools.live.server import MOST_BYTES, MOST_WAITING, Server
from eval_tools.predictor import Predictor


def files(frame, ending=".png"):
    """The blocks of a frame's files."""
    bgr, depth = frame
    return {
        "color": cv2.imencode(".png", bgr)[1].tobytes(),
        "depth": cv2.imencode(ending, depth)[1].tobytes(),
    }


FACTS = {"unit": "mm", "color": "a.png", "depth": "b.png"}


def error(body):
    return json.loads(body)["error"]


def test_it_listens_on_the_loopback_interface_alone(server):
    assert server.server_address[0] == "127.0.0.1"
    assert server.url == f"http://127.0.0.1:{server.server_address[1]}/"


def test_the_pages_files(client, server):
    for path, kind in (("/", "html"), ("/page.css", "css"), ("/page.js", "javascript")):
        status, headers, body = client.send("GET", path)
        assert status == 200
        assert headers["Content-Type"] == f"text/{kind}; charset=utf-8"
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert headers["Cache-Control"] == "no-store"
        assert not re.search(rb"(?:src|href)=.(?!/page|data:,|#)", body)
    assert client.send("GET", "/?x=1")[0] == 200
    for path in ("/page.py", "/../model.py", "/label", "/page.html"):
        assert client.send("GET", path)[0] == 404
    assert client.send("POST", "/", b"")[0] == 404
    assert client.send("DELETE", "/")[0] == 501


def test_names_cannot_break_out_of_the_page(client):
    page = client.send("GET", "/")[2].decode()
    assert "<b>green" not in page
    data = json.loads(re.search(r'id="data">(.*?)</script>', page, re.S)[1])
    assert data["names"][2] == "<b>green</b>"
    assert data["figures"] == [{"frames": 654, "mean_iou": 0.453}]


def test_only_this_machines_names_are_answered(client):
    port = client.host.partition(":")[2]
    for host in (client.host, f"localhost:{port}", "localhost", "127.0.0.1:9999"):
        assert client.send("GET", "/", Host=host)[0] == 200  # 9999: through a tunnel
    for host in (
        "evil.example",
        f"evil.example:{port}",
        "127.0.0.1.evil.example",
        "",
        None,
        "[::1]",
    ):
        status, _, body = client.send("GET", "/", Host=host)
        assert status == 403
        assert client.host in error(body)
        assert client.server.token.encode() not in body


def test_only_the_page_itself_is_answered(client, tools):
    body = message.pack(FACTS, files(tools.draw()))
    assert client.send("POST", "/label", body)[0] == 200
    for headers in (
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": None},
        {"Origin": f"https://{client.host}"},
        {"X_FuseNet_Token": None},
        {"X_FuseNet_Token": "x"},
        {"X_FuseNet_Token": "\xe4"},
    ):
        for path in ("/label", "/frame"):
            status, answered, text = client.send("POST", path, body, **headers)
            assert status == 403
            assert answered["Connection"] == "close"
            assert "another page" in error(text) or "load it again" in error(text)


def test_no_other_page_is_allowed_by_headers(client):
    headers = client.send("GET", "/")[1]
    assert not [name for name in headers if name.lower().startswith("access-control")]
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"


def test_uploads_are_limited_before_they_are_read(client):
    for length, status in ((str(MOST_BYTES + 1), 413), ("9" * 40, 413), ("-1", 411), ("x", 411),
                           (None, 411), ("\xb2", 411)):  # fmt: skip
        found = client.send("POST", "/label", None, Content_Length=length)
        assert found[0] == status
    assert client.send("POST", "/frame", None, Content_Length=str(2**16 + 1))[0] == 413


def test_labels_are_the_predictors(client, predictor, tools):
    for seed, size in ((1, (24, 32)), (2, (30, 90)), (3, (48, 36))):
        bgr, depth = tools.draw(seed, size)
        facts, blocks = client.label(FACTS, **files((bgr, depth)))
        labels = np.frombuffer(blocks["labels"], np.uint8).reshape(size)
        np.testing.assert_array_equal(labels, predictor(bgr, depth, "mm"))
        confidence = np.frombuffer(blocks["confidence"], np.uint8).reshape(size)
        best = predictor.probabilities(bgr, depth, "mm").max(0)
        assert np.abs(confidence / 255 - best).max() < 0.002 + 0.5 / 255
        shown = np.frombuffer(blocks["depth"], np.uint16).reshape(size)
        np.testing.assert_array_equal(shown, depth)
        assert (facts["width"], facts["height"]) == size[::-1]
        assert facts["name"] == "a.png and b.png"
        picture = cv2.imdecode(np.frombuffer(blocks["color"], np.uint8), cv2.IMREAD_COLOR)
        assert picture.shape == bgr.shape


def test_a_real_frame(client, predictor):
    folder = Path(__file__).parents[4] / "shared" / "rgbd" / "nyuv2_000464"
    if not folder.is_dir():
        pytest.skip("no real frames at ../shared/rgbd")
    files = {"color": folder / "rgb.png", "depth": folder / "depth.png"}
    bgr, depth = cv2.imread(str(files["color"])), cv2.imread(str(files["depth"]), -1)
    blocks = {part: file.read_bytes() for part, file in files.items()}
    _, found = client.label({**FACTS, "unit": "5000"}, **blocks)
    labels = np.frombuffer(found["labels"], np.uint8).reshape(depth.shape)
    np.testing.assert_array_equal(labels, predictor(bgr, depth, 5000))
    shown = np.frombuffer(found["depth"], np.uint16).reshape(depth.shape)
    assert np.abs(shown - depth / 5).max() <= 0.5


def test_units(client, predictor, tools):
    bgr, depth = tools.draw(4)
    for unit in ("mm", "5000", "m", ""):
        stored = depth.astype(np.float32) / 1000 if unit == "m" else depth
        ending = ".exr" if unit == "m" else ".png"
        blocks = files((bgr, depth))
        if unit == "m":
            blocks["depth"] = exr(stored, 0)
        facts = {**FACTS, "unit": unit, "depth": f"b{ending}"}
        _, found = client.label(facts, **blocks)
        labels = np.frombuffer(found["labels"], np.uint8).reshape(depth.shape)
        np.testing.assert_array_equal(labels, predictor(bgr, stored, unit or None))
        shown = np.frombuffer(found["depth"], np.uint16).reshape(depth.shape)
        expected = depth // 5 if unit == "5000" else depth
        assert np.abs(shown.astype(int) - expected).max() <= 1
    small = (depth // 32).astype(np.uint8)
    facts, found = client.label({**FACTS, "unit": "scaled"}, **files((bgr, small)))
    assert facts["scaled"]
    np.testing.assert_array_equal(np.frombuffer(found["depth"], np.uint16), small.ravel())


def test_the_example(client, predictor):
    facts, blocks = client.label({"example": True})
    bgr, depth, unit = predictor.example()
    labels = np.frombuffer(blocks["labels"], np.uint8).reshape(depth.shape)
    np.testing.assert_array_equal(labels, predictor(bgr, depth, unit))
    assert facts["name"] == "the model's example"


@pytest.mark.parametrize(
    ("change", "blocks", "said"),
    [
        ({}, {"color": b"no picture"}, "colour a.png: not a picture that can be read"),
        ({}, {"depth": b""}, "depth b.png: not a picture that can be read"),
        ({"depth": "b.npy"}, {"depth": b"x"}, "depth b.npy: not a NumPy array"),
        ({"depth": "b.EXR"}, {"depth": b"12345678"}, "not an OpenEXR file"),
        ({"depth": "../../etc/passwd"}, {"depth": b"x"}, "depth ../../etc/passwd: not a picture"),
        ({"unit": "furlong"}, {}, "'furlong' is neither a number"),
        ({"unit": "0.001"}, {}, "expected steps"),
        ({"unit": ["mm"]}, {}, "neither a number"),
        ({"color": 3, "depth": None}, {"depth": b"x"}, "depth depth: not a picture"),
    ],
)
def test_what_cannot_be_read_is_one_line(client, tools, change, blocks, said):
    given = {**files(tools.draw()), **blocks}
    status, _, body = client.send("POST", "/label", message.pack({**FACTS, **change}, given))
    assert status == 400
    assert said in error(body)
    assert len(error(body)) <= 300
    assert "\n" not in error(body)


def test_what_does_not_belong_together(client, tools, monkeypatch):
    bgr, depth = tools.draw()
    assert "looks at depth" in client.label(FACTS, color=files((bgr, depth))["color"])
    assert "neither colour nor depth" in client.label(FACTS)
    assert "expected one aspect ratio" in client.label(FACTS, **files((bgr, depth[:, :12])))
    assert "no reading" in client.label(FACTS, **files((bgr, 0 * depth)))
    assert "there is no camera" in error(client.send("POST", "/frame", message.pack({}, {}))[2])
    assert "the page's message" in error(client.send("POST", "/label", b"x")[2])
    monkeypatch.setenv("FUSENET_MAX_PIXELS", "100")
    assert "at most 100 are read" in client.label(FACTS, **files((bgr, depth)))


def test_what_is_uploaded_is_in_no_file(client, tools, monkeypatch):
    def never(path, *args, **kwargs):
        raise AssertionError(f"{path} is opened")

    for place in ("builtins.open", "io.open", "os.open", "cv2.imread", "cv2.imwrite"):
        monkeypatch.setattr(place, never)
    bgr, depth = tools.draw()
    blocks = files((bgr, depth))
    assert isinstance(client.label(FACTS, **blocks), tuple)
    for name, data in (("b.npy", b"junk"), ("b.exr", b"12345678"), ("b.png", b"")):
        assert "depth b." in client.label({**FACTS, "depth": name}, **{**blocks, "depth": data})


def test_depth_of_another_camera_is_projected(predictor, tools):
    """The colour camera sees the same as depth's, two pixels further left; the example stays."""
    eye = Intrinsics(40.0, 40.0, 15.5, 11.5, (), (32, 24))
    rig = Rig(Camera((replace(eye, cx=17.5),)), Camera((eye,)), Extrinsics())
    bgr, depth = tools.draw(3)
    depth[...] = 2000
    depth[:, 10:12] = 4000
    model = Model(predictor, RecordFormat(rig=rig), DepthUnit.parse("2000"))
    blocks = message.unpack(model.answer(Given("a", bgr, depth, "2000")))[1]
    shown = np.frombuffer(blocks["depth"], np.uint16).reshape(24, 32)
    np.testing.assert_array_equal(shown[:, 2:] * 2, depth[:, :-2])
    labels = np.frombuffer(blocks["labels"], np.uint8).reshape(24, 32)
    moved = Predictor(predictor.model, rig=rig)(bgr, depth, 2000)
    np.testing.assert_array_equal(labels, moved)
    assert (model.facts()["aligns"], model.facts()["unit"]) == (True, "2000")
    example = message.unpack(model.answer(model.example()))[1]["labels"]
    np.testing.assert_array_equal(
        np.frombuffer(example, np.uint8), predictor(*predictor.example()).ravel()
    )


def test_what_the_doctor_finds_is_said(client, predictor):
    frame = Synth(1, (160, 120), 0).load(0)
    assert client.label(FACTS, **files((frame.color, frame.depth)))[0]["notes"] == []
    (note,) = client.label({**FACTS, "unit": "m"}, **files((frame.color, frame.depth)))[0]["notes"]
    assert "the unit 1000 makes it" in note.replace("the unit mm", "the unit 1000")
    strict = Model(predictor, replace(DROPPED, strict=True))
    with pytest.raises(DataError, match="median distance"):
        strict.answer(Given("a", frame.color, frame.depth, "m"))


def test_a_value_for_no_reading_is_a_hole(client, predictor):
    frame = Synth(1, (160, 120), 0).load(0)
    depth = frame.depth.copy()
    depth[30:50, 40:80] = 65535
    facts, blocks = client.label(FACTS, **files((frame.color, depth)))
    assert facts["notes"][0].startswith("depth 65535 is taken as no reading")
    depth[depth == 65535] = 0
    shown = np.frombuffer(blocks["depth"], np.uint16).reshape(depth.shape)
    np.testing.assert_array_equal(shown, depth)
    labels = np.frombuffer(blocks["labels"], np.uint8).reshape(depth.shape)
    np.testing.assert_array_equal(labels, predictor(frame.color, depth))


def test_large_frames_are_shrunk_and_said(server, tools):
    given = Given("a", *tools.draw(), most=200)
    facts, blocks = message.unpack(server.model.answer(given))
    assert (facts["width"], facts["height"]) == (16, 12)
    assert facts["notes"] == ["the frame of 32x24 is shown and labelled at 16x12"]
    assert len(blocks["labels"]) == 192


def test_what_is_cropped_is_said(client, tools, predictor):
    bgr, depth = tools.draw(2, (24, 48))
    facts, blocks = client.label(FACTS, **files((bgr, depth)))
    assert facts["notes"] == ["the frame of 48x24 is cropped to 32x24 in its middle for 16x12"]
    confidence = np.frombuffer(blocks["confidence"], np.uint8).reshape(24, 48)
    assert not confidence[:, :8].any()
    assert confidence[:, 8:40].all()


def test_requests_take_turns(predictor, tools, monkeypatch):
    """At most one is worked on at a time; all are answered rightly; beyond the queue, 503."""
    with tools.serving(predictor) as server:
        client, busy, seen = tools.Client(server), [], []
        right = server.model.answer

        def answer(given):
            busy.append(1)
            seen.append(len(busy))
            time.sleep(0.05)
            busy.pop()
            return right(given)

        monkeypatch.setattr(server.model, "answer", answer)
        frames = [tools.draw(seed) for seed in range(MOST_WAITING)]
        results = [None] * len(frames)

        def ask(place):
            results[place] = client.label(FACTS, **files(frames[place]))

        threads = [threading.Thread(target=ask, args=(i,)) for i in range(len(frames))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert set(seen) == {1}
        for (bgr, depth), (_, blocks) in zip(frames, results, strict=True):
            labels = np.frombuffer(blocks["labels"], np.uint8).reshape(depth.shape)
            np.testing.assert_array_equal(labels, predictor(bgr, depth, "mm"))
        for _ in range(MOST_WAITING):
            server._places.acquire()
        assert "too many requests wait" in client.label(FACTS, **files(frames[0]))


def test_one_bad_request_leaves_the_server_at_work(client, server, tools, monkeypatch, capfd):
    def bug(*args):
        raise MemoryError("no room")

    with monkeypatch.context() as patched:
        patched.setattr(server.model, "read", bug)
        status, _, body = client.send("POST", "/label", message.pack(FACTS, {}))
        assert status == 500
        assert error(body).startswith("MemoryError: no room")
    link = socket.create_connection(server.server_address)
    head = f"POST /label HTTP/1.1\r\nHost: {client.host}\r\nOrigin: http://{client.host}\r\n"
    link.sendall(f"{head}X-FuseNet-Token: {server.token}\r\nContent-Length: 99\r\n\r\nx".encode())
    link.close()  # in the middle of its upload
    for junk in (
        b"\x16\x03\x01\0\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 200,
    ):
        with socket.create_connection(server.server_address) as link:
            link.sendall(junk + b"\r\n")
            link.recv(1000)
    assert isinstance(client.label(FACTS, **files(tools.draw())), tuple)
    assert capfd.readouterr().err == ""


def test_a_port_that_is_taken(server, predictor, monkeypatch):
    taken = server.server_address[1]
    with pytest.raises(DataError, match=rf"port {taken}: Address already in use \(see --port\)"):
        Server(Model(predictor), None, taken)
    monkeypatch.setattr(module, "FIRST", taken)
    monkeypatch.setattr(module, "LAST", taken + 50)
    with Server(Model(predictor)) as other:
        assert taken < other.server_address[1] <= taken + 50
    monkeypatch.setattr(module, "LAST", taken)
    with pytest.raises(DataError, match="Address already in use"):
        Server(Model(predictor))
