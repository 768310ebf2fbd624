"""The demo: answers and refusals of its server."""

import http.client
import io
import json
import re
import signal
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pytest
from command_line import assert_names
from conftest import Snapshot
from demo_browser import demo_of, started_demo
from drawn_digits import Picture, saved, seven
from PIL import Image
from programs import LIMIT_SECONDS, REPOSITORY, wait_for

from mnist_trainer.cli import main
from mnist_trainer.commands.demo import drawing_answerer
from mnist_trainer.demo import server as server_module
from mnist_trainer.demo.server import DemoServer
from mnist_trainer.inference.pictures import read_picture
from mnist_trainer.inference.predictor import Prediction

PNG = {"Content-Type": "image/png"}


def answer_length(content: bytes) -> dict[str, Any]:
    """Replace a model's answer in tests of the server alone: return the length of the content."""
    if content == b"nothing":
        raise ValueError("no digit found")
    if content == b"bug":
        raise KeyError("a bug")
    if content == b"both":
        BOTH.wait(LIMIT_SECONDS)
    return {"length": len(content)}


MODEL = "Test accuracy 98.83%, model of <b>$name\x1b"

BOTH = threading.Barrier(2)
"""Two drawings whose content is "both" are answered only if they are answered at the same time."""


def ask(
    server: DemoServer, method: str, path: str, body: bytes | None = None, **headers: str | None
) -> tuple[int, dict[str, str], bytes]:
    """Send a request on its own connection, without headers that are None; return status, headers and content."""
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    host = given.pop("Host", f"127.0.0.1:{server.server_port}")
    with closing(http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=LIMIT_SECONDS)) as connection:
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in ({"Host": host} | ({"Content-Length": str(len(body))} if body is not None else {}) | given).items():
            if value is not None:
                connection.putheader(name, value)
        connection.endheaders(body)
        response = connection.getresponse()
        return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()


@pytest.fixture(scope="module")
def server() -> Iterator[DemoServer]:
    with DemoServer(0, answer_length, MODEL) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def send_raw(server: DemoServer, *pieces: bytes) -> bytes:
    """Send bytes unchanged; return all bytes that arrive until the server closes the connection."""
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=LIMIT_SECONDS) as connection:
        for piece in pieces:
            connection.sendall(piece)
        connection.shutdown(socket.SHUT_WR)
        received = b""
        while piece := connection.recv(2**16):
            received += piece
        return received


def head_of_a_drawing(server: DemoServer, length: int, more: str = "") -> bytes:
    """Return a request up to its body."""
    host = f"Host: 127.0.0.1:{server.server_port}\r\n"
    return f"POST /answer HTTP/1.1\r\n{host}Content-Type: image/png\r\n{more}Content-Length: {length}\r\n\r\n".encode()


def error_of(answered: tuple[int, dict[str, str], bytes]) -> str:
    return str(json.loads(answered[2])["error"])


# --- the server


@pytest.mark.parametrize(
    ("path", "kind", "begins"),
    [
        ("/", "text/html; charset=utf-8", b"<!doctype html>"),
        ("/?from=somewhere", "text/html; charset=utf-8", b"<!doctype html>"),
        ("/demo.css", "text/css; charset=utf-8", b":root {"),
        ("/demo.js", "text/javascript; charset=utf-8", b"// "),
    ],
)
def test_the_page_consists_of_three_files(path: str, kind: str, begins: bytes, server: DemoServer) -> None:
    status, headers, content = ask(server, "GET", path)
    assert (status, headers["content-type"], headers["content-length"]) == (200, kind, str(len(content)))
    assert content.startswith(begins)
    assert "default-src 'none'" in headers["content-security-policy"]
    assert headers["cache-control"] == "no-store"
    status, of_head, nothing = ask(server, "HEAD", path)
    assert (status, nothing) == (200, b"")
    assert {**headers, "date": ""} == {**of_head, "date": ""}


