"""Headers and tokens: they go with every call, over both protocols and from both clients, and never where they should not."""

import asyncio
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from sightline import AsyncClassifier, Classifier, cli
from sightline.client_settings import ClientSettings, settings_of
from sightline.errors import ServerError, UsageError
from sightline.testing import FakeTransport
from sightline.transport import connect
from sightline.transport.headers import RESERVED, is_loopback
from support.fake_network import brightest, card
from support.proxies import grpc_proxy, http_proxy

if TYPE_CHECKING:
    from sightline_serving.server import Server

PIXELS = np.random.default_rng(1).integers(0, 256, (5, 6, 5, 3), dtype=np.uint8)
TOKEN = "eyJ.a-token_of~ours+/="


@pytest.fixture(autouse=True)
def no_token_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SIGHTLINE_TOKEN", raising=False)


@pytest.mark.parametrize(
    ("headers", "sentence"),
    [
        ({"X-A": "1\r\nX-B: 2"}, "the value of the header X-A cannot be sent: "),
        ({"X-A": "1\nX-B: 2"}, "the value of the header X-A cannot be sent: "),
        ({"X-A": "snowman ☃"}, "the value of the header X-A cannot be sent: "),
        ({"X-A": "nul\0"}, "the value of the header X-A cannot be sent: "),
        ({"X-A": " at the end "}, "the value of the header X-A cannot be sent: "),
        ({"X-A": ""}, "the value of the header X-A cannot be sent: "),
        ({"X-A": "a" * 20_000}, "the value of the header X-A cannot be sent: it must be of 1 to 16,384 letters of ASCII"),
        ({"X-A": 1}, "the value of the header X-A cannot be sent: "),
        ({"X-A\r\nX-B": "1"}, r"'X-A\r\nX-B' is no name of a header: "),
        ({"X A": "1"}, "'X A' is no name of a header: "),
        ({"": "1"}, "'' is no name of a header: "),
        ({":path": "/"}, "':path' is no name of a header: "),
        ({"Ä": "1"}, "'Ä' is no name of a header: "),
        ({"x-a": "1", "X-A": "2"}, "the header X-A is given twice"),
        ({"grpc-timeout": "1S"}, "the header grpc-timeout belongs to the connection, and no caller may set it"),
        ({"data-bin": "1"}, "the header data-bin would hold bytes over gRPC, by its ending -bin: give it another name"),
        ({f"x-{number}": "1" for number in range(65)}, "65 headers are more than the 64 that a call may carry"),
    ],
)
def test_a_header_that_could_become_something_else_is_refused_in_one_sentence(headers: Any, sentence: str) -> None:
    for url in ("", "http://localhost:1", "grpc://localhost:1"):
        with pytest.raises(UsageError) as refusal:
            connect(url, headers=headers) if url else ClientSettings(headers=headers)
        assert str(refusal.value).startswith(sentence)
        assert "\n" not in str(refusal.value)
        assert "snowman" not in str(refusal.value)


@pytest.mark.parametrize("name", sorted(RESERVED))
def test_what_frames_a_request_is_no_callers_business(name: str) -> None:
    with pytest.raises(UsageError, match=rf"^the header {name.title()} belongs to the connection, and no caller may set it$"):
        ClientSettings(headers={name.title(): "1"})


@pytest.mark.parametrize("token", ["two words", "line\nbreak", "☃", "a" * 20_000])
def test_a_token_that_cannot_be_sent_is_refused_and_not_repeated(token: str) -> None:
    with pytest.raises(UsageError) as refusal:
        ClientSettings(token=token)
    assert str(refusal.value) == "the token cannot be sent: it must be of ASCII letters without spaces or line breaks"


def test_a_token_comes_from_the_caller_or_else_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert dict(ClientSettings().headers) == {}
    monkeypatch.setenv("SIGHTLINE_TOKEN", "of-the-environment\n")
    assert dict(ClientSettings().headers) == {"authorization": "Bearer of-the-environment"}
    assert dict(ClientSettings(token="of-mine").headers) == {"authorization": "Bearer of-mine"}
    assert dict(ClientSettings(token="").headers) == {}
    with pytest.raises(UsageError, match="are two answers to one question"):
        ClientSettings(token="of-mine", headers={"Authorization": "Basic abc"})


