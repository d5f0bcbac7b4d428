"""Addresses of servers: the good ones are understood, the bad ones are a sentence."""

import pytest

from sightline.errors import UsageError
from sightline.transport import parse_url


@pytest.mark.parametrize(
    ("url", "protocol", "secure", "host", "port", "path"),
    [
        ("grpc://localhost:8001", "grpc", False, "localhost", 8001, ""),
        ("grpc://localhost", "grpc", False, "localhost", 8001, ""),
        ("http://localhost/", "http", False, "localhost", 8000, ""),
        ("grpcs://models.example.org", "grpc", True, "models.example.org", 443, ""),
        ("https://models.example.org/triton/a/", "http", True, "models.example.org", 443, "triton/a"),
        ("grpc://[::1]:9001", "grpc", False, "[::1]", 9001, ""),
        ("HTTP://Localhost:1", "http", False, "localhost", 1, ""),
    ],
)
def test_an_address_is_understood(url: str, protocol: str, secure: bool, host: str, port: int, path: str) -> None:
    address = parse_url(url)
    assert (address.protocol, address.secure, address.host, address.port, address.path) == (protocol, secure, host, port, path)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("localhost:8001", "is no server address: write grpc://host:8001 or http://host:8000"),
        ("ftp://localhost", "is no server address: write"),
        ("grpc://", "is no server address: write"),
        ("grpc://local host:8001", "is no server address: write"),
        ("grpc://localhost:80000", "is no server address: Port out of range"),
        ("grpc://localhost:abc", "is no server address: Port could not be cast"),
        ("http://user:secret@host:8000", "holds a user name or password"),
        ("grpc://host:8001/path", "has a path, which gRPC addresses cannot have: write grpc://host:8001"),
        ("http://a..b:1", "'a..b' cannot be the name of a host"),
        (f"grpc://{'a' * 64}.org:1", "cannot be the name of a host"),
        ("http://host:8000/?a=1", "holds a query or a fragment"),
    ],
)
def test_a_bad_address_is_refused_with_the_reason(url: str, reason: str) -> None:
    with pytest.raises(UsageError) as refusal:
        parse_url(url)
    assert reason in str(refusal.value)


def test_a_password_in_an_address_is_not_repeated_in_the_error() -> None:
    with pytest.raises(UsageError) as refusal:
        parse_url("http://user:secret@host:8000")
    assert "secret" not in str(refusal.value)
