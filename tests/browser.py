"""A headless Chromium, driven through its DevTools."""

import json
import shutil
import subprocess
import time
import urllib.request
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path

import pytest

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

    def open(self, place, width=1280, height=1000, phone=False):
        """Opens an address, or a file, and waits until the page shows a frame or is ready to."""
        self.complaints.clear()
        self.requests.clear()
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=phone,
        )
        url = place if str(place).startswith("http") else Path(place).resolve().as_uri()
        self.call("Page.navigate", url=url)
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

    def grave(self):
        """What axe finds in the page that is serious or critical: names of rules, and elements."""
        axe = pytest.importorskip("axe_core_python", reason="axe-core-python is not installed")
        self.js(files(axe).joinpath("axe.min.js").read_text() + "; 0")
        found = self.js(
            "axe.run().then(r => r.violations.map(v => [v.id, v.impact, v.nodes[0].html]))"
        )
        return [violation for violation in found if violation[1] in ("serious", "critical")]

    def scheme(self, name=None):
        """Prefers 'light' or 'dark', or neither."""
        features = [{"name": "prefers-color-scheme", "value": name}] if name else []
        self.call("Emulation.setEmulatedMedia", features=features)


@contextmanager
def chromium(profile):
    """A tab of a headless Chromium whose profile, a folder, is new and empty."""
    websocket = pytest.importorskip("websocket", reason="websocket-client is not installed")
    names = ("chromium", "chromium-browser", "google-chrome")
    program = next(filter(None, map(shutil.which, names)), None)
    if program is None:
        pytest.skip("no Chromium on this machine")
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
