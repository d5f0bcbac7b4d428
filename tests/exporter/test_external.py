"""Models that were not trained here: ten public configurations through the whole export, and every way in which nothing is published.

The configurations (architecture, preprocessing) are the public ones; weights are random, and of Hugging Face's the networks are small.
"""

import itertools
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pytest
import safetensors.torch
import torch
from PIL import Image
from torch import nn
from torchvision import models

from sightline.cli import run as sightline
from sightline.errors import DataError, MissingExtra, UsageError
from sightline.preprocess import Preprocess
from sightline.reformatting import reformat
from sightline.repository.read import check_files, read_published, read_version
from sightline_export.gate.thresholds import FP32
from sightline_export.graph.runtimes import in_onnx_runtime
from sightline_export.pipeline import export_candidate
from sightline_export.settings import Endpoints, ExportSettings, ImportSettings
from sightline_export.sources.external import import_model
from sightline_export.sources.labels import distinct_labels, read_labels
from sightline_export.sources.probe_images import generated_images, images_below
from sightline_export.sources.registry import usage
from sightline_export.verify.prove import verify
from sightline_training.networks.backbones import preprocess_of
from sightline_training.networks.weights import weights_from
from support.comparison_images import smooth
from support.foreign_networks import SMALL, as_tensor, lively, saved
from support.hf_processors import DEIT
from support.reports import as_json

timm = pytest.importorskip("timm")
transformers = pytest.importorskip("transformers")


Ask: TypeAlias = Callable[[Image.Image], npt.NDArray[np.float32]]


@dataclass(frozen=True)
class Public:
    """A public configuration and what its library makes of it."""

    source: str
    size: int
    scaled: int | None
    """What the shorter side is scaled to; None if images are squashed."""
    resample: str
    mean: float
    """Of red."""


TORCHVISION = [
    Public("torchvision:resnet18", 224, 256, "bilinear", 0.485),
    pytest.param(Public("torchvision:mobilenet_v3_small", 224, 256, "bilinear", 0.485), marks=pytest.mark.slow),
    pytest.param(Public("torchvision:efficientnet_b1/IMAGENET1K_V2", 240, 255, "bilinear", 0.485), marks=pytest.mark.slow),
    pytest.param(Public("torchvision:vit_b_32", 224, 256, "bilinear", 0.485), marks=pytest.mark.slow),
]
TIMM = [
    Public("timm:convnext_atto.d2_in1k", 224, 256, "bicubic", 0.485),
    pytest.param(Public("timm:vit_tiny_patch16_224.augreg_in21k_ft_in1k", 224, 248, "bicubic", 0.5), marks=pytest.mark.slow),
    pytest.param(Public("timm:tf_mobilenetv3_small_minimal_100.in1k", 224, 256, "bilinear", 0.5), marks=pytest.mark.slow),
]
HUGGINGFACE = [
    Public("huggingface:vit-base-patch16-224", 224, None, "bilinear", 0.5),
    pytest.param(Public("huggingface:convnext-tiny-224", 224, 256, "bicubic", 0.485), marks=pytest.mark.slow),
    pytest.param(Public("huggingface:mobilenet_v2_1.0_224", 224, 256, "bilinear", 0.5), marks=pytest.mark.slow),
]

"""Name of the public model → its architecture, its preprocessing, and what makes the network small."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Only to be read."""
    folder = tmp_path_factory.mktemp("hub")
    return {name: saved(folder, name) for name in SMALL}


