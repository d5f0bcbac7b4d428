"""Encoded images in: whoever sends whole files gets the answers that the Python client gets, and is told which image is none."""

import io
import json
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from google.protobuf import text_format
from PIL import Image
from tritonclient.grpc.model_config_pb2 import ModelConfig

from sightline import Classifier, cli, seal, unseal
from sightline.card import PICTURES_OF
from sightline.errors import ContractError, HopDiffers, ModelError, RepositoryError
from sightline.in_triton import ENCODED
from sightline.repository.edit import set_reformats
from sightline.repository.history import rollback
from sightline.repository.image_ensemble import publish_image_ensemble
from sightline.repository.read import read_folder
from sightline.transport import Transport, connect
from sightline_export.settings import ExportSettings
from sightline_export.sources.run import export_run
from sightline_serving.server import Server, start_server
from sightline_serving.settings import FREE_PORTS
from support.line import Line, Prove, table
from support.readme import ROOT, blocks

pytestmark = pytest.mark.triton


def asked(transport: Transport, *images: bytes) -> npt.NDArray[np.float32]:
    return transport.infer_encoded("mnist_image", "", ENCODED, images, "probabilities").values


@pytest.fixture
def files(digit_files: list[Path]) -> list[bytes]:
    """The digits as PNG, and again as photos: large, in colour, JPEG, on their side with EXIF data that says so."""
    encoded = [file.read_bytes() for file in digit_files]
    for file in digit_files:
        photo = Image.open(file).convert("RGB").resize((320, 240)).transpose(Image.Transpose.ROTATE_90)
        exif = Image.Exif()
        exif[274] = 6
        buffer = io.BytesIO()
        photo.save(buffer, "JPEG", exif=exif.tobytes())
        encoded.append(buffer.getvalue())
    return encoded


@pytest.mark.parametrize("protocol", ["gRPC", "HTTP"])
def test_whole_files_are_answered_as_the_python_client_is(protocol: str, server: Server, files: list[bytes]) -> None:
    url = server.grpc_url if protocol == "gRPC" else server.http_url
    with Classifier("mnist", url) as mnist, connect(url) as transport:
        expected, actual = mnist.probabilities(files), asked(transport, *files)
        assert actual.dtype == np.float32
        assert np.abs(actual - expected).max() < 1e-6
        assert np.abs(asked(transport, files[3]) - expected[3:4]).max() < 1e-6
    assert len({int(row.argmax()) for row in expected}) > 5


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (b"", "the file is empty"),
        (b"GIF89a", "damaged|not an image"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 100, "damaged|not an image"),
        ("text", "not an image in a format that is read here"),
    ],
)
def test_a_bad_image_fails_its_request_with_its_place_and_the_reason(
    bad: bytes | str, reason: str, server: Server, files: list[bytes]
) -> None:
    content = bad.encode() if isinstance(bad, str) else bad
    with connect(server.grpc_url) as transport:
        with pytest.raises(ModelError, match=rf"image 2 of 4 \(counted from 0\) was refused: .*({reason})"):
            asked(transport, files[0], files[1], content, files[2])
        with pytest.raises(ModelError, match=rf"the image was refused: .*({reason})"):
            asked(transport, content)


def test_a_decompression_bomb_is_refused_unopened(server: Server) -> None:
    buffer = io.BytesIO()
    Image.new("1", (30_000, 30_000)).save(buffer, "PNG")
    with connect(server.http_url) as transport, pytest.raises(ModelError, match=r"the image was refused: .*more than .* pixels"):
        asked(transport, buffer.getvalue())


def test_bad_images_do_not_fail_the_requests_of_others(server: Server, files: list[bytes]) -> None:
    with Classifier("mnist", server.grpc_url) as mnist, connect(server.grpc_url) as transport:
        expected = mnist.probabilities(files)

        def ask(number: int) -> bool:
            if number % 3 == 0:
                with pytest.raises(ModelError, match="the image was refused"):
                    asked(transport, b"no image")
                return True
            return bool(np.abs(asked(transport, files[number % 20]) - expected[number % 20]).max() < 1e-6)

        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(ask, range(120)))


def test_the_commands_know_what_it_is(server: Server, digit_files: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    cli.run(["models", "--url", server.grpc_url])
    rows = [re.split(r"\s{2,}", row.strip())[:5] for row in capsys.readouterr().out.splitlines()]
    assert ["mnist_image", "1", "encoded images", "-", "for mnist"] in rows
    assert ["mnist_reformat", "1", "(a step before it)", "-", "for mnist"] in rows
    cli.run(["models", "--json", "--url", server.http_url])
    described = {answer_row["model"]: answer_row for answer_row in map(json.loads, capsys.readouterr().out.splitlines())}
    assert described["mnist_image"]["pictures_of"] == "mnist"
    with pytest.raises(ContractError, match=r"^mnist_image on .* takes encoded images, .*: ask the model mnist itself$"):
        cli.run(["classify", "mnist_image", str(digit_files[0]), "--url", server.grpc_url])


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl here")
def test_the_curl_lines_of_the_docs_read_the_digit(server: Server, line: Line, digit_files: list[Path], tmp_path: Path) -> None:
    examples = [block for block in blocks(ROOT / "docs" / "clients.md", "sh") if "curl" in block]
    assert len(examples) == 2
    (tmp_path / "model_repository").symlink_to(line.repository)
    for digit in (3, 7):
        (tmp_path / "a.jpg").write_bytes(digit_files[digit].read_bytes())
        for example in examples:
            here = example.replace("localhost:8000", server.http_url.removeprefix("http://"))
            assert here != example
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", here], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60
            )
            with Classifier("mnist", server.grpc_url) as mnist:
                assert re.search(rf"(?<!\d){mnist.classify([digit_files[digit]])[0].label}(?!\d)", done.stdout), done.stdout


