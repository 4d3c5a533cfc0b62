"""The server behind the page: it answers browsers on this machine alone.

It listens on the loopback interface. Other pages in the same browser are kept out: the name in the
Host header must be this machine's, so that no name of theirs can point here; requests to label must
come from the page itself (Origin) and carry the token that only the page knows. What is uploaded is
held in memory alone, one request at a time.
"""

from __future__ import annotations

import hmac
import json
import secrets
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from socketserver import TCPServer, ThreadingMixIn
from typing import Any

from boundary import running
from boundary.errors import InputError
from data_tools.cli import DataError, say
from eval_tools import pages
from eval_tools.live import FIRST, LAST, message
from eval_tools.live.model import Model
from eval_tools.live.sources import Frames

LOOPBACK = "127.0.0.1"
NAMES = (LOOPBACK, "localhost")  # in the Host header
MOST_BYTES = 2**27  # of an upload: colour and depth of 16 million pixels, depth as floats
MOST_WAITING = 8  # requests in the queue
PATIENCE = 30.0  # seconds for a browser to send or take something

# The page runs its own script with its own style, shows its own pictures and talks to this server.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Server(ThreadingMixIn, TCPServer):
    """Serves the page of a model on the loopback interface.

    port: 0 for any; None for the first of 8000 to 8099 that is free. frames: those of a camera or
    recording, or None. Raises DataError if the port cannot be had.
    """

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, model: Model, frames: Frames | None = None, port: int | None = None) -> None:
        self.model, self.frames = model, frames
        self.token = secrets.token_urlsafe(32)
        self.files = _files(self)
        self._turn, self._places = threading.Lock(), threading.BoundedSemaphore(MOST_WAITING)
        super().__init__((LOOPBACK, 0), Handler, bind_and_activate=False)
        try:
            self._bind(port)
        except OSError as error:
            self.server_close()
            place = f"port {port}" if port is not None else f"ports {FIRST} to {LAST}"
            raise DataError(f"{LOOPBACK}, {place}: {error.strerror} (see --port)") from error

    def _bind(self, port: int | None) -> None:
        for number in [port] if port is not None else range(FIRST, LAST + 1):
            try:
                self.server_address = (LOOPBACK, number)
                self.server_bind()
                return self.server_activate()
            except OSError:
                if number in (port, LAST):
                    raise
                self.socket.close()
                self.socket = socket.socket(self.address_family, self.socket_type)
        return None

    @property
    def url(self) -> str:
        """The page's address."""
        return f"http://{LOOPBACK}:{self.server_address[1]}/"

    @contextmanager
    def turn(self) -> Iterator[None]:
        """A request's turn: one at a time is worked on. Raises Refusal if too many wait."""
        if not self._places.acquire(blocking=False):
            raise Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "too many requests wait; try again")
        try:
            with self._turn:
                yield
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Says what went wrong in one line; nothing if the browser is gone."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            say(f"python -m eval_tools.live: {running.placed(error)}")


def _files(server: Server) -> dict[str, tuple[str, bytes]]:
    """The page's files by path: their type and content."""
    facts = {
        **server.model.facts(),
        "token": server.token,
        "most_bytes": MOST_BYTES,
        "frames": server.frames.facts() if server.frames else None,
    }
    parts = {
        "title": escape(f"FuseNet: {facts['model']}"),
        "data": pages.script_safe(json.dumps(facts)),
    }
    texts = {
        "/": ("text/html", pages.fill(pages.asset(__package__, "page.html"), parts)),
        "/page.css": ("text/css", pages.style(__package__)),
        "/page.js": ("text/javascript", pages.script(__package__)),
    }
    return {
        path: (f"{kind}; charset=utf-8", text.encode(errors="replace"))
        for path, (kind, text) in texts.items()
    }


class Refusal(Exception):
    """A request that is refused: its status, and why."""

    def __init__(self, status: HTTPStatus, why: str) -> None:
        super().__init__(why)
        self.status = status


