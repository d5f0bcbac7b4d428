"""A script got nearly all images right and its export fewer: what is assumed of weights is said, recorded, seen, and can be stated.

The networks see images as the commonest tutorial makes them, squashed to 224 pixels and scaled to 0..1, which no library publishes.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import binomtest
from torch import nn
from torchvision import models, transforms

from sightline.cli import run as sightline
from sightline.errors import UsageError
from sightline.proportions import wilson_interval
from sightline.repository.read import read_version
from sightline.repository.report import VersionReport, parse_report
from sightline_export.settings import ImportSettings
from sightline_export.sources.external import import_model
from sightline_training.networks.backbones import last_layer
from sightline_training.networks.weights import load_weights, weights_from

timm = pytest.importorskip("timm")

TUTORIAL = transforms.Compose([transforms.Resize((224, 224)), transforms.ToTensor()])

STATED = ("fit=stretch", "mean=0", "std=1", "size=224", "resample=bilinear")

CROPPED = "scaled to {} pixels on the shorter side and cropped to 224 x 224 ({}), RGB, mean 0.485 0.456 0.406, deviation 0.229 0.224 0.225"


@dataclass(frozen=True)
class Script:
    """What a user has: weights, labels, images in class folders, and the count that the user's own script got right."""

    weights: Path
    labels: Path
    images: Path
    count: int
    correct: int


def photo(number: int) -> Image.Image:
    """A wide image whose ends alone, which a centre crop cuts off, tell the class: bright ones of class 0, dark ones of class 1."""
    random = np.random.RandomState(number)
    pixels = random.randint(60, 196, (12, 24, 3)).astype(np.int64)
    pixels[:, [0, 1, 2, 3, 20, 21, 22, 23]] += -60 if number % 2 else 60
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).resize((360, 180), Image.Resampling.BICUBIC)


def answer_with(network: nn.Module, images: torch.Tensor, classes: list[int], count: int) -> None:
    """Let the last layer read the classes from the features of `images`, by least squares; nothing else learns."""
    name = last_layer(network)
    last: Any = network.get_submodule(name)
    inputs: list[torch.Tensor] = []
    hook = last.register_forward_pre_hook(lambda _module, given: inputs.append(given[0].flatten(1)))
    with torch.no_grad():
        for batch in torch.split(images, 16):
            network(batch)
        hook.remove()
        features = torch.cat(inputs).double()
        mean, deviation = features.mean(dim=0), features.std(dim=0) + 1e-6
        scaled = (features - mean) / deviation
        targets = 6 * nn.functional.one_hot(torch.tensor(classes), count).double()
        ridge = scaled.T @ scaled + len(scaled) * 0.1 * torch.eye(scaled.shape[1], dtype=torch.float64)
        weight = torch.linalg.solve(ridge, scaled.T @ (targets - targets.mean(dim=0))).T / deviation
        last.weight.copy_(weight.reshape(last.weight.shape))
        last.bias.copy_(targets.mean(dim=0) - weight @ mean)


def right(network: nn.Module, images: torch.Tensor, classes: list[int]) -> int:
    with torch.inference_mode():
        answers = torch.cat([network(batch).argmax(dim=1) for batch in torch.split(images, 16)])
    return int((answers == torch.tensor(classes)).sum())


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Script:
    folder = tmp_path_factory.mktemp("script")
    for number in range(40):
        (folder / "photos" / ("dark" if number % 2 else "bright")).mkdir(parents=True, exist_ok=True)
        photo(number).save(folder / "photos" / ("dark" if number % 2 else "bright") / f"{number}.png")
    torch.manual_seed(0)
    network = timm.create_model("mobilenetv3_large_100", num_classes=2)
    images, classes = torch.stack([TUTORIAL(photo(number)) for number in range(40)]), [number % 2 for number in range(40)]
    # Its batch normalisation has seen such images.
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        network.train()(images)
    answer_with(network.eval(), images, classes, 2)
    torch.save({"epoch": 5, "state_dict": network.state_dict()}, folder / "mine.pt")
    (folder / "labels.txt").write_text("bright\ndark\n")
    return Script(folder / "mine.pt", folder / "labels.txt", folder / "photos", 40, right(network, images, classes))


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return tmp_path / "models"


