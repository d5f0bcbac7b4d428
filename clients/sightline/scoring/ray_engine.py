"""Scores on Ray Data: the tasks of a local Ray or of a cluster read images and ask the server; the rows are those of a job without Ray.

Entries go out in windows, each a dataset of its own whose rows are whole requests: bounded memory however long the listing is, and a
request holds the same images wherever it is sent from. Outcomes come back in order. A worker that dies loses nothing: Ray gives its
requests to another one, and nothing of a request is kept before all of it came back.
"""

import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np

from sightline.classifier import Classifier, Opening
from sightline.errors import ImageError, SightlineError
from sightline.flow import FlowSettings
from sightline.readers import reading_threads
from sightline.scoring.entries import Entry
from sightline.scoring.ray_cluster import demand_nodes_alike, failures_told
from sightline.scoring.rows import Outcome

if TYPE_CHECKING:
    import numpy.typing as npt

WINDOW_REQUESTS: Final = 2048
"""Requests of one dataset. Its entries are in memory at the same time: some 60,000 for requests of 32 images."""
TASK_IMAGES: Final = 1024
"""About so many images has one task at most: to begin one costs some tenths of a second."""
TASKS_EACH: Final = 4
"""Tasks that a core of the cluster has at least, if there are as many requests, so that none is idle while another one ends."""

Work: TypeAlias = "dict[str, npt.NDArray[np.object_]]"


@dataclass(frozen=True)
class RayEngine:
    """One classifier's model, asked by the workers of a Ray that is connected. `Engine`."""

    classifier: Classifier
    top: int
    flow: FlowSettings
    job: str = field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def batch_size(self) -> int:
        """Images of each request, filled up where some cannot be read."""
        return self.classifier.batch_size

    def answers(self, entries: Iterable[Entry]) -> Iterator[Outcome]:
        """Give an outcome for each entry, in order. Raises MachineError where Ray gives up, UsageError if its machines are not alike."""
        remaining = iter(entries)
        window_images = WINDOW_REQUESTS * self.batch_size
        is_first = True
        while window := list(islice(remaining, window_images)):
            if is_first:
                demand_nodes_alike(window[0], self.classifier.url)
                is_first = False
            yield from self._window(window)

    def _window(self, window: Sequence[Entry]) -> Iterator[Outcome]:
        import ray.data

        requests = [window[start : start + self.batch_size] for start in range(0, len(window), self.batch_size)]
        cores = max(1, int(ray.cluster_resources().get("CPU", 1)))
        readers = self.flow.readers or 1
        tasks = min(len(requests), max(-(-len(window) // TASK_IMAGES), TASKS_EACH * cores // readers))
        context = ray.data.DataContext.get_current().copy()
        context.execution_options.preserve_order = True
        context.enable_progress_bars = context.print_on_execution_start = False
        work = _Work(self.job, self.classifier.opening(), self.top, self.flow)
        with ray.data.DataContext.current(context):
            dataset = ray.data.from_items(
                [{"images": [entry.image for entry in request]} for request in requests], override_num_blocks=tasks
            )
            answered = dataset.map_batches(work, batch_size=None, batch_format="numpy", num_cpus=readers)
        with failures_told():
            for request in answered.iter_rows():
                for outcome in request["outcomes"]:
                    if isinstance(outcome, SightlineError) and not isinstance(outcome, ImageError):
                        raise outcome
                    yield outcome


@dataclass(frozen=True)
class _Work:
    """What a task does; it travels to the workers."""

    job: str
    opening: Opening
    top: int
    flow: FlowSettings

    def __call__(self, requests: Work) -> Work:
        """Answer some requests. An error of the server takes the place of the outcomes after it: Ray would wrap it."""
        images = [image for request in requests["images"] for image in request]
        outcomes: list[Outcome | SightlineError] = []
        try:
            with reading_threads(self.flow.readers or 1, self.flow.pixels) as readers:
                for outcome in _opened(self).stream(images, self.top, self.flow, readers):
                    outcomes.append(outcome)  # noqa: PERF402 - what came before an error counts
        except SightlineError as error:
            outcomes += [error] * (len(images) - len(outcomes))
        remaining = iter(outcomes)
        answered = np.empty(len(requests["images"]), np.object_)
        for at, request in enumerate(requests["images"]):
            answered[at] = list(islice(remaining, len(request)))
        return {"outcomes": answered}


_KEPT: Final[dict[str, Classifier]] = {}
"""In a worker: the classifier of the job that it works for."""


def _opened(work: _Work) -> Classifier:
    """Open a classifier once in each worker, which may work for one job after another."""
    if work.job not in _KEPT:
        for other in list(_KEPT):
            _KEPT.pop(other).close()
        _KEPT[work.job] = work.opening.opened()
    return _KEPT[work.job]
