"""kill -9 at any moment, and `resume`: byte for byte the file of one clean run."""

import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from support.killed_scoring import Order, jobs
from support.score_formats import SUFFIXES

if TYPE_CHECKING:
    from sightline_serving.server import Server


@pytest.fixture(scope="module")
def job() -> Iterator[Callable[[Order], int]]:
    with jobs() as done:
        yield done


def folder_in(place: Path, count: int) -> Path:
    """Images in folders, some of them broken."""
    pixels = np.random.default_rng(0).integers(0, 256, (count, 12, 9, 3), dtype=np.uint8)
    for number, image in enumerate(pixels):
        file = place / "in" / f"{number % 7}" / f"{number:04}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        if number % 23 == 5:
            file.write_bytes(b"no image")
        else:
            Image.fromarray(image).save(file)
    return place / "in"


@pytest.mark.triton
@pytest.mark.parametrize("most_kills", [10, pytest.param(50, marks=pytest.mark.slow)])
def test_kills_at_random_moments_leave_the_bytes_of_a_clean_run(
    job: Callable[[Order], int], served: "tuple[Server, Path]", tmp_path: Path, most_kills: int
) -> None:
    seed = int(os.environ.get("SIGHTLINE_SEED", time.time_ns() % 2**32))
    print(f"SIGHTLINE_SEED={seed}")
    chosen = random.Random(seed)
    folder = folder_in(tmp_path, 400)
    urls = (served[0].grpc_url, served[0].http_url)
    clean: dict[str, bytes] = {}
    for suffix in SUFFIXES:
        started_s = time.monotonic()
        assert job(Order(str(folder), tmp_path / f"clean.{suffix}", urls[0])) == 0
        clean_s = time.monotonic() - started_s
        clean[suffix] = (tmp_path / f"clean.{suffix}").read_bytes()
    kills = finished = underway = 0
    while kills < most_kills:
        suffix = SUFFIXES[finished % len(SUFFIXES)]
        out = tmp_path / f"rows.{suffix}"
        code = job(Order(str(folder), out, chosen.choice(urls), after_s=chosen.uniform(0.0, 1.1 * clean_s)))
        assert code in (0, -9), f"SIGHTLINE_SEED={seed}"
        kills += code == -9
        underway += code == -9 and out.with_name(f"{out.name}.journal").exists()
        if code == 0 or kills == most_kills:
            assert job(Order(str(folder), out, chosen.choice(urls))) == 0
            assert out.read_bytes() == clean[suffix], f"SIGHTLINE_SEED={seed}"
            assert sorted(path.name for path in tmp_path.glob("rows*")) == [f"rows.{suffix}"]
            out.unlink()
            finished += 1
    assert underway > most_kills / 4
    print(f"{kills} kills, {underway} of them with rows on the disk, {finished} files, a clean run of {clean_s:.2f} s")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_kill_before_each_step_on_the_disk_leaves_the_bytes_of_a_clean_run(
    job: Callable[[Order], int], tmp_path: Path, suffix: str
) -> None:
    folder, clean = folder_in(tmp_path, 14), tmp_path / f"clean.{suffix}"
    assert job(Order(str(folder), clean)) == 0
    steps = 0
    for step in range(1, 200):
        out = tmp_path / f"rows.{suffix}"
        code = job(Order(str(folder), out, at_step=step))
        if code == 0:
            assert out.read_bytes() == clean.read_bytes()
            break
        assert code == -9
        assert not out.exists() or out.read_bytes() == clean.read_bytes()
        # The one that resumes it is killed too, a step further each time.
        assert job(Order(str(folder), out, at_step=1 + step % 12)) in (0, -9)
        assert job(Order(str(folder), out)) == 0
        assert out.read_bytes() == clean.read_bytes(), step
        assert [path.name for path in tmp_path.glob("*rows*")] == [out.name]
        out.unlink()
        steps += 1
    assert 15 <= steps < 150