class Handler(BaseHTTPRequestHandler):
    """One connection of a browser."""

    protocol_version = "HTTP/1.1"
    server_version, sys_version = "fusenet", ""
    timeout = PATIENCE
    server: Server

    def do_GET(self) -> None:
        """The page's files."""
        self._answered(self._file)

    def do_POST(self) -> None:
        """Labels: of dropped files (/label), or of the frames as they come (/frame)."""
        self._answered(self._labels)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is printed for requests."""

    def _answered(self, work: Any) -> None:
        """Sends what `work` gives, or one line that says why it gives nothing."""
        try:
            self._check_host()
            kind, data = work()
            return self._send(HTTPStatus.OK, kind, data)
        except Refusal as refusal:
            self.close_connection = True  # a body may be unread
            status, why = refusal.status, str(refusal)
        except InputError as error:
            status, why = HTTPStatus.BAD_REQUEST, str(error)
        except OSError:
            raise
        except Exception as error:  # out of memory, say, or a bug: still one line
            status, why = HTTPStatus.INTERNAL_SERVER_ERROR, running.placed(error)
        return self._send(status, "application/json", json.dumps({"error": why}).encode())

    def _send(self, status: HTTPStatus, kind: str, data: bytes) -> None:
        self.send_response(status)
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(data)

    def _check_host(self) -> None:
        """Raises Refusal for any name but this machine's."""
        host = self.headers.get("Host", "")
        if host.rpartition(":")[0] not in NAMES and host not in NAMES:
            raise Refusal(HTTPStatus.FORBIDDEN, f"this page is at {self.server.url} alone")

    def _file(self) -> tuple[str, bytes]:
        path = self.path.partition("?")[0]
        if path not in self.server.files:
            raise Refusal(HTTPStatus.NOT_FOUND, "there is no such page")
        return self.server.files[path]

    def _labels(self) -> tuple[str, bytes]:
        if self.path not in ("/label", "/frame"):
            raise Refusal(HTTPStatus.NOT_FOUND, "there is no such page")
        self._check_page()
        data = self._of_file() if self.path == "/label" else self._of_frame()
        return "application/octet-stream", data

    def _check_page(self) -> None:
        """Raises Refusal unless the page itself sent the request."""
        if self.headers.get("Origin") != f"http://{self.headers['Host']}":
            raise Refusal(HTTPStatus.FORBIDDEN, "the request comes from another page")
        token = self.headers.get("X-FuseNet-Token", "")
        if not hmac.compare_digest(token.encode(), self.server.token.encode()):
            raise Refusal(HTTPStatus.FORBIDDEN, "the page is of an earlier run; load it again")

    def _of_file(self) -> bytes:
        size = self._size(MOST_BYTES)
        with self.server.turn():  # also the upload is read one at a time: it takes memory
            facts, blocks = message.unpack(self._body(size))
            model = self.server.model
            given = model.example() if facts.get("example") else model.read(facts, blocks)
            return model.answer(given)

    def _of_frame(self) -> bytes:
        facts, _ = message.unpack(self._body(self._size(2**16)))
        if self.server.frames is None:
            raise DataError("there is no camera and no recording")
        given = self.server.frames.take(facts.get("at"))
        with self.server.turn():
            return self.server.model.answer(given)

    def _size(self, most: int) -> int:
        """The length of the body. Raises Refusal if it is not told, or more than `most`."""
        text = self.headers.get("Content-Length", "")
        if not (text.isascii() and text.isdigit()):
            raise Refusal(HTTPStatus.LENGTH_REQUIRED, "the length of the request is not told")
        if len(text) > 12 or int(text) > most:
            raise Refusal(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"the files have {text[:12]} bytes; at most {most} are taken",
            )
        return int(text)

    def _body(self, size: int) -> bytes:
        data = self.rfile.read(size)
        if len(data) < size:
            raise ConnectionError("the browser went away")
        return data
