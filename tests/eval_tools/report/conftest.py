"""A headless Chromium, driven through its DevTools, and a report to open in it."""

import json
import shutil
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest

from eval_tools import evaluate

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-port=0",
    "--remote-allow-origins=*",
]


def until(wanted, seconds=20):
    """Waits for `wanted()` to be true and returns what it gave."""
    end = time.monotonic() + seconds
    while not (found := wanted()):
        assert time.monotonic() < end, f"waited {seconds} s in vain"
        time.sleep(0.05)
    return found


class Page:
    """One tab: evaluates JavaScript, sends keys and pointer events, collects complaints."""

    def __init__(self, socket):
        self._socket, self._number = socket, 0
        self.complaints, self.requests = [], []
        for domain in ("Runtime", "Log", "Page", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method, **params):
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": params}))
        while True:
            message = json.loads(self._socket.recv())
            if message.get("id") == self._number:
                assert "error" not in message, message
                return message["result"]
            self._note(message)

    def _note(self, message):
        method, params = message.get("method"), message.get("params", {})
        if method == "Runtime.exceptionThrown":
            self.complaints.append(params["exceptionDetails"])
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.complaints.append(params["entry"])
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning"):
            self.complaints.append(params)
        elif method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])

    def js(self, expression):
        """The value of an expression; promises are awaited."""
        found = self.call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def open(self, path, width=1280, height=1000, phone=False):
        self.complaints.clear()
        self.requests.clear()
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=phone,
        )
        self.call("Page.navigate", url=Path(path).resolve().as_uri())
        self.wait("document.body && document.body.dataset.frame !== undefined")

    def wait(self, expression):
        return until(lambda: self.js(expression))

    def key(self, key, code=None):
        """Presses and lets go a key, where the focus is."""
        for kind in ("keyDown", "keyUp"):
            text = {"text": key} if len(key) == 1 and kind == "keyDown" else {}
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=code or key, **text)

    def point(self, selector, x, y, press=False):
        """Moves the pointer to a share (x, y) of an element; press: and clicks."""
        self.js(f"document.querySelector('{selector}').scrollIntoView({{block: 'center'}})")
        box = self.js(f"document.querySelector('{selector}').getBoundingClientRect().toJSON()")
        at = {"x": box["x"] + x * box["width"], "y": box["y"] + y * box["height"]}
        self.call("Input.dispatchMouseEvent", type="mouseMoved", **at)
        if press:
            for kind in ("mousePressed", "mouseReleased"):
                self.call("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **at)

    def text(self, selector):
        return self.js(f"document.querySelector('{selector}').textContent")


@pytest.fixture(scope="session")
def page(tmp_path_factory):
    """A tab of a headless Chromium with a new, empty profile."""
    websocket = pytest.importorskip("websocket", reason="websocket-client is not installed")
    names = ("chromium", "chromium-browser", "google-chrome")
    program = next(filter(None, map(shutil.which, names)), None)
    if program is None:
        pytest.skip("no Chromium on this machine")
    profile = tmp_path_factory.mktemp("chromium")
    process = subprocess.Popen(
        [program, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        file = profile / "DevToolsActivePort"
        port = until(lambda: file.exists() and file.read_text().split("\n")[0], 60)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json") as answer:
            tab = next(t for t in json.load(answer) if t["type"] == "page")
        socket = websocket.create_connection(tab["webSocketDebuggerUrl"], timeout=60)
        yield Page(socket)
        socket.close()
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture(scope="session")
def report(model, toy, tmp_path_factory):
    """(report.html, frames): five frames of a net whose answers are known, and a training log."""
    folder = tmp_path_factory.mktemp("report")
    frames = {
        f"frame{i}": next(iter(toy.frames(1, (24, 32), seed=i, right=right).values()))
        for i, right in enumerate((0.9, 0.5, 0.7, 0.2, 0.8))
    }
    lmdb = toy.lmdb(folder / "test", frames, {"classes": toy.names})
    log = Path(__file__).parents[2] / "golden" / "interop" / "reference_train.log"
    path = folder / "report.html"
    evaluate.main([*model, str(lmdb), "--report", str(path), "--log", str(log)])
    return path, frames
