"""A server behind TLS: a certificate authority of the test's own, and a tunnel that ends TLS in front of a plain port."""

import contextlib
import datetime as dt
import ipaddress
import selectors
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@dataclass(frozen=True)
class Certificates:
    """PEM files: an authority, and what it signed for a server on 127.0.0.1 and for a client."""

    ca: Path
    server: Path
    server_key: Path
    client: Path
    client_key: Path


def make_certificates(folder: Path) -> Certificates:
    """Make an authority and two certificates, valid for a day."""
    ca_key = ec.generate_private_key(ec.SECP256R1())
    ca = _signed("the tests' authority", ca_key, None, ca_key)
    files = {"ca.pem": _pem(ca)}
    for name in ("server", "client"):
        key = ec.generate_private_key(ec.SECP256R1())
        files[f"{name}.pem"] = _pem(_signed(name, key, ca, ca_key))
        files[f"{name}.key"] = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return Certificates(*(folder / name for name in ("ca.pem", "server.pem", "server.key", "client.pem", "client.key")))


@contextlib.contextmanager
def tls_tunnel(url: str, certificates: Certificates, *, mutual: bool = False) -> Iterator[str]:
    """Pass on what comes over TLS to the server at `url`, grpc:// or http://; give the address with TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.server, certificates.server_key)
    context.set_alpn_protocols(["h2"] if url.startswith("grpc") else ["http/1.1"])
    if mutual:
        context.load_verify_locations(certificates.ca)
        context.verify_mode = ssl.CERT_REQUIRED
    parts = urlsplit(url)
    listening = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        while True:
            try:
                front, _ = listening.accept()
            except OSError:
                return
            Thread(target=_serve, args=(front, context, (parts.hostname or "", parts.port or 0)), daemon=True).start()

    Thread(target=accept, daemon=True).start()
    try:
        yield f"{parts.scheme}s://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        listening.close()


def _serve(front: socket.socket, context: ssl.SSLContext, behind: tuple[str, int]) -> None:
    with contextlib.suppress(OSError), contextlib.closing(front):
        front.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with context.wrap_socket(front, server_side=True) as secure, socket.create_connection(behind) as plain:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _pass_on(secure, plain)


def _pass_on(secure: ssl.SSLSocket, plain: socket.socket) -> None:
    """Copy in both directions until one side ends. One thread for both, since an SSLSocket is not for two at a time."""
    with selectors.DefaultSelector() as waiting:
        waiting.register(secure, selectors.EVENT_READ, plain)
        waiting.register(plain, selectors.EVENT_READ, secure)
        while True:
            for key, _ in waiting.select(timeout=30):
                source, target = key.fileobj, key.data
                content = source.recv(65536)  # type: ignore[union-attr]
                while isinstance(source, ssl.SSLSocket) and source.pending():
                    content += source.recv(source.pending())
                if not content:
                    return
                target.sendall(content)


def _signed(
    name: str, key: ec.EllipticCurvePrivateKey, issuer: x509.Certificate | None, issuer_key: ec.EllipticCurvePrivateKey
) -> x509.Certificate:
    now = dt.datetime.now(dt.UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    addresses = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issuer is None else issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(addresses), critical=False)
        .sign(issuer_key, hashes.SHA256())
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
