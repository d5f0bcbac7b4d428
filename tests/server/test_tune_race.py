"""How a search decides: what is tried, which candidates get more rounds, and how sure a gain must be. No server; times are simulated."""

import itertools
import math
import random
import statistics
from collections.abc import Callable, Sequence

import pytest

from sightline.errors import UsageError
from sightline.repository.instances import InstanceSettings
from sightline_serving.tuning.candidates import Candidate, candidates_on, delayed, spreads_on
from sightline_serving.tuning.race import FINAL_ROUNDS, Measure, best_of, search, stages, surely_better
from sightline_serving.tuning.ratios import median_interval
from sightline_serving.tuning.result import Round, Trial
from sightline_serving.tuning.settings import TuneSettings

PRESENT = Candidate(InstanceSettings(1, 1, 0, 4))
FIRST = candidates_on(2, PRESENT, 32)
CONCURRENCIES = 3


def settings_of(candidates: Sequence[Candidate]) -> list[str]:
    return list(map(str, candidates))


@pytest.mark.parametrize(
    ("cores", "spreads"),
    [
        (1, [(1, 1), (1, 2), (2, 1)]),
        (2, [(1, 1), (1, 2), (2, 1), (2, 2)]),
        (16, [(1, 1), (1, 2), (1, 8), (1, 16), (2, 1), (2, 2), (2, 8), (2, 16), (8, 1), (8, 2), (16, 1), (16, 2)]),
    ],
)
def test_threads_are_one_to_twice_as_many_as_there_are_cores(cores: int, spreads: list[tuple[int, int]]) -> None:
    assert spreads_on(cores) == spreads


def test_batching_off_on_and_capped_is_tried_with_every_spread_and_the_present_setting_not_again() -> None:
    tried = candidates_on(2, PRESENT, 32)
    assert settings_of(tried[:4]) == [
        "1 instance of 1 thread, no batching, 4 images a run",
        "1 instance of 1 thread, delay 0 µs, 1 image a run",
        "1 instance of 1 thread, delay 0 µs, 16 images a run",
        "1 instance of 1 thread, delay 0 µs",
    ]
    assert len(tried) == 4 * 5 - 1
    assert PRESENT not in tried


def test_no_thread_count_is_the_machines_cores_and_not_tried_twice() -> None:
    present = Candidate(InstanceSettings(1, 0, 0, 4))
    assert Candidate(InstanceSettings(1, 2, 0, 4)) not in candidates_on(2, present, 32)


def test_a_run_of_somebodys_own_size_is_tried_with_every_spread() -> None:
    tried = candidates_on(2, Candidate(InstanceSettings(2, 1, 0, 8)), 32)
    assert Candidate(InstanceSettings(1, 2, 0, 8)) in tried


def test_a_model_that_takes_images_one_by_one_has_no_batching_to_try() -> None:
    tried = candidates_on(2, Candidate(InstanceSettings(1, 1, None, 1)), 1)
    assert [each.instances for each in tried] == [
        InstanceSettings(1, 2, None, 1),
        InstanceSettings(2, 1, None, 1, 0),
        InstanceSettings(2, 2, None, 1),
    ]


def test_for_encoded_images_the_processes_that_reformat_are_tried_too() -> None:
    tried = candidates_on(2, Candidate(InstanceSettings(1, 1, None, 1), 1), 1)
    assert {each.reformats for each in tried} == {1, 2}
    assert len(tried) == 4 * 2 - 1
    assert "1 instance of 1 thread, no batching, 1 image a run; 2 processes reformat" in settings_of(tried)


def test_waiting_for_company_is_tried_where_there_is_batching() -> None:
    assert settings_of(delayed([Candidate(InstanceSettings(2, 1, 0, 4)), Candidate(InstanceSettings(1, 1, None, 4))], PRESENT, 2)) == [
        "2 instances of 1 thread, delay 100 µs, 4 images a run",
        "2 instances of 1 thread, delay 500 µs, 4 images a run",
    ]