def test_the_page_states_the_model_as_text(server: DemoServer) -> None:
    assert rb"model of &lt;b&gt;$name\x1b<" in ask(server, "GET", "/")[2]


def test_the_page_loads_nothing_from_other_hosts() -> None:
    for file in (REPOSITORY / "mnist_trainer" / "demo").glob("demo.*"):
        assert not re.search(r"https?:|//[a-z]|@import|url\(", file.read_text(encoding="utf-8")), file


def test_drawings_are_answered_at_the_same_time(server: DemoServer) -> None:
    with ThreadPoolExecutor() as clients:
        answers = list(clients.map(lambda content: ask(server, "POST", "/answer", content, **PNG), (b"both", b"both")))
    assert [(answer[0], json.loads(answer[2])["length"]) for answer in answers] == [(200, 4), (200, 4)]


def test_a_drawing_may_have_a_mebibyte(server: DemoServer) -> None:
    assert json.loads(ask(server, "POST", "/answer", b"x" * 2**20, **PNG)[2])["length"] == 2**20


def test_one_connection_serves_several_requests(server: DemoServer) -> None:
    with closing(http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=LIMIT_SECONDS)) as connection:
        for length in (3, 4):
            connection.request("POST", "/answer", b"x" * length, PNG)
            assert json.loads(connection.getresponse().read())["length"] == length


def test_a_slow_client_does_not_delay_others(server: DemoServer) -> None:
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=LIMIT_SECONDS) as slow:
        slow.sendall(b"POST /answer HTTP/1.1\r\n")
        assert ask(server, "GET", "/")[0] == 200


def test_the_body_of_a_response_does_not_wait_for_an_acknowledgement(
    server: DemoServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = []

    def setup_and_record(handler: Any, setup: Any = server_module._Handler.setup) -> None:
        setup(handler)
        options.append(handler.connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

    monkeypatch.setattr(server_module._Handler, "setup", setup_and_record)
    assert ask(server, "GET", "/")[0] == 200
    (option,) = options
    assert option


def test_many_clients_can_come_at_once() -> None:
    with DemoServer(0, answer_length, MODEL) as waiting, ExitStack() as clients:  # it does not accept connections
        if int(Path("/proc/sys/net/core/somaxconn").read_text(encoding="ascii")) < 200:
            pytest.skip("the system does not allow a queue of 200 connections")
        for _ in range(200):
            clients.enter_context(socket.create_connection(("127.0.0.1", waiting.server_port), timeout=20))


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:{port}",
        "127.0.0.1",
        "127.0.0.1:1",
        "localhost.evil.example:{port}",
        "127.0.0.1:{port}.",
        "",
        None,
    ],
)
@pytest.mark.parametrize(("method", "path"), [("GET", "/"), ("GET", "/demo.js"), ("POST", "/answer")])
def test_another_host_name_is_refused(method: str, path: str, host: str | None, server: DemoServer) -> None:
    # As if an attacker's domain resolved to this machine, so that its page could send requests to it.
    named = host and host.format(port=server.server_port)
    answered = ask(server, method, path, b"x" if method == "POST" else None, Host=named, **PNG)
    assert answered[0] == 403
    assert server.address in error_of(answered)


def test_two_host_headers_are_refused(server: DemoServer) -> None:
    host = f"Host: 127.0.0.1:{server.server_port}\r\n".encode()
    assert send_raw(server, b"GET / HTTP/1.1\r\n" + 2 * host + b"\r\n").startswith(b"HTTP/1.1 403 ")
    assert send_raw(server, b"GET / HTTP/1.1\r\n" + host + b"\r\n").startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost", "LocalHost"])
def test_its_own_names_and_origins_are_accepted(name: str, server: DemoServer) -> None:
    host = f"{name}:{server.server_port}"
    assert ask(server, "POST", "/answer", b"x", Host=host, Origin=f"http://{host}", **PNG)[0] == 200


