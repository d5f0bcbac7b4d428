"""Tests of `sightline.flow`: order, bounds, errors, and that threads end with the stream."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from sightline.errors import ImageError, MachineError, ServerUnavailable, UsageError
from sightline.flow import FlowSettings, flow
from sightline.image import Admit
from sightline.image.blocks import MOST_BLOCKS, blocks_kept
from sightline.readers import reading_processes

Pixels = npt.NDArray[np.uint8]


def pixels_of(number: int, _admit: Admit | None = None) -> Pixels | ImageError:
    """An image whose only pixel is its number; every seventh cannot be read, and the first of ten takes longest."""
    time.sleep(0.002 if number % 10 == 0 else 0)
    return ImageError(str(number)) if number % 7 == 3 else np.full((1, 1, 1), number, np.uint8)


def sums(pixels: Pixels) -> list[int]:
    return [int(image.sum()) for image in pixels]


@pytest.mark.parametrize("settings", [FlowSettings(), FlowSettings(1, 1), FlowSettings(7, 3), FlowSettings(full_batches=True)])
@pytest.mark.parametrize("count", [0, 1, 2, 15, 16, 17, 200])
@pytest.mark.parametrize("batch_size", [1, 2, 16])
def test_outcomes_come_in_the_order_of_the_images(settings: FlowSettings, count: int, batch_size: int) -> None:
    outcomes = list(flow(range(count), pixels_of, sums, batch_size, settings))
    assert [str(outcome) for outcome in outcomes] == [str(number) for number in range(count)]
    assert [number for number, outcome in enumerate(outcomes) if isinstance(outcome, ImageError)] == list(range(3, count, 7))


def test_batches_are_cut_by_position_and_filled_up_where_that_is_asked_for() -> None:
    def sizes(settings: FlowSettings) -> list[int]:
        asked: list[int] = []
        list(flow(range(40), pixels_of, lambda pixels: asked.append(len(pixels)) or sums(pixels), 16, settings))  # type: ignore[func-returns-value]
        return sorted(asked)

    assert sizes(FlowSettings(requests=1)) == [7, 13, 14]  # of 16, 16 and 8, without the 3 + 2 + 1 that cannot be read
    assert sizes(FlowSettings(full_batches=True)) == [16, 16, 16]


def test_a_batch_without_a_readable_image_asks_nobody() -> None:
    outcomes = list(flow([3, 10, 17], pixels_of, lambda _pixels: pytest.fail("asked"), 2))
    assert [str(outcome) for outcome in outcomes] == ["3", "10", "17"]


@pytest.mark.parametrize("count", [1, 2, 9])
def test_too_few_answers_are_an_error_and_no_shorter_stream(count: int) -> None:
    with pytest.raises(ValueError, match="answers to more images"):
        list(flow(range(11, 11 + count), pixels_of, lambda pixels: sums(pixels)[1:], 16))


def test_what_asking_raises_is_raised_after_the_answers_before_it() -> None:
    def asked(pixels: Pixels) -> list[int]:
        if pixels.max() >= 20:
            raise ServerUnavailable("gone")
        return sums(pixels)

    outcomes = flow(range(100), pixels_of, asked, 10)
    assert [str(next(outcomes)) for _ in range(20)] == [str(number) for number in range(20)]
    with pytest.raises(ServerUnavailable, match="gone"):
        next(outcomes)


def test_what_listing_raises_is_raised() -> None:
    def listed() -> Iterator[int]:
        yield from range(5)
        raise UsageError("no further")

    with pytest.raises(UsageError, match="no further"):
        list(flow(listed(), pixels_of, sums, 4))


def test_a_stream_that_is_left_early_leaves_no_thread() -> None:
    before = set(threading.enumerate())
    outcomes = flow(iter(range(10**9)), pixels_of, sums, 4)
    assert next(outcomes) == 0
    outcomes.close()  # type: ignore[attr-defined]
    assert set(threading.enumerate()) <= before


@pytest.mark.parametrize("count", [0, 1, 2, 17, 200])
def test_processes_read_the_same_in_the_same_order(count: int) -> None:
    with reading_processes(2, 1_000_000) as readers:
        outcomes = list(flow(range(count), pixels_of, sums, 16, readers=readers))
    assert [str(outcome) for outcome in outcomes] == [str(number) for number in range(count)]
    assert [number for number, outcome in enumerate(outcomes) if isinstance(outcome, ImageError)] == list(range(3, count, 7))


def test_large_images_take_turns_in_processes_too(tmp_path: Path) -> None:
    with reading_processes(3, 10_000_000) as readers:
        read = partial(noted, tmp_path / "log")
        assert list(flow([9_000_000] * 8, read, sums, 4, readers=readers)) == [0] * 8
    assert (tmp_path / "log").read_text() == "+-" * 8


def noted(log: Path, pixels: int, admit: Admit) -> Pixels:
    """Write when decoding begins and ends."""
    admit(pixels)
    for sign in "+-":
        with log.open("a") as file:
            file.write(sign)
        time.sleep(0.01)
    return np.zeros((1, 1, 1), np.uint8)


def killing(number: int, _admit: Admit) -> Pixels:
    if number == 50:
        os.kill(os.getpid(), signal.SIGKILL)
    return np.zeros((1, 1, 1), np.uint8)


def test_a_reading_process_that_is_killed_ends_the_stream_with_a_sentence() -> None:
    with reading_processes(2, 1_000_000) as readers, pytest.raises(MachineError, match="a process that reads images was killed"):
        list(flow(range(200), killing, sums, 16, readers=readers))


def test_reading_processes_leave_with_the_process_that_they_read_for(tmp_path: Path) -> None:
    script = (
        "import multiprocessing, os, signal\n"
        "from sightline.readers import reading_processes\n"
        "with reading_processes(2, 1_000_000) as readers:\n"
        "    print(*(child.pid for child in multiprocessing.active_children()), flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True, timeout=60)
    assert ended.returncode == -signal.SIGKILL
    processes = [int(number) for number in ended.stdout.split()]
    assert len(processes) == 2
    patience_s = time.monotonic() + 20
    while any(Path(f"/proc/{number}").exists() for number in processes):
        assert time.monotonic() < patience_s
        time.sleep(0.05)


@pytest.mark.parametrize("settings", [{"readers": 0}, {"requests": 257}])
def test_a_stream_needs_a_sensible_number_of_each(settings: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="must be between 1 and 256"):
        FlowSettings(**settings)  # type: ignore[arg-type]


def test_large_images_take_turns_and_one_that_is_too_large_for_the_room_is_read_alone() -> None:
    lock = threading.Lock()
    now: list[int] = []
    seen: list[list[int]] = []

    def read(pixels: int, admit: Admit) -> Pixels:
        admit(pixels)
        with lock:
            now.append(pixels)
            seen.append(sorted(now))
        time.sleep(0.003)
        with lock:
            now.remove(pixels)
        return np.zeros((1, 1, 1), np.uint8)

    sizes = [4_000_000, 5_000_000, 30_000_000, 3_000_000, 12_000_000] * 4
    assert list(flow(sizes, read, sums, 5, FlowSettings(readers=6, pixels=10_000_000))) == [0] * 20
    assert max(sum(together) for together in seen if len(together) > 1) <= 10_000_000
    assert [30_000_000] in seen
    assert any(len(together) > 1 for together in seen)


def test_requests_hold_no_more_bytes_than_memory_is_meant_for() -> None:
    assert FlowSettings().within(64 * 784) == FlowSettings()
    assert FlowSettings(requests=8).within(16 * 1024 * 1024).requests == 4
    assert FlowSettings(requests=8).within(32 * 1024 * 1024).requests == 2
    assert FlowSettings(requests=1).within(32 * 1024 * 1024).requests == 1


def test_memory_of_pillow_is_kept_while_images_are_read_and_given_back_then() -> None:
    core = Image.core  # type: ignore[attr-defined]
    before = core.get_blocks_max()
    with blocks_kept(), blocks_kept():
        assert core.get_blocks_max() == MOST_BLOCKS
        Image.new("RGB", (2500, 2000))
        assert core.get_stats()["blocks_cached"] >= 1
    assert core.get_blocks_max() == before
    assert core.get_stats()["blocks_cached"] == before