def test_an_interval_of_the_median_is_made_of_ranks() -> None:
    assert median_interval([1, 2, 3, 4, 5]) is None
    assert median_interval([6, 1, 5, 2, 4, 3]) == (1, 6)
    assert median_interval(range(9)) == (1, 7)
    # One disturbed round of nine moves nothing far.
    assert median_interval([1.0, 1.01, 1.02, 1.03, 1.04, 1.05, 1.06, 1.07, 90.0]) == (1.01, 1.07)


def test_the_interval_holds_the_median_as_often_as_it_says() -> None:
    chance = random.Random(3)
    held = 0
    for _ in range(4000):
        interval = median_interval([chance.lognormvariate(0, 0.1) for _ in range(FINAL_ROUNDS)])
        assert interval is not None
        held += interval[0] <= 1 <= interval[1]
    assert held / 4000 >= 0.95


def trial(ratios: Sequence[float], *, p99: float = 5.0, candidate: Candidate = FIRST[0], rounds: int = 9, noise: float = 0.01) -> Trial:
    """A trial whose ratios at each concurrency lie so, with a little noise from round to round."""
    made = []
    for number in range(rounds):
        factor = 1 + noise * (number - rounds // 2) / rounds
        rates = tuple(100 * ratio * factor for ratio in ratios)
        made.append(Round(rates, tuple(100.0 for _ in ratios), tuple(p99 for _ in ratios)))
    return Trial(candidate, tuple(made), final=True, memory_mib=50)


NOW = trial((1, 1, 1), candidate=PRESENT, noise=0)


def test_a_trial_is_judged_by_the_geometric_mean_over_the_concurrencies() -> None:
    assert trial((2.0, 0.5, 1.0)).ratio == pytest.approx(1.0)
    assert trial((1.21, 1.0, 1.1)).ratio == pytest.approx(1.1)
    assert trial((1.21, 1.0, 1.1)).ratios == pytest.approx((1.21, 1.0, 1.1))


def test_the_present_setting_stays_unless_another_is_surely_faster() -> None:
    noisy, faster, fastest = trial((1.3, 1.3, 1.3), noise=0.8), trial((1.1, 1.1, 1.1)), trial((1.2, 1.2, 1.2))
    assert not surely_better(noisy)
    assert best_of(NOW, [noisy], None) is NOW
    assert best_of(NOW, [noisy, faster], None) is faster
    assert best_of(NOW, [noisy, faster, fastest], None) is fastest
    assert best_of(NOW, [trial((1.02, 1.02, 1.02))], None) is NOW
    assert best_of(NOW, [trial((1.2, 1.2, 1.2), rounds=5)], None) is NOW


def test_no_concurrency_pays_for_the_others() -> None:
    assert best_of(NOW, [trial((0.9, 1.5, 2.0))], None) is NOW
    kept = trial((0.96, 1.5, 2.0))
    assert best_of(NOW, [kept], None) is kept


def test_a_limit_of_latency_comes_before_speed_and_the_nearest_wins_if_none_keeps_to_it() -> None:
    now = trial((1, 1, 1), p99=9.0, candidate=PRESENT, noise=0)
    fast, calm = trial((2, 2, 2), p99=8.0), trial((0.5, 0.5, 0.5), p99=3.0)
    assert best_of(now, [fast, calm], 5.0) is calm
    assert best_of(now, [fast, calm], 8.5) is fast
    assert best_of(now, [fast, calm], 1.0) is calm
    assert best_of(now, [calm], 9.5) is now


def simulated(speeds: Callable[[Candidate], Sequence[float]], noise: float, seed: int) -> tuple[Measure, list[tuple[int, int]]]:
    """A machine on which a candidate has these speeds, and every window its own noise; and what was measured, candidates × rounds."""
    chance = random.Random(seed)
    measured: list[tuple[int, int]] = []

    def rates(candidate: Candidate) -> tuple[float, ...]:
        return tuple(1000 * speed * chance.lognormvariate(0, noise) for speed in speeds(candidate))

    def measure(candidates: Sequence[Candidate], rounds: int, final: bool) -> list[Trial]:
        measured.append((len(candidates), rounds))
        made = []
        present = [rates(PRESENT) for _ in range(rounds)]
        for candidate in (PRESENT, *candidates):
            own = present if candidate == PRESENT else [rates(candidate) for _ in range(rounds)]
            pairs = zip(own, present, strict=True)
            made.append(Trial(candidate, tuple(Round(one, now, (1.0,) * CONCURRENCIES) for one, now in pairs), final, 50.0))
        return made

    return measure, measured


def test_a_setting_that_is_much_better_is_found_through_noise() -> None:
    best = FIRST[7]

    def speeds(candidate: Candidate) -> Sequence[float]:
        return (1.3, 1.3, 1.3) if candidate == best else (1.0, 1.0, 1.0)

    found = 0
    for seed in range(50):
        measure, _ = simulated(speeds, noise=0.1, seed=seed)
        found += search(measure, PRESENT, FIRST, 2, None, exhaustive=False)[1].candidate == best
    assert found >= 40


def test_where_nothing_is_better_noise_alone_hardly_ever_changes_a_setting() -> None:
    changed = 0
    for seed in range(200):
        measure, _ = simulated(lambda _candidate: (1.0, 1.0, 1.0), noise=0.1, seed=seed)
        changed += search(measure, PRESENT, FIRST, 2, None, exhaustive=False)[1].candidate != PRESENT
    assert changed <= 10


@pytest.mark.parametrize("exhaustive", [False, True])
def test_no_more_is_measured_than_was_told_in_advance(exhaustive: bool) -> None:
    first = [*FIRST, *delayed([PRESENT, *FIRST], PRESENT, 2)] if exhaustive else FIRST
    for seed in range(10):
        measure, measured = simulated(lambda candidate: (1.0 + candidate.instances.largest_run / 40,) * 3, noise=0.05, seed=seed)
        trials, _ = search(measure, PRESENT, first, 2, None, exhaustive=exhaustive)
        told = stages(len(first), CONCURRENCIES, 2, exhaustive=exhaustive)
        assert sum(count * rounds for count, rounds in measured) <= sum(stage.candidates * stage.rounds for stage in told)
        assert trials[0].candidate == PRESENT
        assert trials[0].final
        assert {each.candidate for each in trials} >= {PRESENT, *first}


def test_an_exhaustive_search_measures_everything_and_the_best_at_each_concurrency_comes_to_the_end() -> None:
    first = [*FIRST, *delayed([PRESENT, *FIRST], PRESENT, 2)]
    at = dict(zip(first[:CONCURRENCIES], itertools.count()))

    def speeds(candidate: Candidate) -> Sequence[float]:
        if candidate == PRESENT:
            return (1.0, 1.0, 1.0)
        return [1.5 if at.get(candidate) == index else 0.8 for index in range(CONCURRENCIES)]

    measure, measured = simulated(speeds, noise=0.02, seed=1)
    trials, best = search(measure, PRESENT, first, 2, None, exhaustive=True)
    assert measured[0] == (len(first), 3)
    assert {each.candidate for each in trials if each.final} >= {PRESENT, *at}
    assert best.candidate == PRESENT
    assert len(trials) == len(first) + 1


def test_the_best_ratio_that_was_measured_first_is_not_what_is_reported() -> None:
    """The luckiest of many is flattered by the rounds that chose it; the final ones are not."""
    luckiest = []
    for seed in range(100):
        measure, _ = simulated(lambda _candidate: (1.0, 1.0, 1.0), noise=0.2, seed=seed)
        trials, _ = search(measure, PRESENT, FIRST, 2, None, exhaustive=False)
        luckiest.append(next(each.ratio for each in trials[1:] if each.final))
    assert abs(math.log(statistics.mean(luckiest))) < 0.06


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"concurrencies": ()}, "name 1 to 8 concurrencies, each once"),
        ({"concurrencies": (4, 4)}, "name 1 to 8 concurrencies, each once"),
        ({"concurrencies": (0,)}, "concurrency, window and 99th percentile must be positive"),
        ({"window_s": 0.0}, "concurrency, window and 99th percentile must be positive"),
        ({"p99_ms": float("nan")}, "concurrency, window and 99th percentile must be positive"),
    ],
)
def test_what_cannot_be_measured_is_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError) as refusal:
        TuneSettings(**settings)  # type: ignore[arg-type]
    assert str(refusal.value) == message
