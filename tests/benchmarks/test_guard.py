"""The guard holds ratios to stored ones, and fails on a drop of more than 15 %."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from peers import guard
from peers.contenders import OURS
from peers.results import IN_PROCESS, Figure, Turn
from support.scripts import script


def turns(ours: float) -> list[Turn]:
    def turn(contender: str, number: int, rate: float) -> Turn:
        windows = [{"concurrency": each, "per_s": rate * number} for each in (1, 8, 32)]
        return Turn.model_validate({"model": "mnist", "contender": contender, "round": number, "window_s": 1.0, "windows": windows})

    rates = {OURS: ours, IN_PROCESS: 1000.0, "fastapi-1": 100.0, "fastapi-2": 50.0}
    return [turn(name, number, rate) for name, rate in rates.items() for number in (1, 2, 3)]


def test_ratios_are_ours_over_in_process_and_over_the_better_fastapi() -> None:
    measured = guard.ratios(turns(200.0))
    assert {name: value.median for name, value in measured.items()} == {
        f"mnist, {concurrency}, over {other}": ratio
        for concurrency in (1, 8, 32)
        for other, ratio in (("ONNX Runtime in process", 0.2), ("FastAPI", 2.0))
    }


@pytest.mark.parametrize(("now", "verdict"), [(1.71, "holds"), (1.69, "dropped by more than 15%"), (9.0, "holds")])
def test_a_drop_of_more_than_15_percent_fails(now: float, verdict: str) -> None:
    (row,) = guard.compare({"mnist, 1, over FastAPI": 2.0}, {"mnist, 1, over FastAPI": Figure(median=now, lowest=now, highest=now, n=3)})
    assert row.verdict == verdict
    assert row.failed is (verdict != "holds")


def test_a_stored_ratio_that_was_not_measured_fails_and_a_new_one_does_not() -> None:
    gone, new = guard.compare({"mnist, 1, over FastAPI": 2.0}, {"asl, 1, over FastAPI": Figure(median=1, lowest=1, highest=1, n=3)})
    assert (gone.verdict, gone.failed) == ("not measured", True)
    assert (new.verdict, new.failed) == ("new", False)


def test_what_is_stored_is_read_back(tmp_path: Path) -> None:
    stored = guard.Stored(machine="2 cores", at="2026-11-28", rounds=3, window_s=2.0, ratios={"mnist, 1, over FastAPI": 2.0})
    guard.store(stored, tmp_path / "guard.json")
    assert guard.read_stored(tmp_path / "guard.json") == stored


@pytest.mark.parametrize(("ours", "exit_code"), [(200.0, 0), (100.0, 1)])
def test_the_command_ends_with_1_and_one_table_that_says_which(
    ours: float, exit_code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    race = script("benchmarks/race.py")
    file = tmp_path / "guard.json"
    at_200 = {name: value.median for name, value in guard.ratios(turns(200.0)).items()}
    guard.store(guard.Stored(machine="another one", at="2026-11-28", rounds=3, window_s=2.0, ratios=at_200), file)
    monkeypatch.setattr(race.guarding, "FILE", file)
    monkeypatch.setattr(race, "BUILD", tmp_path)
    monkeypatch.setattr(race, "find_wrk", lambda: "wrk")
    monkeypatch.setattr(race, "_opened", lambda *_: [])
    monkeypatch.setattr(race.race, "run", lambda *_: None)  # no server is started here
    monkeypatch.setattr(race.results, "read", lambda _: (turns(ours), []))
    said = CliRunner().invoke(race.main, ["guard", "--model", "mnist"])
    assert said.exit_code == exit_code, said.output
    assert said.output.count("dropped by more than 15%") == (6 if exit_code else 0)


@pytest.mark.parametrize(
    ("arguments", "content", "said"),
    [
        ([], None, "nothing is stored to compare with: make bench-guard-store writes {file}"),
        ([], "{}", "{file} holds no ratios (5 validation errors for Stored): make bench-guard-store"),
        (["--store", "--model", "mnist"], None, "--store keeps the ratios of all models: leave --model out"),
    ],
)
def test_what_is_wrong_before_is_said_before_anything_is_measured(
    arguments: list[str], content: str | None, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    race = script("benchmarks/race.py")
    file = tmp_path / "guard.json"
    if content is not None:
        file.write_text(content)
    monkeypatch.setattr(race.guarding, "FILE", file)
    monkeypatch.setattr(race, "find_wrk", lambda: "wrk")
    monkeypatch.setattr(race.race, "run", lambda *_: pytest.fail("something was measured"))
    refused = CliRunner().invoke(race.main, ["guard", *arguments])
    assert refused.exit_code != 0
    assert f"Error: {said.format(file=file)}\n" in refused.output


def test_ratios_that_could_not_be_measured_keep_the_others_from_being_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    race = script("benchmarks/race.py")
    monkeypatch.setattr(race.guarding, "FILE", tmp_path / "guard.json")
    monkeypatch.setattr(race, "BUILD", tmp_path)
    monkeypatch.setattr(race, "find_wrk", lambda: "wrk")
    monkeypatch.setattr(race, "_opened", lambda *_: [])
    monkeypatch.setattr(race.race, "run", lambda *_: None)  # no server is started here
    monkeypatch.setattr(race.results, "read", lambda _: (turns(200.0), []))
    refused = CliRunner().invoke(race.main, ["guard", "--store"])
    assert refused.exit_code == 1
    assert "nothing was stored, since these could not be measured: asl, 1, over ONNX Runtime in process; " in refused.output
    assert "mnist" not in refused.output
    assert not (tmp_path / "guard.json").exists()