def exported(script: Script, repository: Path, source: str, name: str, *options: str) -> VersionReport:
    arguments = ["--weights", str(script.weights), "--labels", str(script.labels), "--images-from", str(script.images), "--name", name]
    sightline(["export", "--from", source, *arguments, "--repository", str(repository), "--no-image", *options])
    return read_version(repository / name / "1").report


def test_a_wrong_assumption_is_said_recorded_and_shows_and_the_right_statement_gives_the_scripts_own_count(
    script: Script, repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert script.correct == script.count
    assumed = exported(script, repository, "timm:mobilenetv3_large_100", "assumed")
    captured = capsys.readouterr()
    lines = captured.err.splitlines()
    assert lines[0] == (
        f"warning: it is assumed that images are {CROPPED.format(256, 'bicubic')}: as timm's mobilenetv3_large_100.ra_in1k sees them. "
        "Nobody says so of mine.pt: the 4 published versions of this network see images in 3 different ways. State the one that it was "
        "trained with"
    )
    assert f"the folders of {script.images} are called as 2 of the 2 labels: the accuracy on them is reported" in lines
    assert (
        "--preprocess FILE|KEY=VALUE states it; with --images-from, folders that are called as the labels show whether it is right" in lines
    )
    origin = assumed.preprocess_origin
    assert origin is not None
    assert origin.model_dump() == {
        "source": "as timm's mobilenetv3_large_100.ra_in1k sees them",
        "assumed": True,
        "published_versions": 4,
        "different_ways": 3,
        "stated": (),
    }
    assert assumed.gate is not None
    assert assumed.gate.accuracy is not None
    assert assumed.gate.passed, "torch and ONNX Runtime agree: they see the same wrong images"
    assert assumed.gate.accuracy.n == 40
    assert assumed.gate.accuracy.correct < 32
    assert assumed.gate.accuracy.interval_95 == pytest.approx(wilson_interval(assumed.gate.accuracy.correct, 40), abs=1e-6)
    table = {row.split("  ")[0]: " ".join(row.split()) for row in captured.out.splitlines()}
    low, high = assumed.gate.accuracy.interval_95
    share = f"{assumed.gate.accuracy.correct / 40:.2%}"
    assert table["accuracy"] == (
        f"accuracy {share} in ONNX Runtime, {share} in torch, of 40 images (95 % interval {low:.1%} to {high:.1%})"
    )
    assert table["images seen"] == (
        "images seen as timm's mobilenetv3_large_100.ra_in1k sees them: assumed, one of 3 ways of its published versions"
    )

    options = [part for text in STATED for part in ("--preprocess", text)]
    stated = exported(script, repository, "timm:mobilenetv3_large_100", "stated", *options)
    assert capsys.readouterr().err.startswith(
        "images are stretched to 224 x 224 pixels (bilinear), RGB, mean 0, deviation 1: stated by who exported it\n"
    )
    assert stated.preprocess_origin is not None
    assert (stated.preprocess_origin.assumed, stated.preprocess_origin.stated) == (False, ("fit", "mean", "std", "size", "resample"))
    assert stated.gate is not None
    assert stated.gate.accuracy is not None
    assert (stated.gate.accuracy.n, stated.gate.accuracy.correct) == (40, script.correct)


def test_a_statement_of_everything_leaves_nothing_to_assume(script: Script, tmp_path: Path) -> None:
    whole = (*STATED, "version=1 mode=RGB background=255 exif=apply polarity=as-is")
    said: list[str] = []
    settings = ImportSettings(weights=str(script.weights), labels=script.labels, preprocess=whole)
    candidate = import_model("timm:mobilenetv3_large_100", settings, said.append)
    assert said[0] == ("images are stretched to 224 x 224 pixels (bilinear), RGB, mean 0, deviation 1: stated by who exported it")
    origin = candidate.preprocess_origin
    assert origin is not None
    assert (origin.source, origin.assumed) == ("stated by who exported it", False)
    (tmp_path / "seen.json").write_text(candidate.card.preprocess.model_dump_json())
    from_file = import_model(
        "timm:mobilenetv3_large_100",
        ImportSettings(weights=str(script.weights), labels=script.labels, preprocess=(str(tmp_path / "seen.json"), "exif=ignore")),
        said.append,
    )
    assert from_file.card.preprocess == candidate.card.preprocess.with_fields(exif="ignore")
    assert said[-2] == (
        "images are stretched to 224 x 224 pixels (bilinear), RGB, mean 0, deviation 1: stated in seen.json, with exif=ignore as stated"
    )


def test_a_tag_that_is_named_is_no_assumption_and_published_weights_are_none(script: Script) -> None:
    said: list[str] = []
    settings = ImportSettings(weights=str(script.weights), labels=script.labels)
    candidate = import_model("timm:mobilenetv3_large_100.miil_in21k_ft_in1k", settings, said.append)
    assert said[0] == (
        "images are scaled to 256 pixels on the shorter side and cropped to 224 x 224 (bilinear), RGB, mean 0, deviation 1: as timm's "
        "mobilenetv3_large_100.miil_in21k_ft_in1k sees them"
    )
    assert candidate.preprocess_origin is not None
    assert not candidate.preprocess_origin.assumed
    random = import_model("timm:mobilenetv3_large_100", ImportSettings(weights="random"), said.append)
    assert random.preprocess_origin is not None
    assert not random.preprocess_origin.assumed


def test_a_network_of_torchvision_with_a_single_version_is_assumed_too_and_that_is_said(tmp_path: Path) -> None:
    torch.save(models.squeezenet1_1().state_dict(), tmp_path / "mine.pt")
    said: list[str] = []
    settings = ImportSettings(weights=str(tmp_path / "mine.pt"))
    candidate = import_model("torchvision:squeezenet1_1", settings, said.append)
    assert said[0] == (
        f"warning: it is assumed that images are {CROPPED.format(256, 'bilinear')}: as torchvision's squeezenet1_1/IMAGENET1K_V1 sees "
        "them. Nobody says so of mine.pt: the only published version of this network sees them so, and it may have been trained in "
        "another way, which could be stated"
    )
    assert candidate.preprocess_origin is not None
    assert candidate.preprocess_origin.assumed
    named = import_model("torchvision:squeezenet1_1/IMAGENET1K_V1", settings, said.append)
    assert named.preprocess_origin is not None
    assert not named.preprocess_origin.assumed


def test_what_is_stated_can_settle_what_torchvisions_versions_differ_in(tmp_path: Path) -> None:
    torch.save(weights_from("mobilenet_v2", "random").state, tmp_path / "mine.pt")
    said: list[str] = []
    settings = ImportSettings(weights=str(tmp_path / "mine.pt"), preprocess=("fit=stretch",))
    candidate = import_model("torchvision:mobilenet_v2", settings, said.append)
    assert candidate.card.preprocess.fit == "stretch"
    assert candidate.preprocess_origin is not None
    assert (candidate.preprocess_origin.published_versions, candidate.preprocess_origin.different_ways) == (2, 1)
    assert said[0] == (
        "warning: it is assumed that images are stretched to 224 x 224 pixels (bilinear), RGB, mean 0.485 0.456 0.406, deviation 0.229 "
        "0.224 0.225: as torchvision's mobilenet_v2/IMAGENET1K_V2 sees them, with fit=stretch as stated. Nobody says so of mine.pt: all 2 "
        "published versions of this network see the rest so, and it may have been trained in another way, which could be stated"
    )
    with pytest.raises(UsageError, match="its versions of mobilenet_v2 see images differently"):
        import_model("torchvision:mobilenet_v2", ImportSettings(weights=str(tmp_path / "mine.pt"), preprocess=("mean=0",)))


def test_a_size_or_a_mode_that_the_network_does_not_take_is_refused_before_anything_is_exported(tmp_path: Path) -> None:
    source = "timm:vit_tiny_patch16_224.augreg_in21k_ft_in1k"
    with pytest.raises(UsageError) as refused:
        sightline(["export", "--from", source, "--weights", "random", "--preprocess", "size=96", "--repository", str(tmp_path)])
    assert str(refused.value).startswith(f"{source} does not take images of 96 x 96 pixels in 3 channels, as they are preprocessed (")
    assert str(refused.value).endswith(" (Options: `--preprocess FILE|KEY=VALUE`)")
    grey = ("mode=L background=255 mean=0 std=1",)
    with pytest.raises(
        UsageError, match=r"^timm:test_resnet\.r160_in1k does not take images of 160 x 160 pixels in 1 channel, as they are "
    ):
        import_model("timm:test_resnet", ImportSettings(weights="random", preprocess=grey))


def test_reports_of_earlier_programs_say_nothing_of_it() -> None:
    report = parse_report('{"schema": 1, "provenance": {"from": "timm:resnet18"}}')
    assert report.preprocess_origin is None
    low, high = binomtest(135, 150).proportion_ci(method="wilson")
    assert wilson_interval(135, 150) == pytest.approx((low, high), abs=1e-6)


@pytest.mark.realdata
@pytest.mark.slow
def test_on_real_photos_of_fruit_the_export_gets_as_many_right_as_the_script_once_it_is_stated(
    data_folder: Path, tmp_path: Path, repository: Path
) -> None:
    def photos(split: str, of_each: int) -> tuple[list[Path], list[int]]:
        folders = sorted(folder for folder in (data_folder / "fruits" / split).iterdir() if folder.is_dir())
        files = [(file, number) for number, folder in enumerate(folders) for file in sorted(folder.iterdir())[:of_each]]
        return [file for file, _ in files], [number for _, number in files]

    def tensors(files: list[Path]) -> torch.Tensor:
        return torch.stack([TUTORIAL(Image.open(file).convert("RGB")) for file in files])

    network = models.mobilenet_v2()
    load_weights(network, weights_from("mobilenet_v2", str(data_folder / "weights" / "mobilenet_v2_imagenet.safetensors")))
    network.classifier[1] = nn.Linear(1280, 6)
    learned, learned_classes = photos("train", 60)
    answer_with(network.eval(), tensors(learned), learned_classes, 6)
    files, classes = photos("valid", 25)
    correct = right(network, tensors(files), classes)
    assert correct > 0.9 * len(files)
    for file, number in zip(files, classes, strict=True):
        (tmp_path / "photos" / file.parent.name).mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / file.parent.name / file.name).write_bytes(file.read_bytes())
        assert sorted({file.parent.name for file in files})[number] == file.parent.name
    torch.save(network.state_dict(), tmp_path / "mine.pt")
    (tmp_path / "labels.txt").write_text("\n".join(sorted({file.parent.name for file in files})))
    script = Script(tmp_path / "mine.pt", tmp_path / "labels.txt", tmp_path / "photos", len(files), correct)
    assumed = exported(script, repository, "torchvision:mobilenet_v2/IMAGENET1K_V1", "assumed").gate
    options = [part for text in STATED for part in ("--preprocess", text)]
    stated = exported(script, repository, "torchvision:mobilenet_v2", "stated", *options).gate
    assert assumed is not None
    assert stated is not None
    assert assumed.accuracy is not None
    assert stated.accuracy is not None
    assert (stated.accuracy.n, stated.accuracy.correct) == (len(files), correct)
    assert assumed.accuracy.correct < correct