@pytest.mark.parametrize(
    "origin",
    ["http://evil.example", "null", "https://127.0.0.1:{port}", "http://127.0.0.1:1", "http://127.0.0.1", "file://", "", "*"],
)
@pytest.mark.parametrize(("method", "path"), [("GET", "/"), ("POST", "/answer")])
def test_a_request_from_another_page_is_refused(method: str, path: str, origin: str, server: DemoServer) -> None:
    named = origin.format(port=server.server_port)
    answered = ask(server, method, path, b"x" if method == "POST" else None, Origin=named, **PNG)
    assert answered[0] == 403
    assert "other pages" in error_of(answered)
    assert "access-control-allow-origin" not in answered[1]


@pytest.mark.parametrize(
    ("method", "path", "headers", "body", "status", "words"),
    [
        pytest.param("GET", "/nowhere", {}, None, 404, ("no such page",), id="no such page"),
        pytest.param("GET", "/../pyproject.toml", {}, None, 404, ("no such page",), id="outside the folder"),
        pytest.param("GET", "/demo.html", {}, None, 404, ("no such page",), id="a file's name"),
        pytest.param("GET", "http://127.0.0.1/", {}, None, 404, ("no such page",), id="a whole address"),
        pytest.param("POST", "/nowhere", PNG, b"x", 404, ("no such page",), id="drawing for a missing page"),
        pytest.param("GET", "/answer", {}, None, 405, ("POST",), id="GET without a drawing"),
        pytest.param("POST", "/", PNG, b"x", 405, ("GET",), id="drawing for a page"),
        pytest.param("POST", "/answer", {}, b"x", 415, ("Content-Type", "image/png"), id="no type"),
        pytest.param(
            "POST",
            "/answer",
            {"Content-Type": "application/x-www-form-urlencoded"},
            b"x",
            415,
            ("Content-Type", "image/png"),
            id="a form, which any page can send",
        ),
        pytest.param("POST", "/answer", PNG, None, 411, ("Content-Length",), id="no length"),
        pytest.param(
            "POST",
            "/answer",
            PNG | {"Transfer-Encoding": "chunked"},
            b"1\r\nx\r\n0\r\n\r\n",
            411,
            ("Content-Length",),
            id="chunked",
        ),
        *(
            pytest.param(
                "POST",
                "/answer",
                PNG | {"Content-Length": length},
                b"x",
                400,
                ("Content-Length", "bytes"),
                id=f"length {length!r}",
            )
            for length in ("-1", "1.5", "one", "+1", "0x1", "1 1", "", "9" * 30, "²")
        ),
        pytest.param("POST", "/answer", PNG, b"nothing", 422, ("no digit found",), id="no digit"),
        pytest.param(
            "POST",
            "/answer",
            PNG,
            b"x" * (2**20 + 1),
            413,
            ("1,048,577 bytes", "1,048,576"),
            id="a byte too many",
        ),
        pytest.param(
            "POST",
            "/answer",
            PNG,
            b"x" * (9 * 2**20),
            413,
            ("9,437,184 bytes", "1,048,576"),
            id="far too many",
        ),
    ],
)
def test_a_malformed_request_is_refused(
    method: str,
    path: str,
    headers: dict[str, str],
    body: bytes | None,
    status: int,
    words: tuple[str, ...],
    server: DemoServer,
    snapshot: Snapshot,
) -> None:
    answered = ask(server, method, path, body, **headers)
    assert answered[0] == status
    assert_names(error_of(answered), "", *words)
    assert answered[1]["connection"] == "close"
    assert answered[1].get("allow") == {"/answer": "POST", "/": "GET, HEAD"}.get(path if status == 405 else "")
    assert ask(server, "POST", "/answer", b"x", **PNG)[0] == 200  # the next request is answered
    snapshot(error_of(answered))


def test_a_body_that_ends_early_is_refused(server: DemoServer) -> None:
    received = send_raw(server, head_of_a_drawing(server, 10), b"x" * 4)
    assert received.startswith(b"HTTP/1.1 400 ")
    assert_names(json.loads(received.partition(b"\r\n\r\n")[2])["error"], "", "4 ", "10 bytes")


