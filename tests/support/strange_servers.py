"""Servers that are no Triton, or a Triton that errs: real sockets, with answers that a test chooses."""

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self


def drip(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "100000")
    handler.end_headers()
    with contextlib.suppress(OSError):
        for _ in range(200):
            handler.wfile.write(b" ")
            handler.wfile.flush()
            time.sleep(0.1)


def answer_with(content: bytes, status: int = 200, **headers: str) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        with contextlib.suppress(OSError):
            handler.wfile.write(content)

    return answer


@contextlib.contextmanager
def hostile(answer: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[str]:
    """A web server that is no Triton."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


class Raw:
    """A server that answers each request on a connection with what `answer` gives for its body; None ends the connection."""

    def __init__(self, answer: Callable[[bytes], bytes | None], *, closing: bool = False) -> None:
        self.closing = closing
        self.answer, self.listener = answer, socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError), connection, connection.makefile("rb") as request:
            while request.readline():
                length = 0
                while (header := request.readline().strip().lower()) != b"":
                    length = int(header.partition(b":")[2]) if header.startswith(b"content-length:") else length
                answer = self.answer(request.read(length))
                if answer is None:
                    return
                connection.sendall(answer)
                if self.closing:
                    return

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.listener.close()


def infer_answer(request_id: str, number: float = 0.25) -> bytes:
    """As Triton's, in JSON alone."""
    output = {"name": "probabilities", "datatype": "FP32", "shape": [1, 4], "data": [number] * 4}
    body = json.dumps({"id": request_id, "model_name": "tiny", "model_version": "1", "outputs": [output]}).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body


def id_of(body: bytes) -> str:
    return str(json.JSONDecoder().raw_decode(body.decode("latin-1"))[0]["id"])


def slow_once() -> Callable[[bytes], bytes]:
    """A server's answers: the first after a second, when nobody may wait for it any more, the others at once and told from it."""
    first = threading.Event()

    def answer(body: bytes) -> bytes:
        if not first.is_set():
            first.set()
            time.sleep(1.0)
            return infer_answer(id_of(body), 0.75)
        return infer_answer(id_of(body), 0.25)

    return answer
