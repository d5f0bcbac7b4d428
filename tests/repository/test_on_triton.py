"""The real Triton serves what was published, and goes on serving whatever moment an export was killed at."""

import json
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest

from sightline.card import unseal
from sightline.classifier import Classifier
from sightline.errors import ContractError
from sightline.reformatting import reformat
from sightline.repository.card_config import config_for
from sightline.repository.config import ModelConfig
from sightline.repository.instances import InstanceSettings, instances_of
from sightline.repository.layout import STAGING_FOLDER as STAGING
from sightline.repository.read import model_named
from sightline.transport import connect
from sightline_export.settings import ExportSettings
from sightline_export.sources.run import export_run
from sightline_serving.server import Server, start_server
from sightline_serving.settings import FREE_PORTS
from support.digits import Trained
from support.killed_publisher import killer, published

pytestmark = pytest.mark.triton


def serve(repository: Path) -> AbstractContextManager[Server]:
    return start_server(repository, FREE_PORTS)


def test_a_published_run_is_served_and_gives_the_golden_answers(digits_run: Path, tmp_path: Path) -> None:
    folder = export_run(digits_run, tmp_path / "models")[0].published.folder
    golden = json.loads((folder / "golden" / "golden.json").read_text())
    with serve(tmp_path / "models") as server:
        for url in (server.grpc_url, server.http_url):
            with Classifier("mnist", url) as mnist:
                assert mnist.card.sha256 == golden["card_sha256"]
                probabilities = mnist.probabilities([folder / "golden" / entry["file"] for entry in golden["pictures"]])
                assert (
                    np.abs(probabilities - np.array([entry["probabilities"] for entry in golden["pictures"]], np.float32)).max()
                    <= golden["tolerance"]
                )


def test_a_model_is_warmed_up_with_a_golden_image_before_it_is_ready(digits_run: Path, tmp_path: Path) -> None:
    model = export_run(digits_run, tmp_path / "models", ExportSettings(images=20))[0].published.folder.parent
    card = unseal((model / "card.json").read_text(), "test")
    warm = model / "warmup" / "golden"
    assert warm.read_bytes() == reformat(model / "1" / "golden" / "00.png", card.preprocess).tobytes()
    with serve(tmp_path / "models") as server, connect(server.grpc_url) as transport:
        # One image, and as many as a run has; a JPEG and a PNG. Triton counts them among what it answered.
        run = instances_of(model_named(tmp_path / "models", "mnist").config).largest_run
        assert {version.name: version.inferences for version in transport.models()} == {
            "mnist": sum({1, run}),
            "mnist_image": 0,
            "mnist_reformat": 2,
        }
    warm.write_bytes(b"too short")
    with (
        pytest.raises(ContractError, match=r"^mnist is not served: warmup/golden of model mnist .* was changed"),
        serve(tmp_path / "models"),
    ):
        pass


def test_hostile_texts_in_the_card_come_back_from_the_server(trained: Trained, tmp_path: Path) -> None:
    from sightline.card import ModelCard
    from sightline_export.graph.torch_to_onnx import export_onnx

    labels = ('"', "'", "\\", "}", "ä", "數字", "🔢", "a b", "<b>", "%s")
    card = ModelCard.model_validate({**trained.card.model_dump(), "labels": labels, "description": 'quotes " and \\ and\nlines }'})
    published(tmp_path / "models", card, config_for(card, InstanceSettings(2, 1)), {"model.onnx": export_onnx(trained.network, card)}, "")
    with serve(tmp_path / "models") as server, Classifier("digits", server.grpc_url) as digits:
        assert digits.card == card
        (guess,) = digits.classify([trained.pixels[0]])
        assert guess.label == labels[trained.labels[0]]


@pytest.mark.parametrize("existing", [True, False], ids=["next version", "new model"])
def test_after_a_kill_at_any_of_some_steps_triton_serves_the_old_state_or_the_new_one(
    existing: bool, trained: Trained, tmp_path: Path
) -> None:
    before = tmp_path / "before"
    neighbour = trained.card.model_copy(update={"name": "neighbour"})
    files = {"model.onnx": trained.model, "golden/00.png": b"an image"}
    config = config_for(trained.card, InstanceSettings(1, 1))
    published(before / "models", neighbour, config_for(neighbour, InstanceSettings(1, 1)), files, "")
    if existing:
        published(before / "models", trained.card, config, files, "first")
    served = []
    with killer() as killed_at:
        steps = next(
            step for step in range(1, 500) if run_until(killed_at, step, before, tmp_path / str(step), trained, config, files) == 0
        )
        # Two thirds of the steps in, a version is staged; then right before the rename that makes it visible, and near the end, after it.
        for step in (2 * steps // 3, *range(steps - 12, steps, 3)):
            repository = tmp_path / str(step) / "models"
            with serve(repository) as server:
                with Classifier("neighbour", server.grpc_url) as client:
                    assert client.classify([trained.pixels[0]])[0].label == str(trained.labels[0])
                there = {model.name: model.versions for model in server.models}
                if "digits" in there:
                    with Classifier("digits", server.grpc_url) as client:
                        assert client.classify([trained.pixels[0]])[0].version == str(there["digits"][-1])
                served.append(there.get("digits", ()))
    old, new = ((1,), (2,)) if existing else ((), (1,))
    assert set(served) == {old, new}
    if existing:
        interrupted = [step for step in range(1, steps) if (tmp_path / str(step) / "models" / "digits" / STAGING).exists()]
        assert 2 * steps // 3 in interrupted, "the kill left no staging for Triton to ignore"


def run_until(
    killed_at: Callable[..., int], step: int, before: Path, workspace: Path, trained: Trained, config: ModelConfig, files: dict[str, bytes]
) -> int:
    shutil.copytree(before, workspace)
    return killed_at(step, workspace, (workspace / "models", trained.card, config, files, "new"))
