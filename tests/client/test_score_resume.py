"""Resumed jobs: the bytes of a clean run after whatever was cut off, and a refusal that says what differs."""

import hashlib
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from sightline import Classifier, ModelCard
from sightline.errors import DataError, MachineError, ServerUnavailable, SightlineError, UsageError
from sightline.scoring import ScoreProgress, ScoreSettings, ScoreSummary, rows_of, score
from sightline.scoring.formats import RowFormat
from sightline.scoring.journal import Checkpoint, Head, line_of
from sightline.scoring.part import Files
from sightline.testing import FakeTransport
from sightline.transport import InferResult
from support.fake_network import brightest, card
from support.score_formats import SUFFIXES

RESUME = ScoreSettings(resume=True, checkpoint_s=0)


@dataclass(frozen=True)
class Begun:
    """A job that was ended after 12 of 30 rows, and what a clean run makes."""

    folder: Path
    out: Path
    clean: bytes

    @property
    def part(self) -> Path:
        return Files(self.out).part

    @property
    def journal(self) -> Path:
        return Files(self.out).journal

    def resumed(self, opened: Classifier | None = None, settings: ScoreSettings = RESUME) -> ScoreSummary:
        return score(opened or classifier(), self.folder, self.out, settings)

    def refusal(self, opened: Classifier | None = None, settings: ScoreSettings = RESUME) -> SightlineError:
        before = self.part.read_bytes()
        with pytest.raises((UsageError, DataError)) as refusal:
            self.resumed(opened, settings)
        assert self.part.read_bytes() == before
        assert not self.out.exists()
        assert "overwrite" in refusal.value.settings
        return refusal.value


def classifier(**options: Any) -> Classifier:
    return Classifier("colours", transport=FakeTransport(card(), brightest), **options)


def interrupted_at(rows: int) -> Callable[[ScoreProgress], None]:
    def interrupt(progress: ScoreProgress) -> None:
        if progress.rows == rows:
            raise KeyboardInterrupt

    return interrupt


def folder_in(place: Path, images: int) -> Path:
    for number in range(images - 1):
        file = place / "in" / f"{number % 3}" / f"{number:02}é.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 9), (number * 8, 40, 60)).save(file)
    (place / "in" / "1" / "=broken.png").write_bytes(b"no image")
    return place / "in"


def begin(place: Path, suffix: str, rows: int = 12, images: int = 30) -> Begun:
    folder, out = folder_in(place, images), place / f"rows.{suffix}"
    clean = score(classifier(), folder, place / f"clean.{suffix}").out.read_bytes()
    with pytest.raises(KeyboardInterrupt):
        score(classifier(), folder, out, ScoreSettings(checkpoint_s=0), interrupted_at(rows))
    assert not out.exists()
    return Begun(folder, out, clean)


@pytest.fixture
def begun(tmp_path: Path) -> Begun:
    return begin(tmp_path, "csv")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_torn_journal_and_a_torn_part_are_resumed_to_the_same_bytes_wherever_they_were_torn(tmp_path: Path, suffix: str) -> None:
    job = begin(tmp_path, suffix, 4, 9)
    part, journal = job.part.read_bytes(), job.journal.read_bytes()
    lines = journal.splitlines(keepends=True)
    starts = [sum(map(len, lines[:count])) for count in range(len(lines) + 1)]
    counted = [0, 0, *(Checkpoint.model_validate_json(line.partition(b" ")[2]).bytes for line in lines[1:])]
    step = 5 if suffix == "csv" else 23
    cuts = [(length, len(part)) for length in range(0, len(journal) + 1, step)]
    cuts += [(len(journal), length) for length in range(0, len(part) + 1, step)]
    for journal_length, part_length in cuts:
        job.journal.write_bytes(journal[:journal_length])
        job.part.write_bytes(part[:part_length])
        whole = sum(start <= journal_length for start in starts) - 1
        if whole and part_length >= counted[whole]:
            assert job.resumed().out.read_bytes() == job.clean, (journal_length, part_length)
            job.out.unlink()
        else:
            error = job.refusal()
            assert ("there is no journal" if not whole else "the rows are damaged: ") in str(error), (journal_length, part_length)


def test_what_follows_the_last_checkpoint_may_be_anything(begun: Begun) -> None:
    begun.part.write_bytes(begun.part.read_bytes() + bytes(range(256)) * 40)
    begun.journal.write_bytes(begun.journal.read_bytes() + bytes(500))
    assert begun.resumed().out.read_bytes() == begun.clean


