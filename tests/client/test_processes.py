"""One classifier in many processes: forked, spawned, of a fork server, of a DataLoader. No answer is another's, and none is lost."""

import multiprocessing
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

import numpy as np
import pytest

from sightline import Classifier
from support.asking import Asked, Asking

if TYPE_CHECKING:
    from sightline_serving.server import Server

pytestmark = pytest.mark.triton

WORKERS = 4


@pytest.fixture(params=["http", "grpc"])
def classifier(request: pytest.FixtureRequest, served: "tuple[Server, Path]") -> Iterator[Classifier]:
    with Classifier("tiny", served[0].http_url if request.param == "http" else served[0].grpc_url, wait_s=30) as opened:
        yield opened


class Busy:
    """Threads of the parent that ask all the while."""

    def __init__(self, classifier: Classifier) -> None:
        self.classifier, self.stop = classifier, threading.Event()
        self.asked: list[Asked] = []
        self.threads = [threading.Thread(target=self._ask, args=(1000 + number,)) for number in range(2)]

    def _ask(self, seed: int) -> None:
        while not self.stop.is_set():
            self.asked.append(Asking(self.classifier, 20)(seed))

    def __enter__(self) -> Self:
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        for thread in self.threads:
            thread.join(60)


def wrong(classifier: Classifier, asked: list[Asked]) -> int:
    """How many answers are not those to their images: asked again, all at once, by the parent alone."""
    return sum(int((np.abs(classifier.probabilities_of_pixels(pixels) - answers).max(axis=1) > 1e-6).sum()) for pixels, answers in asked)


@pytest.mark.parametrize(
    ("method", "calls"),
    [
        ("fork", 500),
        ("spawn", 50),
        ("forkserver", 50),
        *(pytest.param(method, 10_000, marks=pytest.mark.slow) for method in ("fork", "spawn", "forkserver")),
    ],
)
def test_processes_of_a_pool_get_their_own_answers(
    classifier: Classifier, method: Literal["fork", "spawn", "forkserver"], calls: int
) -> None:
    classifier.probabilities_of_pixels(np.zeros((1, 6, 5, 3), np.uint8))  # there is a connection to inherit
    with Busy(classifier) as busy, multiprocessing.get_context(method).Pool(WORKERS) as pool:
        asked = pool.map_async(Asking(classifier, calls // 8), range(8), chunksize=1).get(120)
    assert sum(len(answers) for _, answers in asked) == calls // 8 * 8
    assert wrong(classifier, asked) == 0
    assert busy.asked
    assert wrong(classifier, busy.asked) == 0


def test_workers_of_a_data_loader_get_their_own_answers(classifier: Classifier) -> None:
    from torch.utils.data import DataLoader

    classifier.probabilities_of_pixels(np.zeros((1, 6, 5, 3), np.uint8))
    # As torch wants it: a dataset with __getitem__ and __len__, whose items are no tensors here.
    loader: DataLoader[Asked] = DataLoader(Asking(classifier, 60), batch_size=None, num_workers=2)  # type: ignore[arg-type]
    asked = [(np.asarray(pixels), np.asarray(answers)) for pixels, answers in loader]
    assert len(asked) == 8
    assert wrong(classifier, asked) == 0


def test_a_child_that_leaves_at_once_takes_nothing_from_its_parent(classifier: Classifier) -> None:
    """Its end closes what it inherited, as a gunicorn worker's does."""
    expected = classifier.probabilities_of_pixels(np.zeros((1, 6, 5, 3), np.uint8))
    for _ in range(5):
        child = multiprocessing.get_context("fork").Process(target=classifier.close)
        child.start()
        child.join(30)
        assert child.exitcode == 0
        assert np.array_equal(classifier.probabilities_of_pixels(np.zeros((1, 6, 5, 3), np.uint8)), expected)


def test_a_pickled_classifier_is_opened_anew_with_the_same_settings(classifier: Classifier) -> None:
    with pickle.loads(pickle.dumps(classifier)) as copy:
        assert (copy.url, copy.model, copy.version, copy.card) == (classifier.url, "tiny", "", classifier.card)
        pixels = np.zeros((1, 6, 5, 3), np.uint8)
        assert np.array_equal(copy.probabilities_of_pixels(pixels), classifier.probabilities_of_pixels(pixels))


FORKING = """
import os, sys
import numpy as np
from sightline import Classifier

classifier = Classifier("tiny", {url!r}, wait_s=30)
pixels = np.zeros((1, 6, 5, 3), np.uint8)
classifier.probabilities_of_pixels(pixels)
for asks in (True, False):
    child = os.fork()
    if child == 0:
        if asks:
            classifier.probabilities_of_pixels(pixels)
        sys.exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
classifier.probabilities_of_pixels(pixels)
print("as ever")
"""


def test_a_forked_child_ends_as_programs_do(classifier: Classifier) -> None:
    """As workers of gunicorn: with Python's own end, which clears everything up."""
    done = subprocess.run(
        [sys.executable, "-c", FORKING.format(url=classifier.url)], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout) == (0, "as ever\n"), done.stderr
