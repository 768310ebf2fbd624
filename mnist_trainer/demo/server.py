"""A page on the loopback address to draw digits on, and the server behind it.

Standard library only. Knows HTTP, and which requests to refuse; what there is to say to a drawing, a function is asked.
"""

import json
import re
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer
from types import MappingProxyType
from typing import Any

from mnist_trainer.console import say

HOST = "127.0.0.1"
ANSWER_PATH = "/answer"
MAX_BODY_BYTES = 2**20

_CLIENT_SECONDS = 10  # that a client may let pass before the next byte of its request
_MAX_DISCARDED_BYTES = 16 * 2**20

_PAGE_FOLDER = Path(__file__).parent
_PAGE_FILES = {
    "/": ("demo.html", "text/html; charset=utf-8"),
    "/demo.css": ("demo.css", "text/css; charset=utf-8"),
    "/demo.js": ("demo.js", "text/javascript; charset=utf-8"),
}

_HEADERS = {
    # Nothing but the page's own three files, and no other page around it.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}

AnswerDrawing = Callable[[bytes], Mapping[str, Any]]
"""From a picture's file to what goes to the page as JSON. Raises ValueError, with a sentence, for what is no drawing."""


class DemoServer(ThreadingHTTPServer):
    """Serves the page on the loopback address, and asks `answer_drawing` for answers, one drawing at a time.

    port: 0 for any that is free. answer_drawing: always called in the same thread, which MXNet likes.

    Raises OSError when the port cannot be had.
    """

    daemon_threads = True  # a browser keeps connections open, which are not waited for

    def __init__(self, port: int, answer_drawing: AnswerDrawing) -> None:
        self.files = {path: ((_PAGE_FOLDER / name).read_bytes(), kind) for path, (name, kind) in _PAGE_FILES.items()}
        self._answer_drawing = answer_drawing
        self._thread = ThreadPoolExecutor(max_workers=1)
        super().__init__((HOST, port), _Handler)
        port = self.server_address[1]
        self.hosts = {f"{name}:{port}" for name in (HOST, "localhost")} | ({HOST, "localhost"} if port == 80 else set())
        self.origins = {f"http://{host}" for host in self.hosts}
        self.address = f"http://{HOST}:{port}/"

    def server_bind(self) -> None:
        TCPServer.server_bind(self)  # HTTPServer's own asks the network for the host's name
        self.server_name, self.server_port = HOST, self.server_address[1]

    def server_close(self) -> None:
        super().server_close()
        self._thread.shutdown(cancel_futures=True)

    def answer(self, body: bytes) -> Mapping[str, Any]:
        return self._thread.submit(self._answer_drawing, body).result()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Says in a sentence what socketserver would print with a traceback."""
        error = sys.exception()
        if not isinstance(error, ConnectionError | TimeoutError):  # a client that has left is nothing to tell of
            say(f"a request of the page failed: {error!r}")


class _Refusal(Exception):  # noqa: N818 - no error of ours
    """A request that is not answered, and why; `allow` are the methods that the path has."""

    def __init__(self, status: HTTPStatus, sentence: str, allow: str = "") -> None:
        super().__init__(sentence)
        self.status = status
        self.headers = {"Allow": allow} if allow else {}


class _Handler(BaseHTTPRequestHandler):
    server: DemoServer
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "mnist-trainer", ""
    timeout = _CLIENT_SECONDS

    def do_GET(self) -> None:
        self._respond(self._file)

    do_HEAD = do_GET  # noqa: N815

    def do_POST(self) -> None:
        self._respond(self._answer)

    def log_message(self, *_: Any) -> None:
        """Requests are nothing to tell of."""

    def handle_expect_100(self) -> bool:
        with suppress(_Refusal):  # which is told instead, before the body comes
            self._body_length()
            return super().handle_expect_100()
        return True

    def _respond(self, make: Callable[[], tuple[bytes, str]]) -> None:
        try:
            self._refuse_strangers()
            content, kind = make()
        except _Refusal as refusal:
            self.close_connection = True  # what has not been read of it would be taken for the next request
            self._send(refusal.status, _json({"error": str(refusal)}), _JSON, refusal.headers)
            self._discard_body()
        else:
            self._send(HTTPStatus.OK, content, kind)

    def _refuse_strangers(self) -> None:
        """Raises for a request that another page, or another name for this address, may have sent a browser to make."""
        hosts = self.headers.get_all("Host", [])
        if len(hosts) != 1 or hosts[0].lower() not in self.server.hosts:
            raise _Refusal(HTTPStatus.FORBIDDEN, f"this page is at {self.server.address} and under no other host's name")
        if any(origin.lower() not in self.server.origins for origin in self.headers.get_all("Origin", [])):
            raise _Refusal(HTTPStatus.FORBIDDEN, "other pages' requests are not answered")

    def _file(self) -> tuple[bytes, str]:
        path = self.path.partition("?")[0]
        if path == ANSWER_PATH:
            raise _Refusal(HTTPStatus.METHOD_NOT_ALLOWED, "send a drawing by POST", allow="POST")
        if path not in self.server.files:
            raise _Refusal(HTTPStatus.NOT_FOUND, "there is no such page")
        if "Content-Length" in self.headers or "Transfer-Encoding" in self.headers:
            self.close_connection = True  # nobody reads that body
        return self.server.files[path]

    def _answer(self) -> tuple[bytes, str]:
        if self.path in self.server.files:
            raise _Refusal(HTTPStatus.METHOD_NOT_ALLOWED, "get this page by GET", allow="GET, HEAD")
        if self.path != ANSWER_PATH:
            raise _Refusal(HTTPStatus.NOT_FOUND, "there is no such page")
        if self.headers.get_content_maintype() != "image":
            raise _Refusal(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "send a picture, with the Content-Type image/png")
        length = self._body_length()
        try:
            body = self.rfile.read(length)
        except TimeoutError as error:
            raise _Refusal(HTTPStatus.REQUEST_TIMEOUT, f"nothing more came for {_CLIENT_SECONDS} s") from error
        if len(body) < length:
            raise _Refusal(HTTPStatus.BAD_REQUEST, f"only {len(body):,} of {length:,} bytes came")
        try:
            return _json(self.server.answer(body)), _JSON
        except ValueError as error:
            raise _Refusal(HTTPStatus.UNPROCESSABLE_ENTITY, str(error)) from error

    def _body_length(self) -> int:
        lengths = self.headers.get_all("Content-Length", [])
        if "Transfer-Encoding" in self.headers or not lengths:
            raise _Refusal(HTTPStatus.LENGTH_REQUIRED, "send the picture whole, with its Content-Length")
        if len(lengths) > 1 or not re.fullmatch(r"[0-9]{1,18}", lengths[0]):
            raise _Refusal(HTTPStatus.BAD_REQUEST, "the Content-Length is no number of bytes")
        length = int(lengths[0])
        if length > MAX_BODY_BYTES:
            sentence = f"{length:,} bytes are more than the {MAX_BODY_BYTES:,} that a drawing may have"
            raise _Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, sentence)
        return length

    def _send(self, status: HTTPStatus, content: bytes, kind: str, headers: Mapping[str, str] = MappingProxyType({})) -> None:
        self.send_response(status)
        closing = {"Connection": "close"} if self.close_connection else {}
        own = {"Content-Type": kind, "Content-Length": str(len(content))}
        for name, value in {**own, **_HEADERS, **closing, **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _discard_body(self) -> None:
        # Closing a connection on which something waits to be read resets it, and the answer may be lost with it.
        self.connection.settimeout(1)
        with suppress(OSError):
            left = _MAX_DISCARDED_BYTES
            while left > 0 and (piece := self.rfile.read1(2**16)):
                left -= len(piece)


_JSON = "application/json"


def _json(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content).encode()