def of_library(public: Public, folders: dict[str, Path], weights: Path) -> tuple[str, str | None, Ask]:
    """The source and its weights, and the library's own preprocessing and network: an image → probabilities [classes]."""
    kind, _, what = public.source.partition(":")
    source, weights_option = public.source, None
    torch.manual_seed(0)
    if kind == "torchvision":
        name, _, version = what.partition("/")
        network: nn.Module = models.get_model(name, weights=None)
        published = models.get_model_weights(name)
        transform: Any = (published[version] if version else published.DEFAULT).transforms()
    elif kind == "timm":
        network = timm.create_model(what, pretrained=False)
        transform = timm.data.create_transform(**timm.data.resolve_model_data_config(network))
    else:
        source = f"huggingface:{folders[what]}"
        network = transformers.AutoModelForImageClassification.from_pretrained(folders[what])
        transform = as_tensor(json.loads((folders[what] / "preprocessor_config.json").read_text()))
    if kind != "huggingface":
        torch.save(lively(network, transform).state_dict(), weights)
        weights_option = str(weights)

    def ask(image: Image.Image) -> npt.NDArray[np.float32]:
        with torch.inference_mode():
            answer = network.eval()(transform(image)[None])
        probabilities: npt.NDArray[np.float32] = torch.softmax(getattr(answer, "logits", answer), dim=1).numpy()[0]
        return probabilities

    return source, weights_option, ask


@pytest.mark.parametrize("public", [*TORCHVISION, *TIMM, *HUGGINGFACE], ids=lambda public: public.source)
def test_a_public_configuration_goes_through_the_whole_export_and_answers_as_in_its_own_library(
    public: Public, folders: dict[str, Path], tmp_path: Path
) -> None:
    source, weights, theirs = of_library(public, folders, tmp_path / "weights.pt")
    done = export_candidate(import_model(source, ImportSettings(weights=weights)), tmp_path / "models", ExportSettings(images=8))[
        0
    ].published
    version, model = read_version(done.folder), read_published(done.folder.parent)
    assert model is not None
    check_files(version)
    spec = model.card.preprocess
    assert (spec.size, spec.fit) == ((public.size, public.size), "stretch" if public.scaled is None else "crop")
    assert round(public.size / spec.crop_fraction) == (public.scaled or public.size)
    assert (spec.resample, spec.mean[0]) == (public.resample, public.mean)
    report = as_json(version.report)
    assert report["provenance"]["from"].startswith(public.source)
    assert (report["gate"]["passed"], report["gate"]["pictures"]) == (True, 8)
    assert report["gate"]["data"]["name"] == "smooth random colours"
    golden = json.loads((done.folder / "golden" / "golden.json").read_text())
    assert [entry["label"] for entry in golden["pictures"]] == [None] * 8
    ours, answers = in_onnx_runtime((done.folder / "model.onnx").read_bytes(), model.card), []
    for number, size in enumerate([(640, 480), (500, 375), (300, 288)]):
        # Wide, so that Pillow scales in a card's order; the crops of these are none of those that transformers begins earlier.
        image = smooth(number, size)
        expected, actual = theirs(image), ours(reformat(image, spec)[None])[0]
        assert expected.argmax() == actual.argmax()
        assert np.abs(expected - actual).max() < FP32.max_delta_p
        answers.append(expected)
    assert min(np.abs(one - other).max() for one, other in itertools.combinations(answers, 2)) > 1e-3, "the network sees nothing"


def test_weights_of_ones_own_may_tell_other_classes_apart(tmp_path: Path) -> None:
    torch.manual_seed(1)
    network = models.squeezenet1_1(num_classes=3)
    torch.save(network.state_dict(), tmp_path / "mine.pt")
    (tmp_path / "labels.txt").write_text("cat\ndog\nother\n")
    candidate = import_model(
        "torchvision:squeezenet1_1", ImportSettings(weights=str(tmp_path / "mine.pt"), labels=tmp_path / "labels.txt", name="pets")
    )
    assert (candidate.card.name, candidate.card.labels) == ("pets", ("cat", "dog", "other"))
    image = smooth(0, (300, 260))
    with torch.inference_mode():
        actual = candidate.network()(torch.from_numpy(reformat(image, candidate.card.preprocess)[None]))
        planes = models.SqueezeNet1_1_Weights.IMAGENET1K_V1.transforms()(image)[None]
        assert torch.allclose(actual, torch.softmax(network.eval()(planes), dim=1), atol=1e-6)
    assert candidate.provenance["weights"] == "file mine.pt"
    with pytest.raises(UsageError, match=r"^file mine\.pt tells 3 classes apart, which are not ImageNet's: name them in a text file"):
        import_model("torchvision:squeezenet1_1", ImportSettings(weights=str(tmp_path / "mine.pt")))
    (tmp_path / "labels.txt").write_text("cat\ndog\n")
    with pytest.raises(UsageError, match=r"^2 labels are named, but file mine\.pt tells 3 classes apart$"):
        import_model("torchvision:squeezenet1_1", ImportSettings(weights=str(tmp_path / "mine.pt"), labels=tmp_path / "labels.txt"))


