"""Heavy use on the real server: threads, tasks and processes share a classifier, and each answer is that to its own image.

`make test` asks less of it than `make test-all`, which asks for the sizes in the names.
"""

import asyncio
import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
import pytest

from sightline import AsyncClassifier, Classifier
from support.mixed_images import Classifying, image_of, pixels_of

if TYPE_CHECKING:
    from sightline_serving.server import Server
    from support.tiny_models import InProcess, Served

pytestmark = pytest.mark.triton

FULL = pytest.mark.slow


@pytest.fixture(params=["grpc", "http"])
def url(request: pytest.FixtureRequest, served: "tuple[Server, Path]") -> str:
    return served[0].grpc_url if request.param == "grpc" else served[0].http_url


def strangers(served: "Served", in_process: "InProcess", asked: Sequence[tuple[list[int], npt.NDArray[np.float32]]]) -> int:
    """How many answers are not those that ONNX Runtime gives here to their images, with the file that is served."""
    seeds = [seed for chosen, _ in asked for seed in chosen]
    answers = np.concatenate([some for _, some in asked])
    expected = in_process(served[1] / "tiny" / "1" / "model.onnx", pixels_of(seeds))
    assert answers.shape == expected.shape
    # An answer to another image would be noticed: hardly any two are alike.
    assert np.median(np.abs(np.roll(expected, 1, axis=0) - expected).max(axis=1)) > 0.01
    return int((np.abs(answers - expected).max(axis=1) > 1e-5).sum())


@pytest.mark.parametrize(("threads", "images"), [(16, 60), pytest.param(32, 1000, marks=FULL)])
def test_32_threads_with_1000_images_each(url: str, served: "Served", in_process: "InProcess", threads: int, images: int) -> None:
    with Classifier("tiny", url, timeout_s=60) as classifier, ThreadPoolExecutor(threads) as pool:
        asked = list(pool.map(Classifying(classifier, images), range(0, threads * images, images)))
    assert sum(len(seeds) for seeds, _ in asked) == threads * images
    assert strangers(served, in_process, asked) == 0


@pytest.mark.parametrize(("tasks", "images"), [(64, 12), pytest.param(256, 100, marks=FULL)])
def test_256_tasks_with_100_images_each(url: str, served: "Served", in_process: "InProcess", tasks: int, images: int) -> None:
    async def ask() -> list[tuple[list[int], npt.NDArray[np.float32]]]:
        async with AsyncClassifier("tiny", url, timeout_s=60) as classifier:

            async def one(first: int) -> tuple[list[int], npt.NDArray[np.float32]]:
                seeds = list(range(first, first + images))
                single = [await classifier.probabilities(image_of(seed)) for seed in seeds[: images // 2]]
                return seeds, np.concatenate([*single, await classifier.probabilities(map(image_of, seeds[images // 2 :]))])

            return await asyncio.gather(*map(one, range(0, tasks * images, images)))

    asked = asyncio.run(ask())
    assert sum(len(seeds) for seeds, _ in asked) == tasks * images
    assert strangers(served, in_process, asked) == 0


@pytest.mark.parametrize(
    ("method", "images"),
    [("fork", 100), ("spawn", 40), pytest.param("fork", 1000, marks=FULL), pytest.param("spawn", 1000, marks=FULL)],
)
def test_4_processes_with_1000_images_each(
    url: str, served: "Served", in_process: "InProcess", method: Literal["fork", "spawn"], images: int
) -> None:
    with Classifier("tiny", url, timeout_s=60, wait_s=30) as classifier:
        classifier.probabilities(image_of(0))  # there is a connection to inherit
        with multiprocessing.get_context(method).Pool(4) as pool:
            asked = pool.map_async(Classifying(classifier, images), range(0, 4 * images, images), chunksize=1).get(250)
        # The parent goes on as ever.
        asked.append(Classifying(classifier, 20)(10**6))
    assert strangers(served, in_process, asked) == 0
