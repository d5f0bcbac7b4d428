"""`sightline compare` against a real Triton: two versions of one model, two models, two protocols."""

import csv
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from sightline import cli, reformat
from sightline.errors import HopDiffers, ModelNotFound
from support.cards import LABELS, tiny_card

pytest.importorskip("onnx")
pytest.importorskip("psutil")

from sightline_serving.server import start_server
from sightline_serving.settings import FREE_PORTS
from support.tiny_models import InProcess, in_process, publish_tiny

if TYPE_CHECKING:
    from sightline_serving.server import Server

__all__ = ["in_process"]

pytestmark = pytest.mark.triton


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two versions of a model, both served: the second has other weights."""
    folder = tmp_path_factory.mktemp("compared") / "models"
    publish_tiny(folder)
    second = publish_tiny(tmp_path_factory.mktemp("second"), version=2, seed=1)
    shutil.move(second, folder / "tiny" / "2")
    with (folder / "tiny" / "config.pbtxt").open("a", encoding="utf-8") as config:
        config.write("version_policy { all { } }\n")
    return folder


@pytest.fixture(scope="module")
def server(repository: Path) -> "Iterator[Server]":
    with start_server(repository, FREE_PORTS) as started:
        yield started


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 images of noise in two class folders."""
    folder = tmp_path_factory.mktemp("images")
    for label in ("ape", "dög"):
        (folder / label).mkdir()
        for number in range(30):
            pixels = np.random.default_rng([len(label), number]).integers(0, 256, (12, 10, 3), np.uint8)
            Image.fromarray(pixels).save(folder / label / f"{number:02}.png")
    return folder


def test_two_versions_differ_as_their_files_do_in_onnx_runtime(
    repository: Path, server: "Server", images: Path, in_process: InProcess, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "flips.csv"
    options = ["--url", server.grpc_url, "--labelled", "--json", "--out", str(out)]
    cli.run(["compare", "tiny:1", f"tiny@{server.http_url}", str(images), *options])
    document = json.loads(capsys.readouterr().out)
    paths = sorted(images.rglob("*.png"))
    pixels = np.stack([reformat(path, tiny_card().preprocess) for path in paths])
    first, second = (in_process(repository / "tiny" / version / "model.onnx", pixels) for version in "12")
    flips = [path for path, a, b in zip(paths, first.argmax(1), second.argmax(1), strict=True) if a != b]
    deltas = np.abs(first - second).max(axis=1)
    assert 0 < len(flips) < 60
    assert (document["images"], document["flips"], document["broken"]) == (60, len(flips), 0)
    assert document["max_delta_p"] == pytest.approx(deltas.max(), abs=1e-5)
    assert document["max_delta_at"]["image"] == paths[deltas.argmax()].relative_to(images).as_posix()
    assert document["mean_delta_p"] == pytest.approx(deltas.mean(), abs=1e-5)
    rows = list(csv.DictReader(out.open(encoding="utf-8", newline="")))
    assert [row["image"] for row in rows] == [path.relative_to(images).as_posix() for path in flips]
    truths = np.array([LABELS.index(path.parent.name) for path in paths])
    right = [(answers.argmax(1) == truths).mean() for answers in (first, second)]
    assert [document["accuracy"][name] for name in ("accuracy_a", "accuracy_b")] == pytest.approx(right)
    # Without a version it is the newest that is loaded, and stays that one.
    assert [(document[side]["version"], document[side]["url"]) for side in "ab"] == [("1", server.grpc_url), ("2", server.http_url)]


def test_one_version_over_both_protocols_passes_the_strictest_gate_of_labels(server: "Server", images: Path) -> None:
    cli.run(
        ["compare", f"tiny:2@{server.grpc_url}", f"tiny:2@{server.http_url}", str(images), "--at-most-flips", "0", "--at-most-dp", "1e-5"]
    )


def test_a_changed_model_does_not_pass(server: "Server", images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(HopDiffers, match=r"^tiny:1 and tiny:2 differ more than they may: \d+ labels differ, where at most 0 may$"):
        cli.run(["compare", "tiny:1", "tiny:2", str(images), "--url", server.http_url, "--at-most-flips", "0"])
    assert "labels that differ" in capsys.readouterr().out


def test_a_version_that_is_not_served_is_named(server: "Server", images: Path) -> None:
    with pytest.raises(ModelNotFound):
        cli.run(["compare", "tiny:1", "tiny:7", str(images), "--url", server.grpc_url])
    with pytest.raises(ModelNotFound):
        cli.run(["compare", "tiny:1", "nobody", str(images), "--url", server.grpc_url])