def test_a_file_for_timm_may_have_other_classes_too_and_must_fit(tmp_path: Path) -> None:
    torch.manual_seed(1)
    network = timm.create_model("test_resnet.r160_in1k", num_classes=3)
    safetensors.torch.save_file(network.state_dict(), tmp_path / "mine.safetensors")
    (tmp_path / "labels.txt").write_text("cat\ndog\nother\n")
    candidate = import_model(
        "timm:test_resnet.r160_in1k", ImportSettings(weights=str(tmp_path / "mine.safetensors"), labels=tmp_path / "labels.txt")
    )
    assert (candidate.card.name, candidate.card.labels) == ("test_resnet_r160_in1k", ("cat", "dog", "other"))
    image = smooth(0, (300, 260))
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(network))
    with torch.inference_mode():
        actual = candidate.network()(torch.from_numpy(reformat(image, candidate.card.preprocess)[None]))
        assert torch.allclose(actual, torch.softmax(network.eval()(transform(image)[None]), dim=1), atol=1e-6)
    with pytest.raises(DataError, match=r"the tensor fc\.weight has the shape \[3, 96\]; the network needs \[1000, 96\]\.$"):
        import_model("timm:test_resnet.r160_in1k", ImportSettings(weights=str(tmp_path / "mine.safetensors")))


def test_a_file_whose_preprocessing_nobody_can_know_is_refused_until_it_is_said(tmp_path: Path) -> None:
    torch.save(weights_from("mobilenet_v2", "random").state, tmp_path / "mine.pt")
    with pytest.raises(UsageError) as refused:
        import_model("torchvision:mobilenet_v2", ImportSettings(weights=str(tmp_path / "mine.pt")))
    assert str(refused.value) == (
        f"{tmp_path / 'mine.pt'} is not a file that torchvision published, and its versions of mobilenet_v2 see images differently: "
        "say which one "
        "yours was trained like, torchvision:mobilenet_v2/IMAGENET1K_V1 or torchvision:mobilenet_v2/IMAGENET1K_V2, or "
        "state the preprocessing"
    )
    for version, scaled in (("IMAGENET1K_V1", 256), ("IMAGENET1K_V2", 232)):
        card = import_model(f"torchvision:mobilenet_v2/{version}", ImportSettings(weights=str(tmp_path / "mine.pt"))).card
        assert round(224 / card.preprocess.crop_fraction) == scaled
    with pytest.raises(UsageError, match="torchvision has no weights IMAGENET1K_V9 of mobilenet_v2, only IMAGENET1K_V1, IMAGENET1K_V2"):
        import_model("torchvision:mobilenet_v2/IMAGENET1K_V9", ImportSettings(weights="random"))