def test_a_missing_body_times_out(server: DemoServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module._Handler, "timeout", 1.0)  # long enough for the head to arrive on a slow machine
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=LIMIT_SECONDS) as connection:
        connection.sendall(head_of_a_drawing(server, 10))
        assert connection.recv(2**16).startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize("length", [5, 2**20 + 1])
def test_expect_100_continue_is_answered_before_the_body(length: int, server: DemoServer) -> None:
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=LIMIT_SECONDS) as connection:
        connection.sendall(head_of_a_drawing(server, length, "Expect: 100-continue\r\n"))
        received = connection.recv(2**16)
        assert received.startswith(b"HTTP/1.1 100 " if length == 5 else b"HTTP/1.1 413 ")


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "CONNECT"])
def test_other_methods_are_not_implemented(method: str, server: DemoServer) -> None:
    answered = ask(server, method, "/answer", b"x", **PNG)
    assert answered[0] == 501
    assert method in error_of(answered)
    assert answered[1]["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "line",
    [b"", b"\r\n\r\n", b"GET\r\n\r\n", b"\x16\x03\x01\x02\x00\x01", b"GET / HTTP/9.9\r\n\r\n", b"G" * 70000, bytes(range(256))],
)
def test_requests_that_are_not_http_print_no_traceback(
    line: bytes, server: DemoServer, capfd: pytest.CaptureFixture[str]
) -> None:
    send_raw(server, line)
    assert ask(server, "GET", "/")[0] == 200
    assert capfd.readouterr() == ("", "")


def test_a_client_that_disconnects_is_not_reported(server: DemoServer, capfd: pytest.CaptureFixture[str]) -> None:
    for _ in range(5):
        connection = socket.create_connection(("127.0.0.1", server.server_port), timeout=LIMIT_SECONDS)
        connection.setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00"
        )  # closing resets the connection
        connection.sendall(f"GET /demo.js HTTP/1.1\r\nHost: 127.0.0.1:{server.server_port}\r\n\r\n".encode())
        connection.close()
    assert ask(server, "GET", "/")[0] == 200
    assert capfd.readouterr() == ("", "")


def test_a_drawing_that_cannot_be_answered_is_reported(server: DemoServer, capfd: pytest.CaptureFixture[str]) -> None:
    status, _, content = ask(server, "POST", "/answer", b"bug", **PNG)
    assert status == 500
    assert "cannot be answered" in json.loads(content)["error"]
    message = capfd.readouterr().err
    assert_names(message, "a drawing cannot be answered: ", "a bug")
    assert len(message.splitlines()) == 1
    assert ask(server, "POST", "/answer", b"after", **PNG)[0] == 200


def test_the_oldest_of_too_many_connections_ends(server: DemoServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mnist_trainer.demo.server._MAX_CONNECTIONS", 3)
    with ExitStack() as stack:
        address = "127.0.0.1", server.server_address[1]
        idle = [stack.enter_context(socket.create_connection(address, timeout=20)) for _ in range(5)]
        assert ask(server, "GET", "/")[0] == 200
        for connection in idle[:2]:
            assert connection.recv(1) == b""


def test_malformed_headers_end_the_connection(server: DemoServer) -> None:
    with socket.create_connection(("127.0.0.1", server.server_address[1]), timeout=20) as connection:
        host = f"127.0.0.1:{server.server_address[1]}"
        connection.sendall(f"GET / HTTP/1.1\r\nHost: {host}\r\nContent-Length : 30\r\n\r\nGET / HTTP/1.1\r\n".encode())
        connection.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: connection.recv(4096), b""))
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1") == 1


def test_the_server_listens_on_the_loopback_address_alone(server: DemoServer) -> None:
    assert server.server_address == ("127.0.0.1", server.server_port)
    assert server.socket.getsockname()[0] == "127.0.0.1"


