"""A page that is served, and what asks it without a browser."""

import http.client
import threading
from contextlib import contextmanager
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from boundary import packed
from data_tools.cli import DataError
from eval_tools.live import message
from eval_tools.live.model import Model
from eval_tools.live.server import Server
from eval_tools.predictor import Predictor


def draw(seed=0, size=(24, 32)):
    """(bgr, depth in mm) of patches that the toy net labels with all of its labels."""
    random = np.random.default_rng(seed)
    small = random.integers(0, 256, (6, 8, 3), np.uint8)
    bgr = cv2.resize(small, size[::-1], interpolation=cv2.INTER_NEAREST)
    near = random.integers(0, 8000, (6, 8), np.uint16)
    depth = cv2.resize(near, size[::-1], interpolation=cv2.INTER_NEAREST)
    depth[:2] = 0
    return bgr, depth


class Client:
    """Asks a server as the page does, or otherwise where a test says so."""

    def __init__(self, server):
        self.server = server
        self.host = f"127.0.0.1:{server.server_address[1]}"

    def send(self, method, path, body=None, **headers):
        """(status, headers, body). A header of None is left out."""
        usual = {"Host": self.host}
        if method == "POST":
            usual |= {"Origin": f"http://{self.host}", "X-FuseNet-Token": self.server.token}
            usual["Content-Length"] = str(len(body or b""))
        usual |= {name.replace("_", "-"): value for name, value in headers.items()}
        link = http.client.HTTPConnection("127.0.0.1", self.server.server_address[1], timeout=20)
        link.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in usual.items():
            if value is not None:
                link.putheader(name, value)
        link.endheaders(body)
        answer = link.getresponse()
        found = answer.status, dict(answer.headers), answer.read()
        link.close()
        return found

    def label(self, facts, **blocks):
        """(facts, blocks) of an answer, or the error's text."""
        status, _, body = self.send("POST", "/label", message.pack(facts, blocks))
        return message.unpack(body) if status == 200 else body.decode()


@contextmanager
def serving(predictor, frames=None, unit=None):
    with Server(Model(predictor, unit=unit), frames, 0) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join(10)


@pytest.fixture(scope="session")
def tools():
    """This file's functions, for the tests beside it."""
    return SimpleNamespace(draw=draw, serving=serving, Client=Client)


@pytest.fixture(scope="session")
def fusenet(model, toy, tmp_path_factory):
    """A packed model of the toy net with an example and figures."""
    folder = tmp_path_factory.mktemp("live")
    bgr, depth = draw(seed=5)
    cv2.imwrite(str(folder / "c.png"), bgr)
    np.save(folder / "d.npy", depth)
    info = {
        "options": {"size": [16, 12], "fit": "crop", "depth_range": "0:8", "float_depth": False},
        "classes": [*toy.names[:2], "<b>green</b>", *toy.names[3:]],
        "palette": [[0, 0, 0], [250, 0, 0], [0, 250, 0], [0, 0, 250], [250, 250, 0]],
        "example": {"depth_unit": "5000"},
        "figures": [{"mean_iou": 0.453, "global_accuracy": float("nan"), "frames": 654}, 3],
    }
    files = {"color": folder / "c.png", "depth": folder / "d.npy"}
    path = folder / "toy.fusenet"
    packed.write(path, info, dict(zip(("net", "weights"), model, strict=True)) | files, DataError)
    return path


@pytest.fixture(scope="session")
def predictor(fusenet):
    return Predictor(fusenet)


@pytest.fixture(scope="session")
def server(predictor):
    """A server of the packed model."""
    with serving(predictor) as found:
        yield found


@pytest.fixture(scope="session")
def client(server):
    return Client(server)