@pytest.mark.parametrize(
    ("changes", "error", "sentence"),
    [
        ({"auto_map": {"AutoConfig": "x.Y"}}, UsageError, "config.json: auto_map is not supported: only float32 networks that "),
        ({"quantization_config": {"bits": 4}}, UsageError, "config.json: quantization_config is not supported: "),
        (
            {"problem_type": "multi_label_classification"},
            UsageError,
            "config.json: problem_type is multi_label_classification, ",
        ),
        ({"model_type": "bert"}, UsageError, "config.json: transformers has no image classifier of the model_type 'bert'"),
        ({"model_type": "unheard-of"}, DataError, "config.json: transformers cannot read it: "),
        ({"id2label": None}, UsageError, "config.json: id2label does not name the 2 classes"),
        (
            {"id2label": {"0": "a", "1": "b", "7": "c"}},
            UsageError,
            "config.json: id2label does not name the 3 classes: name them in a text file",
        ),
        ({"num_channels": 1}, UsageError, "config.json: 10 classes and 1 channels; a card needs two or more, and 3"),
        ({"image_size": 384}, UsageError, "preprocessor_config.json makes images of 224 x 224 pixels, the network takes 384 x 384"),
        ({"num_hidden_layers": 3}, DataError, " is missing in ViTForImageClassification: these are weights of another network"),
        ({"num_hidden_layers": 1}, DataError, " has no place in ViTForImageClassification: these are weights of another network"),
        (
            {"hidden_size": 64},
            DataError,
            "the tensor classifier.weight has the shape [10, 32] and needs [10, 64] in ViTForImageClassification: ",
        ),
        ({"num_attention_heads": 0}, DataError, "Fetch the folder again, or save it anew with save_pretrained"),
        ({"hidden_act": "none of them"}, DataError, "its values do not fit together (KeyError: "),
        ({"hidden_size": "large"}, DataError, "Fetch the folder again, or save it anew with save_pretrained"),
    ],
)
def test_a_folder_that_cannot_be_imported_is_refused_with_the_reason(
    changes: dict[str, Any], error: type[Exception], sentence: str, tmp_path: Path
) -> None:
    folder = saved(tmp_path, "vit-base-patch16-224")
    described = {**json.loads((folder / "config.json").read_text()), **changes}
    (folder / "config.json").write_text(json.dumps({key: value for key, value in described.items() if value is not None}))
    with pytest.raises(error) as refused:
        import_model(f"huggingface:{folder}")
    assert sentence in str(refused.value)
    assert str(folder) in str(refused.value)


def test_pickled_weights_are_never_read(tmp_path: Path) -> None:
    folder = saved(tmp_path, "vit-base-patch16-224")
    state = safetensors.torch.load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(state, folder / "pytorch_model.bin")
    with pytest.raises(
        DataError, match=r"holds no model\.safetensors, and pytorch_model\.bin could run code when it is opened: save it as "
    ):
        import_model(f"huggingface:{folder}")
    assert import_model(f"huggingface:{folder}", ImportSettings(weights="random")).provenance["weights"] == "random"


def test_a_folder_without_one_of_its_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"^there is no folder .*/none: huggingface:DIR names one with config\.json, preprocessor_config\.json"
    ):
        import_model(f"huggingface:{tmp_path / 'none'}")
    folder = saved(tmp_path, "vit-base-patch16-224")
    (folder / "preprocessor_config.json").write_text("[1]")
    with pytest.raises(DataError, match=r"preprocessor_config\.json: cannot be read: a JSON list where an object was expected$"):
        import_model(f"huggingface:{folder}")
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(DataError, match=r"preprocessor_config\.json: cannot be read: No such file or directory$"):
        import_model(f"huggingface:{folder}")


