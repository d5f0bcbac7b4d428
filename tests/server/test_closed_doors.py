"""What a client of a classifier has no business with is closed, over both protocols, and nothing listens beyond this machine."""

import http.client
import ipaddress
import re
import socket
from pathlib import Path

import psutil
import pytest
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException

from sightline_serving.server import Server
from support.tiny_models import Served

pytestmark = pytest.mark.triton

HTTP_CALLS = [
    ("GET", "/v2/systemsharedmemory/status"),
    ("POST", "/v2/systemsharedmemory/region/x/register"),
    ("POST", "/v2/systemsharedmemory/unregister"),
    ("GET", "/v2/cudasharedmemory/status"),
    ("POST", "/v2/cudasharedmemory/unregister"),
    ("POST", "/v2/repository/index"),
    ("POST", "/v2/repository/models/tiny/load"),
    ("POST", "/v2/repository/models/tiny/unload"),
    ("GET", "/v2/trace/setting"),
    ("POST", "/v2/trace/setting"),
    ("GET", "/v2/models/tiny/trace/setting"),
    ("POST", "/v2/models/tiny/trace/setting"),
    ("GET", "/v2/logging"),
    ("POST", "/v2/logging"),
]

GRPC_CALLS = {
    "system shared memory status": lambda client: client.get_system_shared_memory_status(),
    "system shared memory register": lambda client: client.register_system_shared_memory("x", "/x", 16),
    "system shared memory unregister": lambda client: client.unregister_system_shared_memory(),
    "cuda shared memory status": lambda client: client.get_cuda_shared_memory_status(),
    "cuda shared memory unregister": lambda client: client.unregister_cuda_shared_memory(),
    "repository index": lambda client: client.get_model_repository_index(),
    "load": lambda client: client.load_model("tiny"),
    "unload": lambda client: client.unload_model("tiny"),
    "trace settings": lambda client: client.get_trace_settings(),
    "trace settings of a model": lambda client: client.update_trace_settings("tiny", {"trace_level": ["TENSORS"]}),
    "log settings": lambda client: client.get_log_settings(),
    "change of log settings": lambda client: client.update_log_settings({"log_file": "/x"}),
}


def call(server: Server, method: str, path: str, headers: dict[str, str]) -> int:
    connection = http.client.HTTPConnection(server.http_url.removeprefix("http://"), timeout=10)
    try:
        connection.request(method, path, body="{}" if method == "POST" else None, headers=headers)
        return connection.getresponse().status
    finally:
        connection.close()


def stolen_secret(server: Server) -> str:
    """What any user of the machine can read in the list of processes."""
    (argument,) = [option for option in psutil.Process(server.pid).cmdline() if option.startswith("--http-restricted-api=")]
    flag = re.fullmatch(r"--http-restricted-api=[a-z,-]+:sightline=([0-9a-f]{64}\n[0-9a-f]{64})", argument)
    assert flag is not None
    return flag[1]


@pytest.mark.parametrize(("method", "path"), HTTP_CALLS, ids=lambda value: value)
def test_a_restricted_interface_is_forbidden_over_http(served: Served, method: str, path: str) -> None:
    server, _ = served
    assert call(server, method, path, {}) == 403


@pytest.mark.parametrize("what", GRPC_CALLS)
def test_a_restricted_interface_is_forbidden_over_grpc(served: Served, what: str) -> None:
    server, _ = served
    client = tritonclient.grpc.InferenceServerClient(server.grpc_url.removeprefix("grpc://"))
    with client, pytest.raises(InferenceServerException, match="This protocol is restricted, expecting header"):
        GRPC_CALLS[what](client)


def test_what_a_client_needs_is_open(served: Served) -> None:
    server, _ = served
    for path in ("/v2", "/v2/health/live", "/v2/health/ready", "/v2/models/tiny", "/v2/models/tiny/config", "/v2/models/tiny/stats"):
        assert call(server, "GET", path, {}) == 200, path
    with tritonclient.grpc.InferenceServerClient(server.grpc_url.removeprefix("grpc://")) as client:
        assert client.is_server_ready()
        assert client.get_model_config("tiny").config.max_batch_size == 8
        assert client.get_inference_statistics("tiny").model_stats[0].name == "tiny"


def test_the_secret_is_new_at_every_start_and_cannot_be_sent_by_who_has_read_it(served: Served) -> None:
    """A header cannot hold its line break. Tried as raw bytes, in every way that a lenient server could take for one header."""
    server, _ = served
    secret = stolen_secret(server)
    first, second = secret.split("\n")
    host, _, port = server.http_url.removeprefix("http://").partition(":")
    for value in (
        secret,
        f"{first}\n {second}",
        f"{first}\r\n {second}",
        f"{first}\r\n\t{second}",
        first,
        f"{first}%0A{second}",
        f"{first}\r{second}",
    ):
        with socket.create_connection((host, int(port)), timeout=10) as caller:
            caller.sendall(f"GET /v2/logging HTTP/1.1\r\nHost: {host}\r\nsightline: {value}\r\nConnection: close\r\n\r\n".encode())
            answer = b"".join(iter(lambda: caller.recv(65536), b""))
        assert b" 200 " not in answer.split(b"\r\n")[0], value
        assert b"log_info" not in answer
    with tritonclient.grpc.InferenceServerClient(server.grpc_url.removeprefix("grpc://")) as client:
        for value in (first, first + second, secret.replace("\n", "\\n")):
            with pytest.raises(InferenceServerException, match="This protocol is restricted"):
                client.get_log_settings(headers={"triton-grpc-protocol-sightline": value})
        with pytest.raises(InferenceServerException, match="Invalid metadata"):
            client.get_log_settings(headers={"triton-grpc-protocol-sightline": secret})


def test_everything_listens_on_this_machine_only(served: Served) -> None:
    server, _ = served
    listening = [connection.laddr for connection in psutil.Process(server.pid).net_connections() if connection.status == psutil.CONN_LISTEN]
    assert {endpoint.port for endpoint in listening} == {
        int(url.split(":")[2].split("/")[0]) for url in (server.http_url, server.grpc_url, server.metrics_url)
    }
    for endpoint in listening:
        address = ipaddress.ip_address(endpoint.ip)
        assert (getattr(address, "ipv4_mapped", None) or address).is_loopback


def test_the_wheels_old_triton_says_what_it_is(served: Served) -> None:
    server, _ = served
    assert server.triton == "2.51.0 (the nvidia-pytriton wheel)"
    (notice,) = server.notices
    assert "at least 56 vulnerabilities fixed in later releases" in notice
    assert "It listens on this machine only" in notice


def test_no_library_or_program_comes_from_the_model_repository(served: Served, tmp_path: Path) -> None:
    """What Triton maps into memory as code is its own and Python's, never a file beside a model."""
    server, folder = served
    for process in [psutil.Process(server.pid), *psutil.Process(server.pid).children()]:
        mapped = {region.path for region in process.memory_maps(grouped=True)}
        assert not [path for path in mapped if path.startswith(str(folder)) and not path.endswith(".onnx")]


def test_a_metrics_endpoint_counts_requests(served: Served) -> None:
    server, _ = served
    connection = http.client.HTTPConnection(server.metrics_url.split("/")[2], timeout=10)
    connection.request("GET", "/metrics")
    assert b'nv_inference_request_success{model="tiny",version="1"}' in connection.getresponse().read()
    connection.close()