def photo_of_6_mb(digit: bytes) -> bytes:
    """The digit in the middle of a large white sheet, as a phone would store it: JPEG's own comments make up the size."""
    sheet = Image.open(io.BytesIO(digit)).convert("RGB").resize((2048, 2048))
    buffer = io.BytesIO()
    sheet.save(buffer, "JPEG", quality=95)
    content = buffer.getvalue()
    comment = b"\xff\xfe" + (65_535).to_bytes(2, "big") + bytes(65_533)
    return content[:2] + comment * 93 + content[2:]


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl here")
def test_a_photo_of_6_mb_is_answered_and_what_is_no_image_gives_no_label(
    server: Server, line: Line, digit_files: list[Path], tmp_path: Path
) -> None:
    examples = [block for block in blocks(ROOT / "docs" / "clients.md", "sh") if "curl" in block]
    (tmp_path / "model_repository").symlink_to(line.repository)
    with Classifier("mnist", server.grpc_url) as mnist:
        photo = photo_of_6_mb(digit_files[7].read_bytes())
        assert 6_000_000 < len(photo) < 8_000_000
        label = mnist.classify([photo])[0].label
        for content, expected in ((photo, label), (b"no image" * 700_000, None)):
            (tmp_path / "a.jpg").write_bytes(content)
            for example in examples:
                here = example.replace("localhost:8000", server.http_url.removeprefix("http://"))
                # A plain shell, which knows no pipefail.
                done = subprocess.run(["sh", "-c", here], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
                if expected is not None:
                    assert re.search(rf"(?<!\d){expected}(?!\d)", done.stdout), (done.stdout, done.stderr)
                else:
                    assert done.returncode == 22
                    assert "the image was refused" in done.stdout + (tmp_path / "answer").read_text(errors="replace")
                    assert not re.search(r"^\s*[0-9.e+-]+\t", done.stdout, re.MULTILINE)
        assert mnist.classify([photo])[0].label == label


def test_images_that_are_too_large_together_are_refused_before_they_are_decoded(server: Server, digit_files: list[Path]) -> None:
    buffer = io.BytesIO()
    Image.new("1", (9_450, 9_450), 1).save(buffer, "PNG")
    large, digit = buffer.getvalue(), digit_files[3].read_bytes()
    assert len(large) < 50_000
    sentence = r"the 5 images of the request have more than 357,913,940 pixels together: send fewer at a time"
    with connect(server.grpc_url, 60) as grpc, connect(server.http_url, 60) as http:
        for transport in (grpc, http):
            with pytest.raises(ModelError, match=sentence):
                asked(transport, large, large, large, large, large)
            assert asked(transport, large, digit, digit).shape == (3, 10)


def test_images_go_to_the_version_that_is_served(line: Line, other_line: Line, spoiled: Line, files: list[bytes], tmp_path: Path) -> None:
    assert export_run(other_line.run, spoiled.repository, ExportSettings(images=20))[0].published.number == 2
    described_by = {}
    for to in (2, 1):
        if to == 1:
            rollback(spoiled.repository, "mnist")
        with (
            start_server(spoiled.repository, replace(FREE_PORTS, models=("mnist",))) as server,
            Classifier("mnist", server.grpc_url) as mnist,
            connect(server.grpc_url) as transport,
        ):
            # Whoever serves the one model serves its images too.
            assert [model.name for model in server.models] == ["mnist", "mnist_image", "mnist_reformat"]
            described_by[to] = asked(transport, *files)
            assert np.abs(described_by[to] - mnist.probabilities(files)).max() < 1e-6
    assert np.abs(described_by[1] - described_by[2]).max() > 0.01


def test_a_first_step_that_sees_images_otherwise_is_refused_and_named(
    spoiled: Line, prove: Prove, capsys: pytest.CaptureFixture[str]
) -> None:
    path = spoiled.repository / "mnist_reformat" / "config.pbtxt"
    config = text_format.Parse(path.read_text(), ModelConfig())
    card = unseal(config.parameters[PICTURES_OF].string_value, "test")
    other = card.model_copy(update={"preprocess": card.preprocess.model_copy(update={"resample": "nearest"})})
    config.parameters[PICTURES_OF].string_value = seal(other)
    path.write_text(text_format.MessageToString(config))
    sentence = r"config\.pbtxt of model mnist_reformat .* holds another card of mnist than that model"
    with pytest.raises(ContractError, match=f"^mnist_reformat is not served: {sentence}"), start_server(spoiled.repository, FREE_PORTS):
        pass
    with (
        start_server(spoiled.repository, replace(FREE_PORTS, verify_hashes=False)) as server,
        pytest.raises(HopDiffers, match=f"the answers part at the hop “file: published → on disk”: {sentence}"),
    ):
        prove(spoiled, server)
    assert table(capsys.readouterr().out)["answers: ONNX → gRPC, encoded"] == "DIFFERS"


def test_labels_that_triton_alone_reads_are_held_to_the_card(spoiled: Line, prove: Prove, capsys: pytest.CaptureFixture[str]) -> None:
    """The documented curl lines print them: clients of Sightline take theirs from the card."""
    path = spoiled.repository / "mnist_image" / "labels.txt"
    labels = path.read_text().splitlines()
    labels[4], labels[7] = labels[7], labels[4]
    path.write_text("".join(f"{label}\n" for label in labels))
    sentence = r"labels\.txt of model mnist_image .* was changed after it was published: it is not what the model's card says"
    with pytest.raises(ContractError, match=f"^mnist_image is not served: {sentence}"), start_server(spoiled.repository, FREE_PORTS):
        pass
    with (
        start_server(spoiled.repository, replace(FREE_PORTS, verify_hashes=False)) as server,
        pytest.raises(HopDiffers, match=f"the hop “file: published → on disk”: {sentence}"),
    ):
        prove(spoiled, server)
    verdicts = table(capsys.readouterr().out)
    assert (verdicts["labels: card → Triton, gRPC"], verdicts["labels: card → Triton, HTTP"]) == ("DIFFERS", "DIFFERS")
    assert verdicts["answers: ONNX → gRPC, encoded"] == "same"


def test_serve_refuses_a_first_step_that_was_changed(spoiled: Line) -> None:
    with (spoiled.repository / "mnist_reformat" / "1" / "model.py").open("a") as file:
        file.write("print('hello')\n")
    with (
        pytest.raises(
            ContractError, match=r"mnist_reformat version 1 is not served: .* is damaged: model\.py was changed after it was published"
        ),
        start_server(spoiled.repository, FREE_PORTS),
    ):
        pass


def test_it_can_be_left_out_and_comes_with_the_next_export_and_only_once(line: Line, tmp_path: Path) -> None:
    repository = tmp_path / "models"
    cli.run(["export", str(line.run), "--repository", str(repository), "--no-image"])
    assert sorted(path.name for path in repository.iterdir() if path.is_dir()) == ["mnist"]
    cli.run(["export", str(line.run), "--repository", str(repository)])
    assert sorted(path.name for path in repository.iterdir() if path.is_dir()) == ["mnist", "mnist_image", "mnist_reformat"]
    card = unseal((repository / "mnist" / "card.json").read_text(), "test")
    assert publish_image_ensemble(repository, card) == ()
    # What a kill between the two left behind is completed.
    shutil.rmtree(repository / "mnist_image")
    assert publish_image_ensemble(repository, card) == ("mnist_image",)


@pytest.mark.parametrize("command", [["versions"], ["rollback"], ["tune", "--instances", "2"], ["finalize"]], ids=" ".join)
def test_what_has_no_versions_of_its_own_says_whose_it_is(command: list[str], line: Line) -> None:
    message = r"^mnist_image only takes encoded images for mnist and has no versions of its own: name mnist$"
    with pytest.raises(RepositoryError, match=message):
        cli.run([*command, "mnist_image", "--repository", str(line.repository)])


def test_processes_that_reformat_may_be_more_and_the_model_is_exported_again_all_the_same(line: Line, tmp_path: Path) -> None:
    repository = tmp_path / "models"
    shutil.copytree(line.repository, repository)
    set_reformats(repository, "mnist", 3)
    config = read_folder(repository / "mnist_reformat").config
    assert [(group.kind, group.count) for group in config.instance_groups] == [("KIND_CPU", 3)]
    card = unseal((repository / "mnist" / "card.json").read_text(), "test")
    assert publish_image_ensemble(repository, card) == ()
    # What decides an answer may not be another one.
    file = repository / "mnist_reformat" / "config.pbtxt"
    file.write_text(file.read_text().replace('"pixels"', '"other"'))
    with pytest.raises(RepositoryError, match=r"mnist_reformat is there and is not what takes encoded images .*: config.pbtxt differs"):
        publish_image_ensemble(repository, card)


def test_a_folder_of_that_name_is_never_overwritten_and_nothing_is_published(line: Line, tmp_path: Path) -> None:
    mine = tmp_path / "models" / "mnist_image" / "config.pbtxt"
    mine.parent.mkdir(parents=True)
    mine.write_text('name: "mnist_image"')
    with pytest.raises(RepositoryError, match=r"mnist_image is there and is not what takes encoded images .*, or leave the ensemble out$"):
        export_run(line.run, tmp_path / "models", ExportSettings(images=20))
    assert not (tmp_path / "models" / "mnist").exists()
    assert mine.read_text() == 'name: "mnist_image"'