def test_deit_squashes_and_then_crops_which_a_card_cannot_say(tmp_path: Path) -> None:
    folder = saved(tmp_path, "vit-base-patch16-224", DEIT)
    with pytest.raises(UsageError, match=r"crop_size: 224 crops out of images that were squashed to 256 x 256; a card can stretch or crop"):
        import_model(f"huggingface:{folder}")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["--from", "keras:vgg16"],
            f"a model that was trained elsewhere is named {usage()}, not 'keras:vgg16'",
        ),
        (
            ["--from", "timm:"],
            f"a model that was trained elsewhere is named {usage()}, not 'timm:'",
        ),
        ([], "name a run, or a model that was trained elsewhere with --from"),
        (["runs/x", "--from", "timm:x"], "name a run or a model with --from, not both: 'runs/x' and 'timm:x'"),
        (["runs/x", "--weights", "random"], "--weights belongs to --from: a run has its own"),
        (["runs/x", "--name", "x"], "--name belongs to --from: a run has its own"),
        (["runs/x", "--preprocess", "size=224"], "--preprocess belongs to --from: a run has its own"),
        (["runs/x", "--weights-key", "ema"], "--weights-key belongs to --from: a run has its own"),
        (["--from", "torchvision:resnet18", "--preprocess", "resize=224"], "a preprocessing has no field 'resize': it has version, mode, "),
        (
            ["--from", "torchvision:resnet18", "--weights-key", "ema"],
            "'ema' is to be an entry of a checkpoint, but the weights are no file. (Options: `--weights-key`)",
        ),
        (
            ["--from", "timm:test_resnet", "--weights-key", "ema"],
            "'ema' is to be an entry of a checkpoint, but the weights are no file. (O",
        ),
        (["--from", "timm:x", "--data", "x"], "--data is where a run's images lie: with --from, --images-from names a folder of them"),
        (
            ["--from", "torchvision:resnet18", "--precision", "int8"],
            "torchvision:resnet18 comes without training images, and INT8 must be calibrated with some: name a folder of images such as ",
        ),
        (["--from", "torchvision:resnet-18"], "torchvision has no classifier 'resnet-18'. Did you mean resnet18, resnet152, resnet101?"),
        (
            ["--from", "torchvision:squeezenet1_1", "--weights", "random", "--name", "a b"],
            "torchvision:squeezenet1_1/IMAGENET1K_V1 cannot get ",
        ),
    ],
)
def test_a_command_that_makes_no_sense_is_refused_before_anything_is_made(arguments: list[str], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as refused:
        sightline(["export", *arguments, "--repository", str(tmp_path / "models")])
    assert str(refused.value).startswith(sentence)
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize("name", ["timm", "transformers"])
def test_a_missing_library_says_what_to_install(name: str, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    source = {"timm": "timm:resnet18", "transformers": f"huggingface:{folders['vit-base-patch16-224']}"}[name]
    with pytest.raises(MissingExtra) as refused:
        import_model(source, ImportSettings(weights="random"))
    kind = source.partition(":")[0]
    assert str(refused.value) == f"`sightline export --from {kind}:…` needs {name}: pip install 'sightline[bring]'"


def test_the_command_publishes_says_where_the_model_comes_from_and_does_not_publish_it_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = tmp_path / "pictures"
    images.mkdir()
    for number in range(8):
        smooth(number, (260 + number, 240)).save(images / f"{number}.png")
    (images / "notes.txt").write_text("no image")
    repository = tmp_path / "models"
    source = f"huggingface:{saved(tmp_path, 'convnext-tiny-224', id2label={0: 'cat', 1: 'dog', 2: 'other'})}"
    arguments = ["export", "--from", source, "--name", "animals", "--repository", str(repository), "--images-from", str(images)]
    sightline([*arguments, "--precision", "fp32", "--precision", "int8", "--calibrate-with", str(images)])
    captured = capsys.readouterr()
    lines = [" ".join(line.split()) for line in captured.out.splitlines()]
    assert lines[0] == "model animals version 1"
    assert lines[1] == "from huggingface:convnext-tiny-224, weights: ConvNextForImageClassification in safetensors"
    assert lines[3] == "images seen preprocessor_config.json"
    assert lines[4] == "gate passed 27 checks on 8 given images of a folder of 8 images"
    assert "accuracy not known: nobody says what the images show" in lines
    assert "model animals version 2" in lines
    assert f"nobody says what the images of {images} show: put them into a folder for each label to learn the accuracy" in captured.err
    assert "images are scaled to 256 pixels on the shorter side and cropped to 224 x 224 (bicubic), RGB, " in captured.err
    provenance = read_version(repository / "animals" / "1").report.provenance
    assert isinstance(provenance["preprocessing"], dict)
    assert provenance["preprocessing"]["image_processor_type"] == "ConvNextImageProcessor"
    assert provenance["versions"] == {"transformers": transformers.__version__}
    assert str(tmp_path) not in (repository / "animals" / "2" / "report.json").read_text()
    sightline([*arguments, "--precision", "int8", "--calibrate-with", str(images)])
    assert "nothing was published: version 2 of animals is this very model" in capsys.readouterr().err
    with pytest.raises(DataError) as refused:
        verify(
            "animals", tmp_path / "runs" / "animals", repository, Endpoints(grpc_url="grpc://localhost:1", http_url="http://localhost:1")
        )
    assert str(refused.value) == (
        "animals version 2 was imported from huggingface:convnext-tiny-224, and has no run to compare it with. "
        f"Check its golden images instead: classify those in {repository / 'animals' / '2' / 'golden'}, and hold the answers to "
        "golden.json beside them"
    )


def test_a_folder_without_images_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no image")
    card = import_model(f"huggingface:{folders['vit-base-patch16-224']}").card
    with pytest.raises(DataError, match=r"holds no readable image to compare on$"):
        images_below(tmp_path, card, 10)


def test_images_that_are_generated_are_the_same_each_time_and_unlike_one_another(folders: dict[str, Path]) -> None:
    card = import_model(f"huggingface:{folders['vit-base-patch16-224']}").card
    first, second = generated_images(card, 24), generated_images(card, 24)
    assert first.fingerprint == second.fingerprint != generated_images(card, 23).fingerprint
    pixels = first.pixels(card.preprocess, np.arange(24))
    assert len({array.tobytes() for array in pixels}) == 24
    assert pixels.std(axis=(1, 2, 3)).min() > 20
    assert set(first.labels.tolist()) == {-1}


def test_labels_are_read_a_line_each_and_a_bad_file_is_refused_with_the_line(tmp_path: Path) -> None:
    file = tmp_path / "labels.txt"
    file.write_bytes("\ufeffKatze\r\nHund\r\n\r\n".encode())
    assert read_labels(file) == ("Katze", "Hund")
    for content, sentence in (
        (b"cat\n\ndog", "line 2: no label: there must be one on every line"),
        (b"cat\ndog\ncat", "'cat' stands on several lines: two classes cannot share a name"),
        (b"\xff\xfe", "the labels cannot be read: not UTF-8 text$"),
        (b"", "line 1: no label"),
    ):
        file.write_bytes(content)
        with pytest.raises(DataError, match=sentence):
            read_labels(file)


def test_labels_that_several_classes_share_get_their_number() -> None:
    assert distinct_labels(["crane", "tench", "crane"]) == (
        ("crane (0)", "tench", "crane (2)"),
        ("labels that several classes share got the number of their class behind them: crane",),
    )
    assert distinct_labels(["a", "b"]) == (("a", "b"), ())


@pytest.mark.parametrize("size", [(640, 283), (301, 477)])
@pytest.mark.parametrize("name", ["resnet50/IMAGENET1K_V2", "efficientnet_b1/IMAGENET1K_V2", "vit_b_16/IMAGENET1K_SWAG_E2E_V1"])
def test_a_named_version_is_seen_as_torchvision_sees_it(name: str, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.transforms import functional

    from sightline_training.networks.backbones import Backbone

    network, version = name.split("/")
    meant: Any = models.get_model_weights(network)[version].transforms()
    image = smooth(0, size)
    expected = functional.center_crop(functional.resize(image, meant.resize_size, meant.interpolation), meant.crop_size)
    spec: Preprocess = preprocess_of(Backbone(network), version)
    assert np.abs(reformat(image, spec).astype(int) - np.asarray(expected).astype(int)).max() <= 2
