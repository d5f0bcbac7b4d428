"""The benchmark against servers that answer wrongly, behind TLS and below a path: the real perf_analyzer, the real Triton."""

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from sightline import cli
from sightline.errors import ModelError, ModelNotFound, ServerError, UsageError
from sightline.transport import connect
from support.cards import tiny_card
from support.proxies import http_proxy

pytest.importorskip("sightline_serving")
pytest.importorskip("onnx")

if TYPE_CHECKING:
    from sightline_serving.server import Server

pytestmark = pytest.mark.triton

QUICK = ("--concurrency", "2", "--window", "0.5", "--no-files")


@pytest.fixture(scope="module")
def sampled(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[tuple[Server, Path]]":
    """A server with an honest version 1 and a version 2 that is, by its file, another network; and its repository."""
    from dataclasses import replace

    from sightline.repository.config import VersionPolicy
    from sightline.repository.edit import set_policy
    from sightline.repository.read import model_named
    from sightline_serving.server import start_server
    from sightline_serving.settings import FREE_PORTS
    from support.tiny_models import publish_sampled, swap_weights

    repository = tmp_path_factory.mktemp("sampled") / "models"
    publish_sampled(repository, seed=0)
    swap_weights(publish_sampled(repository, seed=1), seed=2)
    set_policy(model_named(repository, "tiny"), VersionPolicy("all"))
    with start_server(repository, replace(FREE_PORTS, verify_hashes=False)) as server:
        yield server, repository


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for number, pixels in enumerate(np.random.default_rng(3).integers(0, 256, (9, 12, 10, 3), dtype=np.uint8)):
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


@pytest.mark.parametrize("repository_is_here", [True, False])
def test_a_model_whose_file_was_swapped_is_not_measured(
    repository_is_here: bool, sampled: "tuple[Server, Path]", images: Path, tmp_path: Path
) -> None:
    server, repository = sampled
    places = [
        "--repository",
        str(repository if repository_is_here else tmp_path),
        "--images",
        str(images),
        "--out",
        str(tmp_path / "a.json"),
    ]
    with pytest.raises(ModelError) as refusal:
        cli.run(["bench", "tiny", "--version", "2", "--grpc-url", server.grpc_url, "--http-url", "", *places, *QUICK])
    golden = "golden image 1 of 4" if repository_is_here else "golden image 1 of 1"
    begin = (
        f"the model tiny version 2 on {server.grpc_url} answers wrongly, so its speed means nothing: its answer to {golden} differs from "
        "the published one by |Δp| 0."
    )
    assert str(refusal.value).startswith(begin)
    assert str(refusal.value).endswith(", and 0.0001 is allowed. Was its file replaced?")
    assert refusal.value.exit_code == 9
    assert not (tmp_path / "a.json").exists()


@pytest.mark.parametrize("batch", [1, 3])
def test_a_server_that_answers_wrongly_only_under_load_fails(batch: int, sampled: "tuple[Server, Path]", images: Path) -> None:
    """Honest to the first requests, one by one; then each answer is that of another class."""
    server, repository = sampled
    asked = itertools.count()

    def change(path: str, content: bytes) -> bytes:
        if not path.endswith("/infer") or next(asked) < 30:
            return content
        at = len(content) - batch * 4 * 4
        wrong = np.roll(np.frombuffer(content[at:], "<f4").reshape(batch, 4), 1, axis=1)
        return content[:at] + wrong.tobytes()

    with http_proxy(server.http_url, "token-of-mine", change=change) as url:
        places = ["--grpc-url", "", "--http-url", url, "--repository", str(repository), "--images", str(images), "--version", "1"]
        with pytest.raises(ModelError) as refusal:
            cli.run(["bench", "tiny", *places, "--batch", str(batch), *QUICK, "--header", "Authorization: Bearer token-of-mine"])
    words = str(refusal.value)
    of = "1 image" if batch == 1 else f"{batch} images"
    assert words.startswith(
        f"the model tiny version 1 on {url} answers wrongly under load, so its speed means nothing: with 2 requests of {of} "
    )
    assert words.endswith(", and 0.0001 is allowed")


def test_perf_analyzer_measures_over_tls_with_certificates_on_both_sides(
    sampled: "tuple[Server, Path]", images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from support.tls import make_certificates, tls_tunnel

    server, repository = sampled
    files = make_certificates(tmp_path)
    shown = ["--ca", str(files.ca), "--cert", str(files.client), "--key", str(files.client_key)]
    with tls_tunnel(server.grpc_url, files, mutual=True) as grpc_url, tls_tunnel(server.http_url, files, mutual=True) as http_url:
        places = [
            "--grpc-url",
            grpc_url,
            "--http-url",
            http_url,
            "--repository",
            str(repository),
            "--images",
            str(images),
            "--version",
            "1",
        ]
        cli.run(["bench", "tiny", *places, *QUICK, *shown, "--out", str(tmp_path / "rows.json")])
        rows = json.loads((tmp_path / "rows.json").read_text())["rows"]
        assert [(row["protocol"], row["check"]) for row in rows] == [("grpc", "every answer"), ("http", "every answer")]
        with pytest.raises(ServerError):
            cli.run(["bench", "tiny", *places, *QUICK])


def test_perf_analyzer_measures_below_a_path_with_a_token(
    sampled: "tuple[Server, Path]", images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, repository = sampled
    monkeypatch.setenv("SIGHTLINE_TOKEN", "token-of-mine")
    with http_proxy(server.http_url, "token-of-mine", "/models/here") as url:
        places = ["--grpc-url", "", "--http-url", url, "--repository", str(repository), "--images", str(images), "--version", "1"]
        cli.run(["bench", "tiny", *places, *QUICK, "--out", str(tmp_path / "rows.csv")])
    assert (tmp_path / "rows.csv").read_text().splitlines()[1].startswith("http,2,1,")


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_a_transport_says_what_the_server_is_and_what_its_model_did(protocol: str, sampled: "tuple[Server, Path]") -> None:
    server, _ = sampled
    card = tiny_card()
    with connect(server.grpc_url if protocol == "grpc" else server.http_url) as transport:
        assert transport.server().version == "2.51.0"
        config = transport.config("tiny")
        assert (config.backend, config.batches, config.queue_delay_us) == ("onnxruntime", True, 0)
        assert [(group.kind, group.count) for group in config.instance_groups] == [("KIND_CPU", 1)]
        assert config.parameters["intra_op_thread_count"] == "1"
        assert "model_card" not in config.parameters
        before = transport.statistics("tiny", "1")
        pixels = np.zeros((3, *card.preprocess.shape), np.uint8)
        timed = [transport.infer_timed("tiny", "1", card.input, pixels, card.output) for _ in range(5)]
        did = transport.statistics("tiny", "1").since(before)
        assert did.requests == 5
        assert 0 < did.queue_s + did.compute_s <= did.server_s < sum(each.call_s for each in timed)
        assert all(each.serialise_s > 0 for each in timed)
        assert np.array_equal(timed[0].result.values, transport.infer("tiny", "1", card.input, pixels, card.output).values)
        with pytest.raises(ModelNotFound):
            transport.statistics("tiny", "9")


def test_a_place_for_the_result_that_cannot_be_one_is_told_before_anything_is_measured(
    sampled: "tuple[Server, Path]", images: Path, tmp_path: Path
) -> None:
    server, repository = sampled
    places = ["--grpc-url", server.grpc_url, "--http-url", "", "--repository", str(repository), "--images", str(images)]
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"file: this is a file that is neither .json nor .csv: name such a file, or a folder$"):
        cli.run(["bench", "tiny", *places, "--out", str(tmp_path / "file")])
    with pytest.raises(UsageError, match=r"missing: there is no such folder for the result$"):
        cli.run(["bench", "tiny", *places, "--out", str(tmp_path / "missing" / "a.json")])
    with pytest.raises(UsageError, match=r"nothing.json: the result cannot be read: No such file or directory$"):
        cli.run(["bench", "tiny", *places, "--compare", str(tmp_path / "nothing.json")])
