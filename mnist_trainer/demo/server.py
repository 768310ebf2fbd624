"""The server of the page to draw digits on. It listens on the loopback address.

Standard library only. This module handles HTTP and refuses unwanted requests. Its caller provides the function that answers
drawings.
"""

import json
import re
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from html import escape
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer
from string import Template
from types import MappingProxyType
from typing import Any

from mnist_trainer.console import printable, say

HOST = "127.0.0.1"
ANSWER_PATH = "/answer"
MAX_BODY_BYTES = 2**20

_CLIENT_SECONDS = 10  # timeout for the next byte of a request
_MAX_CONNECTIONS = 256  # a program on this machine could open any number
_MAX_DISCARDED_BYTES = 16 * 2**20

_PAGE_FOLDER = Path(__file__).parent
_PAGE_FILES = {
    "/": ("demo.html", "text/html; charset=utf-8"),
    "/demo.css": ("demo.css", "text/css; charset=utf-8"),
    "/demo.js": ("demo.js", "text/javascript; charset=utf-8"),
}

_HEADERS = {
    # The page may load only its own three files, and other pages may not embed it.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}

AnswerDrawing = Callable[[bytes], Mapping[str, Any]]
"""A function from the content of a picture file to an object, which the page receives as JSON.

It is called in many threads at the same time. It raises ValueError with a message if the content is not a drawing.
"""


class DemoServer(ThreadingHTTPServer):
    """Serves the page on the loopback address, and answers drawings, each request in a thread of its own.

    Args:
        port: The port; 0 for any free port.
        answer_drawing: Returns the answer to a drawing.
        model: The line about the model on the page.

    Attributes:
        address: The URL of the page.

    Raises:
        OSError: The port is not available.
    """

    daemon_threads = True  # otherwise closing the server waits for connections that a browser keeps open
    request_queue_size = 1024  # with a short queue, clients that come at once try again after seconds

    def __init__(self, port: int, answer_drawing: AnswerDrawing, model: str) -> None:
        self.files = {path: ((_PAGE_FOLDER / name).read_bytes(), kind) for path, (name, kind) in _PAGE_FILES.items()}
        page, kind = self.files["/"]
        self.files["/"] = Template(page.decode()).substitute(model=escape(printable(model))).encode(), kind
        self.answer_drawing = answer_drawing
        self._open: dict[Any, None] = {}  # the connections, the oldest first
        self._lock = threading.Lock()
        super().__init__((HOST, port), _Handler)
        port = self.server_address[1]
        self.hosts = {f"{name}:{port}" for name in (HOST, "localhost")} | ({HOST, "localhost"} if port == 80 else set())
        self.origins = {f"http://{host}" for host in self.hosts}
        self.address = f"http://{HOST}:{port}/"

    def server_bind(self) -> None:
        TCPServer.server_bind(self)  # HTTPServer's method would look up the host name in the network
        self.server_name, self.server_port = HOST, self.server_address[1]

    def get_request(self) -> Any:
        try:
            return super().get_request()
        except OSError:
            time.sleep(0.1)  # too many open files: otherwise the server would try again without a pause
            raise

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer a connection in a thread of its own. Beyond `_MAX_CONNECTIONS`, end the one that is open the longest."""
        with self._lock:
            self._open[request] = None
            oldest = next(iter(self._open)) if len(self._open) > _MAX_CONNECTIONS else None
            self._open.pop(oldest, None)
        if oldest:
            with suppress(OSError):
                oldest.shutdown(socket.SHUT_RDWR)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print a message instead of socketserver's traceback."""
        error = sys.exception()
        if not isinstance(error, ConnectionError | TimeoutError):  # the client has disconnected
            say(f"a request failed: {error!r}")


class _Refusal(Exception):  # noqa: N818 - not an error of this program
    """The refusal of a request.

    Args:
        status: The status of the response.
        sentence: The reason.
        allow: The methods that the path allows.
    """

    def __init__(self, status: HTTPStatus, sentence: str, allow: str = "") -> None:
        super().__init__(sentence)
        self.status = status
        self.headers = {"Allow": allow} if allow else {}


class _Handler(BaseHTTPRequestHandler):
    server: DemoServer
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "mnist-trainer", ""
    timeout = _CLIENT_SECONDS
    disable_nagle_algorithm = True  # otherwise the body of a response waits until the client acknowledges its head

    def do_GET(self) -> None:
        self._respond(self._file)

    do_HEAD = do_GET  # noqa: N815

    def do_POST(self) -> None:
        self._respond(self._answer)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer a request that http.server refuses, such as one with another method, as `_respond` does."""
        self.close_connection = True
        status = HTTPStatus(code)
        self._send(status, _json({"error": message or status.phrase}), _JSON)

    def log_message(self, *_: Any) -> None:
        """Print nothing: requests are not logged."""

    def handle_expect_100(self) -> bool:
        with suppress(_Refusal):  # `_respond` refuses the request before it reads the body
            self._body_length()
            return super().handle_expect_100()
        return True

    def _respond(self, make: Callable[[], tuple[bytes, str]]) -> None:
        try:
            self._check_origin()
            content, kind = make()
        except _Refusal as refusal:
            self.close_connection = True  # otherwise the unread body would be read as the next request
            self._send(refusal.status, _json({"error": str(refusal)}), _JSON, refusal.headers)
            self._discard_body()
        else:
            self._send(HTTPStatus.OK, content, kind)

    def _check_origin(self) -> None:
        """Refuse requests that another page made a browser send, directly or through a host name that resolves to this address.

        Raises:
            _Refusal: The Host or the Origin is not this server's.
        """
        if self.headers.defects:  # a header that was not understood may be the length of a body
            raise _Refusal(HTTPStatus.BAD_REQUEST, "the headers are malformed")
        hosts = self.headers.get_all("Host", [])
        if len(hosts) != 1 or hosts[0].lower() not in self.server.hosts:
            raise _Refusal(HTTPStatus.FORBIDDEN, f"requests to other host names are refused; use {self.server.address}")
        if any(origin.lower() not in self.server.origins for origin in self.headers.get_all("Origin", [])):
            raise _Refusal(HTTPStatus.FORBIDDEN, "requests from other pages are refused")

    def _file(self) -> tuple[bytes, str]:
        path = self.path.partition("?")[0]
        if path == ANSWER_PATH:
            raise _Refusal(HTTPStatus.METHOD_NOT_ALLOWED, "send drawings with POST", allow="POST")
        if path not in self.server.files:
            raise _Refusal(HTTPStatus.NOT_FOUND, "there is no such page")
        if "Content-Length" in self.headers or "Transfer-Encoding" in self.headers:
            self.close_connection = True  # the body is not read
        return self.server.files[path]

    def _answer(self) -> tuple[bytes, str]:
        if self.path in self.server.files:
            raise _Refusal(HTTPStatus.METHOD_NOT_ALLOWED, "load this page with GET", allow="GET, HEAD")
        if self.path != ANSWER_PATH:
            raise _Refusal(HTTPStatus.NOT_FOUND, "there is no such page")
        if self.headers.get_content_maintype() != "image":
            raise _Refusal(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "send a picture with the Content-Type image/png")
        length = self._body_length()
        try:
            body = self.rfile.read(length)
        except TimeoutError as error:
            raise _Refusal(HTTPStatus.REQUEST_TIMEOUT, f"no data arrived for {_CLIENT_SECONDS} s") from error
        if len(body) < length:
            raise _Refusal(HTTPStatus.BAD_REQUEST, f"only {len(body):,} of {length:,} bytes arrived")
        try:
            return _json(self.server.answer_drawing(body)), _JSON
        except ValueError as error:
            raise _Refusal(HTTPStatus.UNPROCESSABLE_ENTITY, str(error)) from error
        except Exception as error:  # for example, the output of the network is not finite
            say(f"a drawing cannot be answered: {str(error) or type(error).__name__}")
            sentence = "the drawing cannot be answered; the terminal shows why"
            raise _Refusal(HTTPStatus.INTERNAL_SERVER_ERROR, sentence) from error

    def _body_length(self) -> int:
        lengths = self.headers.get_all("Content-Length", [])
        if "Transfer-Encoding" in self.headers or not lengths:
            raise _Refusal(HTTPStatus.LENGTH_REQUIRED, "send the picture in one piece with a Content-Length")
        if len(lengths) > 1 or not re.fullmatch(r"[0-9]{1,18}", lengths[0]):
            raise _Refusal(HTTPStatus.BAD_REQUEST, "the Content-Length is not a number of bytes")
        length = int(lengths[0])
        if length > MAX_BODY_BYTES:
            sentence = f"the drawing has {length:,} bytes; the maximum is {MAX_BODY_BYTES:,}"
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
        # Closing a connection with unread data resets it, and the client may lose the answer.
        self.connection.settimeout(1)
        with suppress(OSError):
            left = _MAX_DISCARDED_BYTES
            while left > 0 and (piece := self.rfile.read1(2**16)):
                left -= len(piece)


_JSON = "application/json"


def _json(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content).encode()
