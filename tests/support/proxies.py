"""What stands in front of a server in production: proxies that let in only who shows a token, over HTTP and over gRPC."""

import contextlib
import http.client
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import grpc


@contextlib.contextmanager
def http_proxy(
    server_url: str, token: str, prefix: str = "", change: Callable[[str, bytes], bytes] = lambda _path, content: content
) -> Iterator[str]:
    """A reverse proxy that demands `Authorization: Bearer <token>`, and repeats a wrong one as some do; below the path `prefix`.

    What is answered to a request for a path goes through `change`.
    """
    target = server_url.removeprefix("http://")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            shown = self.headers.get("Authorization", "")
            if not self.path.startswith(f"{prefix}/"):
                self._answer(404, b"nothing lies here", {})
                return
            if shown != f"Bearer {token}":
                self._answer(401, f'{{"error": "not let in with <{shown}>"}}'.encode(), {})
                return
            kept = {name: value for name, value in self.headers.items() if name.lower() not in ("authorization", "host", "connection")}
            behind = http.client.HTTPConnection(target, timeout=30)
            try:
                behind.request(self.command, self.path.removeprefix(prefix) if prefix else self.path, body, kept)
                answer = behind.getresponse()
                content = change(self.path, answer.read())
            finally:
                behind.close()
            names = ("Inference-Header-Content-Length", "Content-Type")
            self._answer(answer.status, content, {name: answer.headers[name] for name in names if name in answer.headers})

        def _answer(self, status: int, content: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def do_GET(self) -> None:
            self._pass_on()

        def do_POST(self) -> None:
            self._pass_on()

        def log_message(self, *_: object) -> None:
            pass

    proxy = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    proxy.daemon_threads = True
    Thread(target=proxy.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{proxy.server_port}{prefix}"
    finally:
        proxy.shutdown()
        proxy.server_close()


@contextlib.contextmanager
def grpc_proxy(server_url: str, token: str) -> Iterator[str]:
    """The same for gRPC: whatever is called is passed on as bytes, if its metadata shows the token."""
    behind = grpc.insecure_channel(server_url.removeprefix("grpc://"))

    class PassOn(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc has no types
        def service(self, details: Any) -> Any:
            def call(request: bytes, context: Any) -> Any:
                shown = dict(context.invocation_metadata()).get("authorization", "")
                if shown != f"Bearer {token}":
                    context.abort(grpc.StatusCode.UNAUTHENTICATED, f"not let in with <{shown}>")
                try:
                    return behind.unary_unary(details.method)(request, timeout=30)
                except grpc.RpcError as error:
                    context.abort(error.code(), error.details())

            return grpc.unary_unary_rpc_method_handler(call)

    proxy = grpc.server(ThreadPoolExecutor(8), handlers=[PassOn()])
    port = proxy.add_insecure_port("127.0.0.1:0")
    proxy.start()
    try:
        yield f"grpc://127.0.0.1:{port}"
    finally:
        proxy.stop(None).wait()
        behind.close()
