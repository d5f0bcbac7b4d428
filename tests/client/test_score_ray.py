"""Batch jobs on a real Ray of two workers: the rows of a job without Ray, also where a worker is killed, and resumed either way."""

import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest
from PIL import Image

from sightline import Classifier
from sightline.errors import MissingExtra, ServerUnavailable, UsageError
from sightline.scoring import ScoreProgress, ScoreSettings, ray_engine, rows_of, score
from sightline.scoring.ray_cluster import Node, demand_alike
from sightline.testing import FakeTransport
from support.fake_network import brightest, card
from support.many_names import in_two_classes
from support.score_formats import SUFFIXES

if TYPE_CHECKING:
    from sightline_serving.server import Server

ray = pytest.importorskip("ray", reason="the base install has no Ray")
psutil = pytest.importorskip("psutil", reason="the base install has no psutil")

Engine = Literal["local", "ray"]

SIGHTLINE = str(Path(sys.executable).parent / "sightline")
ON_RAY = ScoreSettings(engine="ray", top=2, labelled=True)
NO_ADDRESS = (
    "an address of a Ray is HOST:PORT, as `ray start` prints it, used on a machine of the cluster: "
    "Ray Data does not run through Ray's client"
)
STORE_BYTES = 100 * 2**20


@pytest.fixture(scope="module")
def two_workers() -> Iterator[None]:
    ray.init(num_cpus=2, object_store_memory=STORE_BYTES, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1,000 good images, three that cannot be read, and what is no image."""
    folder = in_two_classes(tmp_path_factory.mktemp("ray") / "in", 1000)
    (folder / "cat" / "00001.png").write_bytes(b"")
    (folder / "dog" / "00500.jpg").write_bytes(b"\xff\xd8\xff\xe0 no")
    Image.new("RGB", (3, 3), "red").save(folder / "cat" / "00501.tif")
    (folder / "dog" / "zzz.png").write_text("text")
    (folder / "readme.txt").write_text("text")
    return folder


@pytest.fixture
def classifier(served: "tuple[Server, Path]") -> Iterator[Classifier]:
    with Classifier("tiny", served[0].http_url, version="1", headers={"x-who": "ray"}) as classifier:
        yield classifier


def clean(classifier: Classifier, folder: Path, out: Path) -> bytes:
    return score(classifier, folder, out, replace(ON_RAY, engine="local")).out.read_bytes()


def busy_workers() -> list[Any]:
    """The processes of this Ray that are at a task right now."""
    children = psutil.Process().children(recursive=True)
    return [child for child in children if child.name().startswith("ray::MapBatches")]


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("ray://head:10001", NO_ADDRESS),
        ("head", NO_ADDRESS),
        ("head:port", NO_ADDRESS),
        ("127.0.0.1:1", "no Ray answers there: Connection refused"),
    ],
)
def test_an_address_without_a_ray_is_refused(tmp_path: Path, address: str, sentence: str) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    settings = replace(ON_RAY, labelled=False, ray_address=address)
    with Classifier("colours", transport=FakeTransport(card(), brightest)) as classifier, pytest.raises(UsageError) as refusal:
        score(classifier, tmp_path, tmp_path / "rows.csv", settings)
    assert str(refusal.value) == f"{address}: {sentence}"
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.triton
@pytest.mark.usefixtures("two_workers")
@pytest.mark.parametrize("suffix", [SUFFIXES[0], *(pytest.param(suffix, marks=pytest.mark.slow) for suffix in SUFFIXES[1:])])
def test_rows_are_those_of_a_job_without_ray_also_where_a_worker_is_killed(
    classifier: Classifier, folder: Path, tmp_path: Path, suffix: str
) -> None:
    killed: list[Any] = []

    def kill() -> None:
        while not (busy := busy_workers()):
            time.sleep(0.005)
        busy[0].kill()
        killed.append(busy[0])

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    done = score(classifier, folder, tmp_path / f"ray.{suffix}", ON_RAY)
    killer.join(1)
    assert psutil.wait_procs(killed, timeout=30)[0] == killed != []
    assert (done.rows, done.broken, done.passed_over, done.version) == (1004, 3, 1, "1")
    assert done.out.read_bytes() == clean(classifier, folder, tmp_path / f"clean.{suffix}")


class Ended(BaseException):
    pass


def ended_after(rows: int) -> Callable[[ScoreProgress], None]:
    def progress(now: ScoreProgress) -> None:
        if now.rows >= rows:
            raise Ended

    return progress


@pytest.mark.triton
@pytest.mark.usefixtures("two_workers")
@pytest.mark.parametrize(
    ("first", "second"),
    [("ray", "local"), pytest.param("local", "ray", marks=pytest.mark.slow), pytest.param("ray", "ray", marks=pytest.mark.slow)],
)
def test_a_job_that_was_ended_goes_on_with_or_without_ray(
    classifier: Classifier, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: Engine, second: Engine
) -> None:
    monkeypatch.setattr(ray_engine, "WINDOW_REQUESTS", 20)
    settings = replace(ON_RAY, resume=True, checkpoint_s=0)
    with pytest.raises(Ended):
        score(classifier, folder, tmp_path / "rows.csv", replace(settings, engine=first), ended_after(300))
    done = score(classifier, folder, tmp_path / "rows.csv", replace(settings, engine=second))
    assert done.resumed_rows >= 300
    assert done.out.read_bytes() == clean(classifier, folder, tmp_path / "clean.csv")


@pytest.mark.triton
@pytest.mark.usefixtures("two_workers")
def test_a_server_that_stays_away_ends_the_job_as_it_does_without_ray(
    tmp_path: Path, folder: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sightline_serving.server import start_server
    from sightline_serving.settings import FREE_PORTS

    monkeypatch.setattr(ray_engine, "WINDOW_REQUESTS", 20)
    with ExitStack() as running:
        server = running.enter_context(start_server(repository, FREE_PORTS))
        classifier = Classifier("tiny", server.grpc_url, version="1", wait_s=0.5)
        with pytest.raises(ServerUnavailable, match=r"rows are safe in .*rows\.csv\.part: the job can be resumed\)$") as ended:
            score(classifier, folder, tmp_path / "rows.csv", ON_RAY, lambda _progress: running.close())
    assert ended.value.settings == ("resume",)


@pytest.mark.slow
@pytest.mark.triton
def test_the_command_starts_a_ray_is_ended_by_a_signal_and_resumed(served: "tuple[Server, Path]", tmp_path: Path) -> None:
    folder = in_two_classes(tmp_path / "in", 8_000)
    out = tmp_path / "rows.csv"
    command = [SIGHTLINE, "score", "tiny", str(folder), "--out", str(out), "--url", served[0].grpc_url, "--engine", "ray"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        deadline_s = time.monotonic() + 90
        journal = tmp_path / "rows.csv.journal"
        while not (journal.exists() and journal.read_bytes().count(b"\n") > 1):
            assert time.monotonic() < deadline_s
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.005)
        workers = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 143, said
    assert said.splitlines()[-1] == "ended by SIGTERM: the same command with --resume goes on where it was"
    assert psutil.wait_procs(workers, timeout=30)[1] == []
    done = subprocess.run([*command, "--resume"], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert re.search(r" of them from before\)$", done.stdout.strip())
    assert done.stdout.startswith(f"8,000 rows in {out} (0 with an error; ")
    assert sum(1 for _ in rows_of(out)) == 8_000
    with Classifier("tiny", served[0].grpc_url, version="1") as classifier:
        assert score(classifier, folder, tmp_path / "clean.csv").out.read_bytes() == out.read_bytes()


@pytest.mark.triton
@pytest.mark.usefixtures("two_workers")
def test_a_machine_with_another_pillow_is_refused_before_a_row_is_written(
    classifier: Classifier, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = version("pillow")
    monkeypatch.setattr("PIL.__version__", "1.0")
    with pytest.raises(UsageError) as refusal:
        score(classifier, folder, tmp_path / "rows.csv", ON_RAY)
    assert re.match(
        rf"[\d.]+, a machine of the cluster, has Pillow {re.escape(theirs)}, and this one 1\.0: rows could differ ", str(refusal.value)
    )


@pytest.mark.usefixtures("two_workers")
def test_an_address_of_another_ray_than_the_one_that_is_connected_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    settings = replace(ON_RAY, labelled=False, ray_address="127.0.0.1:1")
    with Classifier("colours", transport=FakeTransport(card(), brightest)) as classifier, pytest.raises(UsageError) as refusal:
        score(classifier, tmp_path, tmp_path / "rows.csv", settings)
    assert re.fullmatch(r"127\.0\.0\.1:1: this process is connected to another Ray, at [\d.:]+: leave it first", str(refusal.value))


HERE = Node("0.1.0", "13.0.0", (100, 5))


@pytest.mark.parametrize(
    ("theirs", "words"),
    [
        (replace(HERE, sightline="0.2.0"), "has Sightline 0.2.0, and this one 0.1.0: rows could differ"),
        (replace(HERE, file=(100, 6)), "does not see /in/a.png as this one does (it has another size or time): share it, or use URLs"),
        (
            replace(HERE, file="No such file or directory"),
            "does not see /in/a.png as this one does (No such file or directory): share it, or use URLs",
        ),
    ],
)
def test_a_machine_that_would_make_other_rows_is_named(theirs: Node, words: str) -> None:
    with pytest.raises(UsageError) as refusal:
        demand_alike("10.0.0.2", theirs, HERE, "/in/a.png")
    assert str(refusal.value) == f"10.0.0.2, a machine of the cluster, {words}"
    demand_alike("10.0.0.2", HERE, HERE, "/in/a.png")


def test_without_ray_the_job_does_not_begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray.data", None)
    (tmp_path / "a.png").write_bytes(b"")
    with Classifier("colours", transport=FakeTransport(card(), brightest)) as classifier, pytest.raises(MissingExtra) as missing:
        score(classifier, tmp_path, tmp_path / "rows.csv", ON_RAY)
    assert str(missing.value) == "the engine ray needs Ray Data: pip install 'sightline[ray]'"
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