def test_a_changed_byte_of_the_part_or_the_journal_is_refused(begun: Begun) -> None:
    part, journal = begun.part.read_bytes(), begun.journal.read_bytes()
    chosen = random.Random(0)
    for place in chosen.sample(range(len(part)), 40):
        begun.part.write_bytes(part[:place] + bytes([part[place] ^ 1]) + part[place + 1 :])
        with pytest.raises(DataError) as refusal:
            begun.resumed()
        assert str(refusal.value) == f"{begun.part}: the rows are damaged: they were changed after they were written"
    begun.part.write_bytes(part)
    for place in chosen.sample(range(len(journal) - 1), 40):
        begun.journal.write_bytes(journal[:place] + bytes([journal[place] ^ 1]) + journal[place + 1 :])
        with pytest.raises(DataError) as refusal:
            begun.resumed()
        assert "of the job's journal is damaged" in str(refusal.value)
    begun.journal.write_bytes(journal)
    assert begun.resumed().out.read_bytes() == begun.clean


def test_a_job_may_be_ended_many_times(tmp_path: Path) -> None:
    job = begin(tmp_path, SUFFIXES[-1], 4)
    for rows in (8, 12, 16, 20, 24, 28):
        with pytest.raises(KeyboardInterrupt):
            score(classifier(), job.folder, job.out, RESUME, interrupted_at(rows))
    done = job.resumed()
    assert (done.rows, done.resumed_rows, done.broken) == (30, 28, 1)
    assert job.out.read_bytes() == job.clean


def test_without_resuming_a_begun_job_is_not_touched_unless_it_is_overwritten(begun: Begun) -> None:
    error = begun.refusal(settings=ScoreSettings())
    assert str(error) == f"{begun.part}: a job that was not finished left its rows here: resume it, or overwrite it"
    assert error.settings == ("resume", "overwrite")
    done = begun.resumed(settings=ScoreSettings(overwrite=True))
    assert (done.rows, done.resumed_rows) == (30, 0)
    assert begun.out.read_bytes() == begun.clean


def test_a_job_that_may_overwrite_still_may_when_it_is_resumed(begun: Begun) -> None:
    begun.out.write_text("old")
    with pytest.raises(KeyboardInterrupt):
        score(classifier(), begun.folder, begun.out, ScoreSettings(overwrite=True, checkpoint_s=0), interrupted_at(8))
    assert begun.out.read_text() == "old"
    assert begun.resumed().resumed_rows == 8
    assert begun.out.read_bytes() == begun.clean


def test_a_job_that_may_not_overwrite_does_not_when_it_is_resumed(begun: Begun) -> None:
    begun.out.write_text("made meanwhile")
    with pytest.raises(UsageError) as refusal:
        begun.resumed()
    assert str(refusal.value) == f"{begun.out}: the file exists already, and the job was begun without leave to overwrite it"
    assert begun.out.read_text() == "made meanwhile"
    assert begun.part.exists()


@pytest.mark.parametrize(
    ("settings", "difference"),
    [
        ({"top": 2}, "top was 1 and is 2"),
        ({"labelled": True, "raw_cells": True}, "labelled was False and is True, raw_cells was False and is True"),
    ],
)
def test_other_options_are_refused_with_both_values(begun: Begun, settings: dict[str, Any], difference: str) -> None:
    error = begun.refusal(settings=ScoreSettings(resume=True, **settings))
    assert str(error) == f"{begun.part}: the job was begun otherwise: {difference}. Resume it as it was begun, or overwrite it"


def other(**changes: Any) -> Classifier:
    changed: ModelCard = card(**changes)
    return Classifier("colours", transport=FakeTransport(changed, brightest))


def test_another_model_is_refused_with_both_values(begun: Begun) -> None:
    assert "max_pixels was 89478485 and is 1000000" in str(begun.refusal(classifier(max_pixels=1_000_000)))
    sentence = str(begun.refusal(other(description="Another")))
    assert f"the model's card was {card().sha256!r} and is {card(description='Another').sha256!r}" in sentence
    assert "the batch was 4 and is 2" in str(begun.refusal(other(max_batch_size=2)))
    newer = Classifier("colours", transport=FakeTransport(card(), brightest, version="2"))
    assert "the model's version was '1' and is '2'" in str(begun.refusal(newer))


def test_a_journal_of_another_sightline_is_refused(begun: Begun) -> None:
    first, *others = begun.journal.read_bytes().splitlines(keepends=True)
    head = Head.model_validate_json(first.partition(b" ")[2])
    begun.journal.write_bytes(line_of(head.model_copy(update={"sightline": "9.9"})) + b"".join(others))
    assert "the version of Sightline was '9.9' and is " in str(begun.refusal())
    begun.journal.write_bytes(line_of(head.model_copy(update={"format": 2})) + b"".join(others))
    with pytest.raises(DataError) as refusal:
        begun.resumed()
    assert str(refusal.value) == f"{begun.journal}: a journal of format 2; this Sightline reads format 1"


def listing_refusal(begun: Begun) -> str:
    sentence = str(begun.refusal())
    start, end = f"{begun.part}: the listing is another one than when the job was begun: ", ". Overwrite it to begin anew"
    assert sentence.startswith(start)
    assert sentence.endswith(end)
    return sentence.removeprefix(start).removesuffix(end)


