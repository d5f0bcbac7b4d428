"""The verb: measures a model with several settings, beside the present ones, and says which to keep."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

from sightline.host.cpu import usable_cores
from sightline.image import ImageInput
from sightline_serving.tuning.candidates import candidates_on, delayed
from sightline_serving.tuning.measuring import Bench, Progress
from sightline_serving.tuning.race import search, stages
from sightline_serving.tuning.result import TuneResult
from sightline_serving.tuning.settings import TuneSettings
from sightline_serving.tuning.subject import subject_named

DEFAULTS = TuneSettings()


def tune(
    repository: Path,
    name: str,
    images: Sequence[ImageInput],
    settings: TuneSettings = DEFAULTS,
    notify: Callable[[str], None] = lambda _sentence: None,
    progress: Callable[[Progress], None] = lambda _progress: None,
) -> TuneResult:
    """Measure the model `name` of `repository`, or its `<model>_image`, with several settings, over gRPC.

    A setting is judged by the geometric mean over the concurrencies of its images/s in proportion to those of the present setting in the
    same round: traffic lies between them, and no single one is typical. It is kept only if the 95 % interval of that ratio, over rounds
    that had no part in choosing it, lies above WORTH, and it loses no more than LEAST allows at any concurrency. The repository is not
    changed. Raises RepositoryError (no such model), ServerStartError, MissingExtra (no perf_analyzer), ModelError for a model that does not
    give the published answers, and ServerError with perf_analyzer's own words.
    """
    cores = usable_cores()
    subject = subject_named(repository, name, images, cores)
    present = subject.present
    first = candidates_on(cores, present, subject.model.card.max_batch_size)
    if settings.exhaustive:
        first = [*first, *delayed([present, *first], present, cores)]
    # Of the leader alone, in a race.
    delays = len(delayed(first, present, cores)) and 2
    with Bench.over(subject, settings, progress) as bench:
        seconds = bench.seconds_for(stages(len(first), len(settings.concurrencies), delays, exhaustive=settings.exhaustive))
        notify(f"{len(first)} settings are tried beside the present one, {present}: about {_duration(seconds)} at most")
        trials, best = search(bench.measure, present, first, cores, settings.p99_ms, exhaustive=settings.exhaustive)
    return TuneResult(subject.name, cores, settings.concurrencies, tuple(trials), best)


def _duration(seconds: float) -> str:
    return f"{math.ceil(seconds / 60)} min" if seconds > 90 else f"{math.ceil(seconds)} s"
