"""VGG16, the default backbone, in shape: random weights and few images, but the whole line. Its real weights are a download of 528 MB."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from sightline import Classifier, cli
from sightline_export.settings import Endpoints, ImageSelection
from sightline_export.verify.prove import verify
from sightline_serving.server import start_server
from sightline_serving.settings import FREE_PORTS
from sightline_training.run.run import load_run
from support.present import present

RECIPES = {
    "imagenet": (),
    "doggy_door": (),
    "bo": ("--epochs", "1"),
    "fruit": ("--epochs", "1"),
    "folder": ("--epochs", "1", "--name", "pets"),
}
"""Recipe → what is added to its command."""


@pytest.fixture(scope="module")
def small_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The courses' folders with a few drawn images each: noise around a colour that belongs to the class."""
    root = tmp_path_factory.mktemp("data")
    draw = np.random.default_rng(3)

    def drawn(path: Path, colour: npt.NDArray[np.int64]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = draw.integers(-60, 60, (150, 200, 3))
        Image.fromarray(np.clip(colour + noise, 0, 255).astype(np.uint8)).save(path, quality=90)

    for name in ("happy_dog", "brown_bear", "sleepy_cat"):
        drawn(root / "doggy_door" / "doggy_door_images" / f"{name}.jpg", draw.integers(0, 256, 3))
    kinds = ("freshapples", "freshbanana", "freshoranges", "rottenapples", "rottenbanana", "rottenoranges")
    for folder, classes in (
        (root / "doggy_door" / "presidential_doggy_door", ("bo", "not_bo")),
        (root / "fruits", kinds),
        (root / "own", ("cats", "dogs")),
    ):
        for kind in classes:
            colour = draw.integers(0, 256, 3)
            for split, count in (("train", 4), ("valid", 2)):
                for number in range(count):
                    drawn(folder / split / kind / f"{number}.jpg", colour)
    return root


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.triton
@pytest.mark.parametrize("recipe", RECIPES)
def test_vgg16_goes_through_the_whole_line(recipe: str, small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGHTLINE_CACHE", str(tmp_path / "cache"))
    run, repository = tmp_path / "run", tmp_path / "models"
    data = small_data / "own" if recipe == "folder" else small_data
    cli.run(["train", recipe, "--weights", "random", "--data", str(data), "--run", str(run), *RECIPES[recipe]])
    report = load_run(run).report
    assert (present(report.backbone).name, present(report.backbone).source) == ("vgg16", "random")
    cli.run(["export", str(run), "--repository", str(repository), "--data", str(data)])
    model = "pets" if recipe == "folder" else recipe
    with start_server(repository, replace(FREE_PORTS, startup_timeout_s=300)) as server:
        endpoints = Endpoints(grpc_url=server.grpc_url, http_url=server.http_url, timeout_s=120)
        proof = verify(model, run, repository, endpoints, ImageSelection(data=data))
        proof.check()
        with Classifier(model, url=server.grpc_url, timeout_s=120) as client:
            photo = small_data / "doggy_door" / "doggy_door_images" / "happy_dog.jpg"
            assert sum(guess.probability for guess in next(iter(client.classify([photo], top=3))).top) <= 1.0001
