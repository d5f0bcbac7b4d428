"""Batch jobs over a real S3 server: prefixes, odd names, missing objects, and a job that is killed and resumed."""

import io
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from sightline import Classifier
from sightline.errors import UsageError
from sightline.scoring import ScoreSettings, listing, rows_of, score
from sightline.scoring.entries import PassedOver
from sightline.testing import FakeTransport
from support.fake_network import brightest, card
from support.killed_scoring import Order, jobs

boto3 = pytest.importorskip("boto3", reason="the base install has no S3")

OBJECTS = 300
ODD = ("a b.png", "ünï 名.png", "per%20cent?#&+.png", "star*[x].png", "no-suffix", "=formula.png")
CREDENTIALS = (("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "test"), ("AWS_DEFAULT_REGION", "us-east-1"))


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """moto's server, in a process of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = "import sys; from moto.server import main; main(['-H', '127.0.0.1', '-p', sys.argv[1]])"
    server = subprocess.Popen([sys.executable, "-c", program, str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline_s = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert time.monotonic() < deadline_s
                assert server.poll() is None
                time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.kill()
        server.wait()


@pytest.fixture(scope="module")
def client(endpoint: str) -> object:
    """The bucket `photos`: some hundred images in two classes, odd names, a placeholder, a broken image, and what is no image."""
    names = dict(CREDENTIALS)
    made = boto3.client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id=names["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=names["AWS_SECRET_ACCESS_KEY"],
        region_name=names["AWS_DEFAULT_REGION"],
    )
    made.create_bucket(Bucket="photos")
    for number in range(OBJECTS):
        image = io.BytesIO()
        Image.new("RGB", (6, 6), (number % 256, 90, 200 - number % 100)).save(image, "PNG")
        made.put_object(Bucket="photos", Key=f"in/{('cat', 'dog')[number % 2]}/{number % 5}/{number:04}.png", Body=image.getvalue())
    for name in ODD:
        made.put_object(Bucket="photos", Key=f"in/odd/{name}", Body=image.getvalue())
    made.put_object(Bucket="photos", Key="in/odd/", Body=b"")
    made.put_object(Bucket="photos", Key="in/odd/broken.jpg", Body=b"no image")
    made.put_object(Bucket="photos", Key="in/notes.txt", Body=b"text")
    made.put_object(Bucket="photos", Key="inside.png", Body=image.getvalue())
    return made


@pytest.fixture
def bucket(client: object, endpoint: str, monkeypatch: pytest.MonkeyPatch) -> str:
    for name, value in (*CREDENTIALS, ("AWS_ENDPOINT_URL", endpoint)):
        monkeypatch.setenv(name, value)
    return "s3://photos/in"


def classifier() -> Classifier:
    return Classifier("colours", transport=FakeTransport(card(), brightest))


def test_each_object_below_a_prefix_is_a_row_whatever_it_is_called(bucket: str, tmp_path: Path) -> None:
    done = score(classifier(), bucket, tmp_path / "rows.csv", ScoreSettings(labelled=True, readers=8))
    rows = list(rows_of(done.out))
    assert (done.rows, done.broken, done.passed_over, done.guarded) == (OBJECTS + len(ODD) + 1, 1, 1, 0)
    assert [row.image for row in rows] == sorted((row.image for row in rows), key=lambda name: name.split("/"))
    assert {row.truth for row in rows} == {"cat", "dog", "odd"}
    assert {row.image.removeprefix("odd/") for row in rows if row.truth == "odd" and not row.error} == set(ODD)
    assert [(row.image, row.error_kind, row.error) for row in rows if row.error] == [
        (
            "odd/broken.jpg",
            "image",
            "s3://photos/in/odd/broken.jpg: not an image in a format that is read here (JPEG, PNG, WEBP, GIF, BMP, TIFF, PPM, AVIF, HEIC)",
        )
    ]


def test_a_pattern_and_a_list_name_objects(bucket: str, tmp_path: Path, client: object) -> None:
    names = [entry.name for entry in listing(f"{bucket}/*/3/00[01]*.png").entries(PassedOver())]
    assert names == ["cat/3/0008.png", "cat/3/0018.png", "dog/3/0003.png", "dog/3/0013.png"]
    (tmp_path / "list.txt").write_text(f"{bucket}/cat/0/0000.png\n{bucket}/cat/0/missing.png\ns3://no-such-bucket/a.png\n")
    rows = list(rows_of(score(classifier(), tmp_path / "list.txt", tmp_path / "rows.csv").out))
    assert [row.error_kind for row in rows] == ["", "remote", "remote"]
    assert rows[1].error.startswith(f"{bucket}/cat/0/missing.png: cannot be read: ")


def test_an_object_that_vanishes_after_it_was_listed_is_a_row(bucket: str, tmp_path: Path, client: "object") -> None:
    client.put_object(Bucket="photos", Key="gone/a.png", Body=b"x")  # type: ignore[attr-defined]
    entries = list(listing("s3://photos/gone").entries(PassedOver()))
    assert [(entry.name, entry.size) for entry in entries] == [("a.png", 1)]
    assert entries[0].stamp
    client.delete_object(Bucket="photos", Key="gone/a.png")  # type: ignore[attr-defined]
    with pytest.raises(OSError, match=r"No such file|does not exist|404|Not Found"):
        entries[0].image.read()  # type: ignore[union-attr]


@pytest.mark.parametrize("source", ["s3://no-such-bucket/in", "s3://photos/no/such/prefix"])
def test_a_bucket_that_is_not_there_ends_the_job_with_one_sentence(bucket: str, tmp_path: Path, source: str) -> None:
    with pytest.raises(UsageError) as refusal:
        score(classifier(), source, tmp_path / "rows.csv")
    assert str(refusal.value).startswith(f"{source}: the folder cannot be listed: ")
    assert "\n" not in str(refusal.value)
    assert list(tmp_path.glob("rows*")) == []


def test_a_job_over_a_bucket_that_is_killed_is_resumed_to_the_bytes_of_a_clean_run(bucket: str, endpoint: str, tmp_path: Path) -> None:
    environment = (*CREDENTIALS, ("AWS_ENDPOINT_URL", endpoint))
    order = Order(f"{bucket}/cat", tmp_path / "clean.csv", environment=environment)
    with jobs() as done:
        assert done(order) == 0
        for share in (0.2, 0.5, 0.8):
            at_bytes = int(share * order.out.stat().st_size)
            assert done(replace(order, out=tmp_path / "rows.csv", at_bytes=at_bytes)) == -9
        assert done(replace(order, out=tmp_path / "rows.csv")) == 0
    assert (tmp_path / "rows.csv").read_bytes() == (tmp_path / "clean.csv").read_bytes()


def test_an_object_that_was_replaced_is_noticed_when_the_job_is_resumed(
    bucket: str, tmp_path: Path, client: object, interrupted: Callable[[str, Path], None]
) -> None:
    out = tmp_path / "rows.csv"
    interrupted(bucket, out)
    client.put_object(Bucket="photos", Key="in/cat/0/0010.png", Body=b"other")  # type: ignore[attr-defined]
    with pytest.raises(UsageError) as refusal:
        score(classifier(), bucket, out, ScoreSettings(resume=True))
    assert "(the last is cat/0/0030.png), one has another size, time or class" in str(refusal.value)


@pytest.fixture
def interrupted() -> Callable[[str, Path], None]:
    def begin(source: str, out: Path) -> None:
        def interrupt(progress: object) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            score(classifier(), source, out, progress=interrupt)

    return begin