def test_a_changed_listing_is_refused_with_the_first_image_that_differs(begun: Begun) -> None:
    (begun.folder / "0" / "01.png").write_bytes(b"new")
    assert listing_refusal(begun) == "image 2 was 0/03é.png and is 0/01.png"
    (begun.folder / "0" / "01.png").unlink()
    (begun.folder / "0" / "06é.png").rename(begun.folder / "0" / "07é.png")
    assert listing_refusal(begun) == "image 3 was 0/06é.png and is 0/07é.png"
    (begun.folder / "0" / "07é.png").rename(begun.folder / "0" / "06é.png")
    assert begun.resumed().out.read_bytes() == begun.clean


def test_a_changed_image_is_refused_with_where_it_is(begun: Begun) -> None:
    Image.new("RGB", (9, 9), "red").save(begun.folder / "0" / "18é.png")
    assert listing_refusal(begun) == "of images 5 to 8 (the last is 0/21é.png), one has another size, time or class"


def test_a_listing_that_became_too_short_is_refused(begun: Begun) -> None:
    for file in begun.folder.rglob("*.png"):
        if file.parent.name != "0":
            file.unlink()
    assert listing_refusal(begun) == "it had at least 12 images and now has 10"


def test_what_changes_behind_the_last_checkpoint_is_part_of_the_job(begun: Begun) -> None:
    Image.new("RGB", (9, 9), "red").save(begun.folder / "2" / "zz.png")
    assert begun.resumed().rows == 31


def test_a_part_that_is_gone_is_refused(begun: Begun) -> None:
    begun.part.unlink()
    with pytest.raises(DataError) as refusal:
        begun.resumed()
    assert str(refusal.value) == f"{begun.part}: the rows of the job that was begun are not there any more. Overwrite it to begin anew"


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_no_image_is_opened_again_for_rows_that_are_there(tmp_path: Path, suffix: str) -> None:
    job = begin(tmp_path, suffix, 28)
    transport = FakeTransport(card(), brightest)
    done = score(Classifier("colours", transport=transport), job.folder, job.out, RESUME)
    assert len(transport.requests) == 1
    assert done.resumed_rows == 28


class Away(FakeTransport):
    def infer(self, *_arguments: Any) -> InferResult:
        raise ServerUnavailable("no Triton server answers at fake://")


def test_a_server_that_stays_away_costs_no_row(begun: Begun) -> None:
    with pytest.raises(ServerUnavailable) as failure:
        begun.resumed(Classifier("colours", transport=Away(card(), brightest), wait_s=0.2))
    assert str(failure.value) == f"no Triton server answers at fake:// (12 rows are safe in {begun.part}: the job can be resumed)"
    assert begun.resumed().resumed_rows == 12
    assert begun.out.read_bytes() == begun.clean


def test_a_disk_without_room_costs_no_row(begun: Begun, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as full:
        full.setattr("os.fsync", lambda _descriptor: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(MachineError) as failure:
            begun.resumed()
    assert str(failure.value) == f"{begun.out}: the rows cannot be written: No space left on device"
    assert begun.resumed().out.read_bytes() == begun.clean


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_job_that_was_killed_right_before_or_after_its_end_is_finished(tmp_path: Path, suffix: str) -> None:
    job = begin(tmp_path, suffix)
    kept = tmp_path / "kept"
    kept.mkdir()

    def keep(progress: ScoreProgress) -> None:
        if progress.rows == 30:
            for file in (job.part, job.journal):
                shutil.copy(file, kept)

    score(classifier(), job.folder, job.out, RESUME, keep)
    part, journal = kept / job.part.name, kept / job.journal.name
    complete = job.out.read_bytes() if suffix != "parquet" else b"".join(map(encoded_json, rows_of(job.out)))
    last = Checkpoint.model_validate_json(journal.read_bytes().splitlines()[-1].partition(b" ")[2])
    ended = last.model_copy(update={"rows": 30, "bytes": len(complete), "part_sha256": sha256(complete), "complete": True})
    # The part is whole, and so is the journal; then the output is there too, then the part is gone.
    for has_out, has_part in ((False, True), (True, True), (True, False)):
        if has_out and has_part and suffix != "parquet":
            continue  # a rename makes one of them the other
        if not has_out:
            job.out.unlink()
        if has_part:
            job.part.write_bytes(complete)
        job.journal.write_bytes(journal.read_bytes() + line_of(ended))
        assert part.exists()
        assert job.resumed(Classifier("colours", transport=Away(card(), brightest), wait_s=0)).resumed_rows == 30
        assert job.out.read_bytes() == job.clean
        assert sorted(file.name for file in job.out.parent.glob("*rows*")) == [f"rows.{suffix}"]


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def encoded_json(row: Any) -> bytes:
    return RowFormat("jsonl", 1, labelled=False).encoded(row)[0]
