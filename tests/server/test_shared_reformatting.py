"""Many models that take whole image files share the processes that reformat, and each answers as if it had its own."""

import io
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import tritonclient.http
from PIL import Image
from tritonclient.utils import InferenceServerException

from sightline import Classifier, ModelCard, reformat
from sightline.cli import run as sightline
from sightline.errors import ModelError
from sightline.host.cpu import usable_cores
from sightline.in_triton import ENCODED, SHARED
from sightline.repository.edit import set_reformats
from sightline.repository.image_ensemble import publish_image_ensemble
from sightline.repository.layout import model_folders
from sightline.repository.read import ModelFolder, read_folder
from sightline.transport import connect
from sightline_serving.process.memory import count, held
from sightline_serving.selection.shared_reformatting import MOST_PROCESSES, share_reformatting
from sightline_serving.server import Server, start_server
from sightline_serving.settings import FREE_PORTS
from support.cards import tiny_card
from support.tiny_models import publish_sampled

PROCESSES = min(usable_cores(), MOST_PROCESSES)


def cards(number: int) -> list[ModelCard]:
    """Cards that see an image otherwise, each in its own size, of models that carry fewer images each."""
    made = []
    for index in range(number):
        card = tiny_card(f"tiny-{index}", max_batch_size=8 - index)
        made.append(card.model_copy(update={"preprocess": card.preprocess.model_copy(update={"size": (6 + index, 5)})}))
    return made


def published(repository: Path, models: int) -> list[ModelCard]:
    for card in (made := cards(models)):
        publish_sampled(repository, card=card)
        publish_image_ensemble(repository, card)
    return made


def folders(repository: Path) -> dict[str, ModelFolder]:
    return {folder.name: read_folder(folder) for folder in model_folders(repository)}


def contents(repository: Path) -> dict[Path, bytes]:
    """All files but what Python compiled of `model.py`."""
    return {file: file.read_bytes() for file in repository.rglob("*") if file.is_file() and file.suffix != ".pyc"}


def photo(seed: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (40, 60, 3), dtype=np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


Many = tuple[Server, list[ModelCard]]


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Many]:
    """A server over one model more than there are processes to share, and the cards; the repository stays as it was."""
    repository = tmp_path_factory.mktemp("many")
    made = published(repository, PROCESSES + 1)
    before = contents(repository)
    with start_server(repository, FREE_PORTS) as server:
        yield server, made
    assert contents(repository) == before


def test_no_more_models_than_processes_keep_their_own(tmp_path: Path) -> None:
    published(tmp_path, 2)
    assert share_reformatting(folders(tmp_path), 2) is None
    assert share_reformatting(folders(tmp_path), 64) is None
    assert share_reformatting(folders(tmp_path), 1) is not None


def test_what_is_not_as_it_was_published_keeps_its_own(tmp_path: Path) -> None:
    published(tmp_path, 4)
    set_reformats(tmp_path, "tiny-1", 3)
    shared = share_reformatting(folders(tmp_path), 2)
    assert shared is not None
    assert sorted(shared.replaced) == sorted(f"tiny-{index}_{kind}" for index in (0, 2, 3) for kind in ("image", "reformat"))
    assert [tensor.name for tensor in shared.config.inputs] == [f"{ENCODED}_tiny-{index}" for index in (0, 2, 3)]
    assert shared.config.instance_groups[0].count == 2
    # A model of that name is somebody else's, and is served.
    others = folders(tmp_path)
    assert share_reformatting({**others, SHARED: others["tiny-0"]}, 2) is None


@pytest.mark.triton
def test_each_answers_whole_files_as_its_own_client_does(many: Many) -> None:
    server, made = many
    photos = [photo(seed) for seed in range(4)]
    assert count(held(server.pid, [card.name for card in made]), SHARED) == PROCESSES
    with connect(server.grpc_url) as transport, ThreadPoolExecutor(8) as pool:

        def asked(card: ModelCard, images: list[bytes]) -> npt.NDArray[np.float32]:
            return transport.infer_encoded(f"{card.name}_image", "", ENCODED, images, card.output).values

        answers = {}
        for card in made:
            with Classifier(card.name, server.grpc_url, check=True) as classifier:
                answers[card.name] = classifier.probabilities(photos)
        # All at the same time: what waits together in the shared model is of several models.
        for number, answer in enumerate(pool.map(lambda number: asked(made[number % len(made)], [photos[number % 4]]), range(80))):
            assert np.abs(answer - answers[made[number % len(made)].name][number % 4]).max() < 1e-6
        assert all(np.abs(asked(card, photos) - answers[card.name]).max() < 1e-6 for card in made)
        with pytest.raises(ModelError, match=r"image 1 of 2 \(counted from 0\) was refused: .*not an image"):
            asked(made[0], [photos[0], b"no image"])
        assert asked(made[0], photos[:1]).shape == (1, 4)


@pytest.mark.triton
def test_the_step_itself_is_still_there_for_each(many: Many) -> None:
    server, made = many
    http = tritonclient.http.InferenceServerClient(server.http_url.removeprefix("http://"))

    def ask(model: str, *names: str) -> tritonclient.http.InferResult:
        inputs = [tritonclient.http.InferInput(name, [1, 1], "BYTES") for name in names]
        for tensor in inputs:
            tensor.set_data_from_numpy(np.array([[photo(0)]], dtype=object))
        return http.infer(model, inputs)

    for card in made:
        pixels = ask(f"{card.name}_reformat", ENCODED).as_numpy(card.input)
        assert np.array_equal(pixels[0], reformat(photo(0), card.preprocess))
    first, second = (f"{ENCODED}_{card.name}" for card in made[:2])
    assert np.array_equal(ask(SHARED, first).as_numpy(f"pixels_{made[0].name}")[0], reformat(photo(0), made[0].preprocess))
    with pytest.raises(InferenceServerException, match="a request is answered for one model, and this one has 2 inputs"):
        ask(SHARED, first, second)
    http.close()


@pytest.mark.triton
def test_the_list_of_models_says_what_it_is(many: Many, capsys: pytest.CaptureFixture[str]) -> None:
    server, made = many
    sightline(["models", "--url", server.grpc_url])
    rows = [re.split(r"\s{2,}", row.strip())[:5] for row in capsys.readouterr().out.splitlines()]
    assert [SHARED, "1", "(a step before them)", "-", "for all that take encoded images"] in rows
    assert [f"{made[0].name}_reformat", "1", "(a step before it)", "-", f"for {made[0].name}"] in rows