# --- the command


class RecordingModel:
    """Replaces the model in tests of the threads: records in which threads it predicts."""

    def __init__(self) -> None:
        self.threads: list[int] = []

    def predict(self, image: npt.NDArray[np.uint8]) -> Prediction:
        self.threads.append(threading.get_ident())
        return Prediction(image, np.full(10, 0.1))


def drawing(paper: int) -> bytes:
    """Return a drawing whose paper has this level."""
    return saved(seven(0, paper)).getvalue()


def test_drawings_are_read_side_by_side_and_predicted_in_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    model, release, reading, most_readers = RecordingModel(), threading.Event(), set(), []

    def read_slowly(stream: io.BytesIO, max_pixels: int) -> Picture:
        reading.add(threading.get_ident())
        most_readers.append(len(reading))
        picture = read_picture(stream, max_pixels)
        if picture.getpixel((0, 0)) == 200:
            assert release.wait(LIMIT_SECONDS)
        reading.remove(threading.get_ident())
        return picture

    monkeypatch.setattr("mnist_trainer.inference.pictures.read_picture", read_slowly)
    with ThreadPoolExecutor(1) as network_thread, ThreadPoolExecutor(20) as requests:
        answer = drawing_answerer(cast(Any, model), network_thread)
        slow = [requests.submit(answer, drawing(200)) for _ in range(3)]
        wait_for(lambda: len(reading) == 3)
        assert answer(drawing(255))["digit"] == 0  # while three others are being read
        slow += [requests.submit(answer, drawing(200)) for _ in range(8)]
        wait_for(lambda: len(reading) >= 4)
        release.set()
        assert [len(request.result()["probabilities"]) for request in slow] == 11 * [10]
    assert max(most_readers) == 4
    assert len(model.threads) == 12
    assert len(set(model.threads)) == 1
    assert threading.get_ident() not in model.threads


@pytest.mark.process
def test_ctrl_c_ends_the_demo(trained_run: Path, tmp_path: Path) -> None:
    with started_demo(trained_run) as (process, address):
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", address)
        connection = http.client.HTTPConnection(address.split("/")[2], timeout=LIMIT_SECONDS)
        picture = io.BytesIO()
        Image.new("L", (280, 280), 255).save(picture, "png")
        connection.request("POST", "/answer", picture.getvalue(), PNG)  # the connection stays open, as with browsers
        response = connection.getresponse()
        assert response.status == 422
        assert "one colour" in json.loads(response.read())["error"]
        connection.request("POST", "/answer", b"", PNG)
        response = connection.getresponse()
        assert response.status == 422
        assert_names(json.loads(response.read())["error"], "", "empty")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate()
        connection.close()
    assert (process.returncode, out.count("\n")) == (0, 1)
    assert_names(err, "the demo has ended")


@pytest.mark.process
def test_a_drawing_of_many_pixels_is_refused(trained_run: Path) -> None:
    picture = io.BytesIO()
    Image.new("L", (1200, 1000), 255).save(picture, "png")
    with demo_of(trained_run) as address:
        connection = http.client.HTTPConnection(address.split("/")[2], timeout=LIMIT_SECONDS)
        connection.request("POST", "/answer", picture.getvalue(), PNG)
        response = connection.getresponse()
        assert response.status == 422
        assert_names(json.loads(response.read())["error"], "", "1,200×1,000 pixels", "1,000,000")
        connection.close()


@pytest.mark.parametrize("port", ["-1", "65536", "99999999999"])
def test_a_port_out_of_range_is_refused(port: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", str(tmp_path), "--port", port]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert_names(err, f"--port {port}: ", "0 to 65535")


def test_a_port_that_is_taken_is_refused(trained_run: Path, server: DemoServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", str(trained_run), "--port", str(server.server_port)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert_names(err, f"--port {server.server_port}: ", "Address already in use", " 0 ")
