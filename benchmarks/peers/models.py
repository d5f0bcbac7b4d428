"""The models of the race: untrained, since speed does not depend on what was learnt, each published once in a repository of its own.

Answers must still tell one image from another, else no check could find a server that mixes them up. A network as torchvision makes it
answers alike to everything: so its batch normalisation sees a few images first, and its last layer is made larger. All is drawn with
fixed seeds; the weights go through `sightline export` like those of any other file.
"""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
Probabilities = npt.NDArray[np.float32]

IMAGES: Final = 8
"""Different images that are sent in turn."""

TOLERANCES: Final = {"fp32": 1e-4, "int8": 1e-3}
"""Largest |Δp| that an answer may have at most; it is smaller where two images' answers lie closer together."""


@dataclass(frozen=True)
class Kind:
    """A model of the race before it is published."""

    name: str
    title: str
    backbone: str = ""
    """torchvision's name, and the version that says how images are seen; none is a recipe of ours."""
    precision: str = "fp32"
    head_factor: float = 1.0
    """By how much the last layer's weights are made larger."""
    first_bias: float = 0.0
    """Added to the first label, so that it leads: among 1,000 labels that are all but equal, INT8 would pick another one for nothing."""
    concurrencies: tuple[int, ...] = (1, 8, 32)
    largest_batch: int = 32
    """That is worth trying in process and with a peer that batches."""

    @property
    def heavy(self) -> bool:
        """Whether a core answers a few images/s: then checks ask about fewer images, and windows are longer."""
        return 1 not in self.concurrencies


VGG16: Final = Kind("vgg16", "VGG16 FP32", "vgg16/IMAGENET1K_V1", head_factor=5.0, first_bias=4.0, concurrencies=(8, 32), largest_batch=8)

KINDS: Final = {
    kind.name: kind
    for kind in (
        Kind("mnist", "MLP (`mnist`)"),
        Kind("asl", "CNN (`asl`)"),
        Kind("fruit", "MobileNetV2 (`fruit`)", "mobilenet_v2/IMAGENET1K_V1", head_factor=20.0),
        VGG16,
        replace(VGG16, name="vgg16_int8", title="VGG16 INT8", precision="int8"),
    )
}


@dataclass(frozen=True)
class Model:
    """A published model: its file, its tensors, and images with the answers that every server must give."""

    kind: Kind
    repository: Path
    onnx: Path
    sha256: str
    input: str
    output: str
    pixels: Pixels
    """uint8 [IMAGES, H, W, C]."""
    answers: Probabilities
    """float32 [IMAGES, classes]: of ONNX Runtime in this process, each image alone."""
    tolerance: float


def published(kind: Kind, folder: Path, say: Callable[[str], None]) -> Model:
    """Return the model as it lies below `folder`, published if it is not there yet.

    Raises subprocess.CalledProcessError if its export fails, ValueError if its answers do not tell its images apart.
    """
    repository = folder / kind.name
    if not (repository / kind.name / "1" / "model.onnx").is_file():
        say(f"publishing {kind.name}, untrained")
        _publish(kind, repository, folder)
    return _opened(kind, repository)


def _publish(kind: Kind, repository: Path, folder: Path) -> None:
    """Publish with the programs of this checkout."""
    root = Path(__file__).resolve().parents[2]
    if not kind.backbone:
        _run(sys.executable, root / "scripts" / "publish_untrained.py", repository, kind.name)
        return
    weights = folder / f"{kind.backbone.partition('/')[0]}.safetensors"
    if not weights.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        _write_weights(kind, weights)
    sightline = Path(sys.executable).parent / "sightline"
    command: list[str | Path] = [sightline, "export", "--from", f"torchvision:{kind.backbone}", "--weights", weights]
    command += ["--name", kind.name, "--repository", repository, "--precision", kind.precision, "--images", "32"]
    if kind.precision == "int8":
        photos = folder / "calibration"
        draw_photos(photos, 32, (256, 256))
        command += ["--calibrate-with", photos, "--calibration", "32"]
    _run(*command)