def test_no_text_of_a_client_or_its_pickle_shows_the_token() -> None:
    settings = ClientSettings(token=TOKEN, headers={"x-key": TOKEN})
    assert TOKEN not in repr(settings)
    assert TOKEN not in str(settings.__reduce_ex__(4)[0])
    assert pickle.loads(pickle.dumps(settings)) == settings
    awaited = AsyncClassifier("colours", "https://example.org", token=TOKEN)
    assert TOKEN not in repr(awaited) + repr(awaited.__reduce__())


def test_an_option_that_there_is_not_is_named_with_those_that_there_are() -> None:
    with pytest.raises(UsageError) as refusal:
        Classifier("colours", timeout=3)  # type: ignore[call-arg]
    assert str(refusal.value) == (
        "a client has no option timeout: it has version, timeout_s, wait_s, on_wait, tls, headers, token, allow_plain_token, max_pixels, "
        "check and transport"
    )
    with pytest.raises(UsageError, match=r"^token cannot be given together with a transport, which has its own$"):
        Classifier("colours", transport=FakeTransport(card(), brightest), token="a")
    assert settings_of({"timeout_s": 3.0}).timeout_s == 3


@pytest.mark.parametrize(
    ("url", "host", "scheme"),
    [
        ("http://models.example.org:8000", "models.example.org", "https"),
        ("grpc://10.0.0.7:8001", "10.0.0.7", "grpcs"),
        ("grpc://[2001:db8::1]:8001", "[2001:db8::1]", "grpcs"),
    ],
)
def test_a_token_does_not_travel_readable_to_another_machine_unless_that_is_allowed(url: str, host: str, scheme: str) -> None:
    sentence = f"the header authorization would travel to {host} readable for everybody on the way: use {scheme}://, or allow it"
    with pytest.raises(UsageError) as refusal:
        Classifier("tiny", url, token=TOKEN)
    assert str(refusal.value) == sentence
    with pytest.raises(UsageError, match="would travel"):
        asyncio.run(AsyncClassifier("tiny", url, headers={"Authorization": "Basic abc"}).open())
    with pytest.raises(UsageError) as refusal:
        cli.run(["models", "--url", url, "--header", "Cookie: session=1"])
    assert str(refusal.value) == sentence.replace("authorization", "cookie") + " (Options: `--allow-plain-token`)"
    assert ClientSettings(token=TOKEN, allow_plain_token=True).headers_to(url)["authorization"] == f"Bearer {TOKEN}"
    assert ClientSettings(token=TOKEN).headers_to(url.replace("://", "s://"))
    assert ClientSettings(headers={"x-tenant": "7"}).headers_to(url) == {"x-tenant": "7"}


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        *[(host, True) for host in ("localhost", "LOCALHOST.", "a.localhost", "127.0.0.1", "127.9.9.9", "[::1]")],
        *[(host, False) for host in ("localhost.example.org", "127.example.org", "10.0.0.1", "[::2]", "0.0.0.0", "nolocalhost")],
    ],
)
def test_this_machine_is_known_without_asking_anybody(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


@pytest.fixture(params=["grpc", "http"])
def guarded(request: pytest.FixtureRequest, served: "tuple[Server, Path]") -> Iterator[str]:
    """The address of a proxy that lets in only who shows TOKEN."""
    if request.param == "grpc":
        with grpc_proxy(served[0].grpc_url, TOKEN) as url:
            yield url
    else:
        with http_proxy(served[0].http_url, TOKEN) as url:
            yield url


def ask_in_both_ways(url: str, **options: Any) -> None:
    with Classifier("tiny", url, **options) as blocking:
        expected = blocking.probabilities_of_pixels(PIXELS)
        assert blocking.served_version() == "1"

    async def ask() -> None:
        async with AsyncClassifier("tiny", url, **options) as awaited:
            assert np.array_equal(await awaited.probabilities_of_pixels(PIXELS), expected)
            assert await awaited.served_version() == "1"

    asyncio.run(ask())


@pytest.mark.triton
def test_a_proxy_that_demands_a_token_lets_every_call_in(guarded: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ask_in_both_ways(guarded, token=TOKEN)
    ask_in_both_ways(guarded, headers={"Authorization": f"Bearer {TOKEN}"})
    monkeypatch.setenv("SIGHTLINE_TOKEN", TOKEN)
    ask_in_both_ways(guarded)
    with pickle.loads(pickle.dumps(Classifier("tiny", guarded))) as copy:
        assert copy.probabilities_of_pixels(PIXELS).shape == (5, 4)


@pytest.mark.triton
@pytest.mark.parametrize("token", ["", "a-wrong-token-of-mine"])
def test_without_the_right_token_the_sentence_says_so_and_does_not_repeat_it(guarded: str, token: str) -> None:
    async def ask() -> None:
        await AsyncClassifier("tiny", guarded, token=token).open()

    status = "StatusCode.UNAUTHENTICATED" if guarded.startswith("grpc") else "401"
    for way in (lambda: Classifier("tiny", guarded, token=token), lambda: asyncio.run(ask())):
        with pytest.raises(ServerError) as refusal:
            way()
        assert str(refusal.value) == (
            f"the server at {guarded} does not let this caller in: not let in with <{'…' if token else ''}> ({status}). "
            "Is a token (SIGHTLINE_TOKEN) or a header missing, or wrong?"
        )


@pytest.mark.triton
def test_commands_take_the_token_from_the_environment_or_a_file(
    guarded: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    image, file = tmp_path / "a.png", tmp_path / "token"
    Image.new("RGB", (20, 20), "red").save(image)
    file.write_text(f"{TOKEN}\n")
    for ending in (["--token-file", str(file)], ["--header", f"Authorization: Bearer {TOKEN}"], []):
        if not ending:
            monkeypatch.setenv("SIGHTLINE_TOKEN", TOKEN)
        cli.run(["classify", "tiny", str(image), "--url", guarded, *ending])
        cli.run(["models", "--url", guarded, *ending])
        cli.run(["show", "tiny", str(image), "--out", str(tmp_path / "seen.png"), "--overwrite", "--url", guarded, *ending])
    assert TOKEN not in "".join(capsys.readouterr())


@pytest.mark.triton
def test_bench_shows_the_token_too_and_says_who_can_read_it(guarded: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "images").mkdir()
    Image.new("RGB", (20, 20), "red").save(tmp_path / "images" / "a.png")
    (tmp_path / "token").write_text(TOKEN)
    addresses = ["--grpc-url", guarded if guarded.startswith("grpc") else "", "--http-url", guarded if guarded.startswith("http") else ""]
    wanted = ["--images", str(tmp_path / "images"), "--concurrency", "1", "--window", "0.5", "--no-files"]
    cli.run(["bench", "tiny", *addresses, *wanted, "--token-file", str(tmp_path / "token")])
    printed = capfd.readouterr()
    assert "note: perf_analyzer takes the token as an argument, which every user of this machine can read while it runs" in printed.err
    assert TOKEN not in printed.out + printed.err


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        (["--header", "no colon"], "a header is written as NAME:VALUE, with a colon"),
        (["--header", "X-A: 1", "--header", "x-a: 2"], "the header x-a is given twice"),
        (["--header", "Host: elsewhere"], "the header Host belongs to the connection, and no caller may set it"),
        (["--token-file", "missing"], "missing: the token cannot be read: No such file or directory"),
        (["--token-file", "/dev/null"], "/dev/null: the token cannot be read: not a file but a pipe, a socket or a device"),
    ],
)
def test_an_option_that_makes_no_sense_is_one_sentence(option: list[str], sentence: str) -> None:
    with pytest.raises(UsageError) as refusal:
        cli.run(["models", *option])
    assert str(refusal.value) == sentence


@pytest.mark.triton
def test_tritons_own_restricted_interfaces_open_to_their_header(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sightline_serving import server as serving
    from sightline_serving.settings import FREE_PORTS
    from support.tiny_models import publish_tiny

    command = serving._command
    closed = "inference,model-config,statistics"
    monkeypatch.setattr(
        serving,
        "_command",
        lambda *arguments: [
            *command(*arguments),
            f"--http-restricted-api={closed}:x-access=let me in",
            f"--grpc-restricted-protocol={closed}:access=let me in",
        ],
    )
    publish_tiny(tmp_path / "models")
    with serving.start_server(tmp_path / "models", FREE_PORTS) as server:
        for url, name in ((server.http_url, "x-access"), (server.grpc_url, "triton-grpc-protocol-access")):
            ask_in_both_ways(url, headers={name: "let me in"})
            for headers in ({}, {name: "please"}):
                with pytest.raises(ServerError, match=rf"^the server at {url} does not let this caller in: .*expecting header '{name}'"):
                    Classifier("tiny", url, headers=headers)
