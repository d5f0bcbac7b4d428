"""Every program in `examples/` runs against a real server and prints what it promises."""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

import sightline
from sightline import Classifier, Guess, unseal
from sightline_serving.server import Server
from support.line import Line
from support.readme import ROOT

EXAMPLES = ROOT / "examples"


def run(command: list[str | Path], server: Server | None = None, *, code: int = 0) -> subprocess.CompletedProcess[str]:
    urls = {} if server is None else {"SIGHTLINE_URL": server.grpc_url, "SIGHTLINE_HTTP_URL": server.http_url}
    done = subprocess.run(command, env={**os.environ, **urls}, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == code, done.stderr
    return done


def python(name: str, *arguments: str | Path, server: Server | None = None, code: int = 0) -> subprocess.CompletedProcess[str]:
    return run([sys.executable, EXAMPLES / name, *arguments], server, code=code)


@pytest.fixture(scope="module")
def guesses(server: Server, digit_files: list[Path]) -> list[Guess]:
    with Classifier("mnist", url=server.grpc_url) as mnist:
        return mnist.classify(list(digit_files), top=3)


@pytest.mark.triton
def test_ten_lines_classify_images(server: Server, digit_files: list[Path], guesses: list[Guess]) -> None:
    lines = python("classify.py", *digit_files, server=server).stdout.splitlines()
    assert lines == [
        f"{file} {guess.label} {guess.probability:.4f} (then {guess.top[1].label})"
        for file, guess in zip(digit_files, guesses, strict=True)
    ]


@pytest.mark.triton
def test_a_broken_image_gets_no_label_and_the_others_do(
    server: Server, digit_files: list[Path], guesses: list[Guess], tmp_path: Path
) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    lines = python("handle_errors.py", "mnist", broken, digit_files[3], server=server).stdout.splitlines()
    assert lines[0].startswith(f"{broken}: no label, since it cannot be read: {broken}: not an image in a format that is read here")
    assert lines[1:] == [f"{digit_files[3]}: {guesses[3].label}"]


@pytest.mark.triton
def test_tasks_of_an_event_loop_share_a_classifier(server: Server, digit_files: list[Path], guesses: list[Guess], tmp_path: Path) -> None:
    missing = tmp_path / "missing.png"
    lines = python("in_an_event_loop.py", *digit_files, missing, server=server).stdout.splitlines()
    assert lines == [
        *(f"{file}: {guess.label}" for file, guess in zip(digit_files, guesses, strict=True)),
        f"no label: {missing}: cannot be read: No such file or directory",
    ]


@pytest.mark.triton
def test_a_model_that_is_not_there_is_told_from_a_server_that_is_not(server: Server) -> None:
    done = python("handle_errors.py", "nobody", server=server, code=10)
    assert done.stderr.startswith(f"another model, please: the server at {server.grpc_url} has no such model or version")
    environment = {**os.environ, "SIGHTLINE_URL": "grpc://127.0.0.1:9"}
    command: list[str | Path] = [sys.executable, EXAMPLES / "handle_errors.py", "mnist"]
    nobody = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert nobody.returncode == 6
    assert nobody.stderr.startswith("try again later: no Triton server answers at grpc://127.0.0.1:9")


def test_the_tests_of_an_application_need_no_server() -> None:
    done = run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", EXAMPLES / "test_your_application.py"])
    assert "3 passed" in done.stdout


@pytest.mark.triton
def test_a_folder_becomes_rows(server: Server, digit_files: list[Path], guesses: list[Guess], tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for file in digit_files:
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / "broken.jpg").write_bytes(b"no image")
    lines = python("score_folder.py", folder, tmp_path / "rows.parquet", server=server).stdout.splitlines()
    assert lines[:2] == ["11 rows, 1 of them without a label", "broken: broken.jpg (image)"]
    counted = {label: int(count) for label, count in (line.removeprefix("label ").split(": ") for line in lines[2:])}
    labels = [guess.label for guess in guesses]
    assert counted == {label: labels.count(label) for label in sorted(set(labels))}


@pytest.mark.triton
def test_tritonclient_alone_gives_the_same_answers(server: Server, digit_files: list[Path], guesses: list[Guess]) -> None:
    lines = python("raw_tritonclient.py", server.grpc_url.removeprefix("grpc://"), "mnist", *digit_files).stdout.splitlines()
    assert lines == [f"{file} {guess.label} {guess.probability:.4f}" for file, guess in zip(digit_files, guesses, strict=True)]
    assert "import sightline" not in (EXAMPLES / "raw_tritonclient.py").read_text(encoding="utf-8")


@pytest.mark.triton
def test_curl_alone_is_a_client(line: Line, server: Server, digit_files: list[Path], guesses: list[Guess]) -> None:
    labels = line.repository / "mnist" / "labels.txt"
    rows = run(["sh", EXAMPLES / "classify_with_curl.sh", digit_files[7], labels], server).stdout.splitlines()
    assert [row.split()[1] for row in rows] == [candidate.label for candidate in guesses[7].top]
    assert float(rows[0].split()[0]) == pytest.approx(guesses[7].probability, abs=1e-5)


def test_a_network_of_ones_own_is_published_with_its_card(tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for seed in range(8):
        Image.fromarray(np.random.default_rng(seed).integers(0, 256, (40, 60, 3), np.uint8)).save(images / f"{seed}.png")
    published = python("publish_own_network.py", tmp_path / "models", images)
    assert published.stdout == f"published {tmp_path / 'models' / 'own' / '1'}\n"
    card = unseal((tmp_path / "models" / "own" / "card.json").read_text(encoding="utf-8"), "card.json")
    assert (card.name, card.labels, card.preprocess.shape) == ("own", ("cat", "dog"), (32, 32, 3))


@pytest.mark.triton
def test_a_data_loader_feeds_a_model_and_goes_on_after_a_broken_image(
    server: Server, digit_files: list[Path], guesses: list[Guess], tmp_path: Path
) -> None:
    for file in digit_files:
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "broken.jpg").write_bytes(b"")
    lines = python("data_loader.py", tmp_path, server=server).stdout.splitlines()
    labelled = [f"{tmp_path / file.name}: {guess.label}" for file, guess in zip(digit_files, guesses, strict=True)]
    assert lines == [*labelled, f"{tmp_path}/broken.jpg: {tmp_path}/broken.jpg: the file is empty"]


@contextmanager
def web_service(url: str) -> Iterator[str]:
    """The example as a process of its own, on a port that the system chooses; its address."""
    if not hasattr(sightline, "AsyncClassifier"):
        pytest.skip("sightline has no AsyncClassifier yet, which this example is written against")
    environment = {**os.environ, "SIGHTLINE_URL": url, "PORT": "0"}
    command: list[str | Path] = [sys.executable, EXAMPLES / "web_service.py"]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            said = []
            for line in process.stderr:
                said.append(line)
                running = re.search(r"Uvicorn running on (http://\S+)", line)
                if running:
                    break
            else:
                pytest.fail("".join(said))
            yield running[1]
        finally:
            process.terminate()
            rest = process.communicate(timeout=30)[1]
        assert "Traceback" not in rest, rest


def posted(address: str, content: bytes) -> tuple[int, dict[str, object]]:
    answer = httpx.post(f"{address}/classify", content=content, timeout=30)
    return answer.status_code, answer.json()


@pytest.mark.triton
def test_a_web_service_answers_uploads_and_says_what_is_wrong_with_the_others(
    server: Server, digit_files: list[Path], guesses: list[Guess]
) -> None:
    with web_service(server.grpc_url) as address:
        with ThreadPoolExecutor(5) as pool:
            answers = list(pool.map(lambda file: posted(address, file.read_bytes()), digit_files))
        assert [(code, answer["label"], answer["probability"]) for code, answer in answers] == [
            (200, guess.label, pytest.approx(guess.probability, abs=1e-5)) for guess in guesses
        ]
        code, answer = posted(address, b"no image")
        assert code == 422
        assert "not an image in a format that is read here" in str(answer["error"])
        assert posted(address, b"")[0] == 422
        assert posted(address, bytes(20 * 1024 * 1024 + 1)) == (413, {"error": "an image may have 20,971,520 bytes at most"})
        assert httpx.get(f"{address}/classify").status_code == 405
        assert posted(address, digit_files[3].read_bytes())[1]["label"] == guesses[3].label


def test_a_web_service_whose_server_is_away_says_503(digit_files: list[Path]) -> None:
    with web_service("grpc://127.0.0.1:9") as address:
        for _ in range(2):
            code, answer = posted(address, digit_files[0].read_bytes())
            assert code == 503
            assert str(answer["error"]).startswith("no Triton server answers at grpc://127.0.0.1:9")


def test_every_example_opens_with_what_it_is_for_and_its_command() -> None:
    for path in EXAMPLES.glob("*.py"):
        opening = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        command = opening.partition("\n")[0]
        assert re.fullmatch(rf"[A-Z].+: (PORT=8080 )?(python|pytest) examples/{path.name}.*", command), path.name
    assert "\n# Ask `mnist_image` with curl alone: sh examples/classify_with_curl.sh IMAGE LABELS\n" in (
        EXAMPLES / "classify_with_curl.sh"
    ).read_text(encoding="utf-8")


def test_every_example_stands_on_their_page_and_in_a_test() -> None:
    scripts = {path.name for path in EXAMPLES.iterdir() if path.suffix in (".py", ".sh")}
    page, tests = (EXAMPLES / "README.md").read_text(encoding="utf-8"), Path(__file__).read_text(encoding="utf-8")
    assert [name for name in sorted(scripts) if f"`{name}`" not in page or f'"{name}"' not in tests] == []