def _run(*command: str | Path) -> None:
    subprocess.run([str(word) for word in command], check=True, stdout=subprocess.DEVNULL)


def _write_weights(kind: Kind, file: Path) -> None:
    import torch
    import torchvision
    from safetensors.torch import save_file

    torch.manual_seed(0)
    network = torchvision.models.get_model(kind.backbone.partition("/")[0], weights=None).train()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # the plain mean of what it sees
        elif isinstance(module, torch.nn.Dropout):
            module.eval()
    with torch.no_grad():
        network(torch.nn.functional.interpolate(torch.rand(8, 3, 8, 8), (224, 224), mode="bilinear") * 4 - 2)
        last = [module for module in network.modules() if isinstance(module, torch.nn.Linear)][-1]
        last.weight.mul_(kind.head_factor)
        last.bias[0] += kind.first_bias
    save_file(network.state_dict(), file)


def draw_photos(folder: Path, count: int, size: tuple[int, int], quality: int = 88) -> list[Path]:
    """Write JPEG files of `size` (width, height) that a camera might have taken: smooth shapes of every size, and a sensor's noise."""
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{number:03}.jpg" for number in range(count)]
    for number, file in enumerate(files):
        random = np.random.default_rng(number)
        scene = Image.new("RGB", size)
        for cells in (4, 16, 64):
            shapes = Image.fromarray(random.integers(0, 256, (cells * 3 // 4, cells, 3), dtype=np.uint8))
            scene = Image.blend(scene, shapes.resize(size, Image.Resampling.BICUBIC), 0.5)
        noise = random.normal(0, 4, (size[1], size[0], 1))
        Image.fromarray(np.clip(np.asarray(scene) + noise, 0, 255).astype(np.uint8)).save(file, quality=quality)
    return files


def _opened(kind: Kind, repository: Path) -> Model:
    import hashlib

    import onnxruntime

    file = repository / kind.name / "1" / "model.onnx"
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    tensor, output = session.get_inputs()[0], session.get_outputs()[0].name
    pixels = drawn_pixels(tuple(tensor.shape[1:]))
    answers = np.concatenate([session.run([output], {tensor.name: image[None]})[0] for image in pixels])
    return Model(
        kind=kind,
        repository=repository,
        onnx=file,
        sha256=hashlib.sha256(file.read_bytes()).hexdigest(),
        input=tensor.name,
        output=output,
        pixels=pixels,
        answers=answers,
        tolerance=tolerance_of(answers, TOLERANCES[kind.precision]),
    )


def drawn_pixels(shape: tuple[int, int, int]) -> Pixels:
    """Draw IMAGES images of `shape` (H, W, C): smooth colours, each in another light."""
    from PIL import Image

    random = np.random.default_rng(7)
    height, width, channels = shape
    drawn = []
    for number in range(IMAGES):
        planes = [Image.fromarray(random.integers(0, 256, (5, 5), dtype=np.uint8)).resize((width, height)) for _ in range(channels)]
        drawn.append(np.stack([np.asarray(plane) for plane in planes], axis=-1) * ((number + 1) / IMAGES))
    pixels: Pixels = np.stack(drawn).astype(np.uint8)
    return pixels


def tolerance_of(answers: Probabilities, most: float) -> float:
    """Return how far an answer may be off so that it is still nearer to its own image than to any other; at most `most`.

    Raises ValueError if two images' answers can hardly be told apart.
    """
    apart = min(float(np.abs(answers[one] - answers[other]).max()) for one in range(len(answers)) for other in range(one))
    if not apart > 1e-5:
        raise ValueError(f"two images get the same answer (|Δp| {apart:.1e}): no check could find a server that mixes them up")
    return min(most, apart / 4)
