"""The weights of a backbone: read from a file, a run, or torchvision's downloads; checked tensor by tensor before a network sees them."""

import hashlib
import io
import pickle
import re
import socket
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from sightline.card import MAX_SEALED_BYTES, unseal
from sightline.errors import DataError
from sightline.preprocess import Preprocess
from sightline_training.networks.backbones import Backbone, Part, built, last_layer, preprocess_of, published, structure
from sightline_training.networks.transfer import Headed
from sightline_training.progress import talk

MAX_WEIGHTS_BYTES: Final = 4 * 1024**3
"""The largest of torchvision's files (RegNet Y 128GF) has 2.4 GiB."""

TRUNK: Final = "body.trunk."
HEAD: Final = "body.head."
"""How the names of a transferred run's tensors begin."""

AUXILIARY: Final = ("AuxLogits.", "aux1.", "aux2.")
"""Second classifiers of GoogLeNet and Inception, which only their own training needs."""

FORMER_NAMES: Final = (
    (re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)"), r"\1\2"),
    (re.compile(r"(\.mlp\.)linear_1\."), r"\g<1>0."),
    (re.compile(r"(\.mlp\.)linear_2\."), r"\g<1>3."),
)
"""What torchvision's own loaders rename in the files that it published for DenseNet and the vision transformer
(torchvision.models.densenet._load_state_dict, torchvision.models.vision_transformer.MLPBlock)."""

FETCH_TIMEOUT_S: Final = 30.0
"""Of silence on the line, not of the whole download."""


@dataclass(frozen=True, eq=False)
class Weights:
    """Weights of one backbone under torchvision's names, complete but perhaps for the last layer's."""

    state: Mapping[str, Tensor] = field(repr=False)
    """Float32 (and int64 counters), finite, of the shapes that the backbone needs; the last layer's are as they came, if they came."""
    source: str
    """Where they are from, for people: no path."""
    sha256: str
    """Hexadecimal, of the file's bytes; of random weights, of their names and values."""
    part: Part
    """How much of the backbone they fill."""
    preprocess: Preprocess | None
    """How they see an image, if that is known of these very weights."""
    of_run: bool = False
    """Whether a run of ours made them."""


def weights_from(name: str, option: str | None, version: str | None = None) -> Weights:
    """Weights for torchvision's classifier `name`.

    `option` is None (those that torchvision published as `version`, or its best ones, fetched unless torch's cache has them), `random`
    (always the same ones), a file (safetensors, or a state dict that `torch.save` wrote: the whole network, or its `features` alone),
    or the folder of a run that was itself built on that classifier or on its features. A file is recognised as one that torchvision
    published by its sha256. Raises UsageError if there is no such classifier, DataError if the weights are missing, damaged or another
    network's.
    """
    versions = published(name)
    if option is None:
        return _fetched(name, version)
    if option == "random":
        return _random(name)
    path = Path(option)
    if path.is_dir():
        return _of_run(name, path)
    content = _bytes_of(path, MAX_WEIGHTS_BYTES)
    digest = hashlib.sha256(content).hexdigest()
    known = next((version for version, weights in versions.items() if digest.startswith(_hash_in(weights.url))), None)
    state, part = _checked(_parsed(content, path), name, path)
    called = f"file {path.name}" if known is None else f"file {path.name}, torchvision's {versions[known]}"
    return Weights(state, called, digest, part, None if known is None else preprocess_of(Backbone(name), known))


def weights_in(path: Path) -> tuple[Mapping[str, Tensor], str]:
    """Names and tensors of a safetensors file or of a state dict that `torch.save` wrote, and the file's sha256 (hexadecimal).

    Nothing in the file is executed. Raises DataError if it is missing, too large, damaged or holds anything but tensors.
    """
    content = _bytes_of(path, MAX_WEIGHTS_BYTES)
    return _parsed(content, path), hashlib.sha256(content).hexdigest()


def sha256_of(state: Mapping[str, Tensor]) -> str:
    """Hexadecimal, of the tensors' names and values: the identity of weights that are no single file."""
    digest = hashlib.sha256()
    for name, tensor in state.items():
        digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def pour(module: nn.Module, weights: Weights) -> None:
    """Copy `weights` into a network, or into the trunk of one with a head; what it has cut off stays behind.

    Raises DataError, naming the tensor, if one that it needs is missing or has another shape.
    """
    with torch.no_grad():
        for name, wanted in (module.trunk if isinstance(module, Headed) else module).state_dict().items():
            found = weights.state.get(name)
            if found is None:
                raise DataError(f"{weights.source}: the tensor {name} is missing.")
            if found.shape != wanted.shape:
                raise _misshapen(weights.source, name, found, wanted)
            wanted.copy_(found)


def _random(name: str) -> Weights:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        state = built(name).state_dict()
    return Weights(state, "random", sha256_of(state), "network", None)


def _of_run(name: str, folder: Path) -> Weights:
    path = folder / "weights.safetensors"
    if not path.is_file():
        raise DataError(f"{folder} holds no finished run (no {path.name}) to take weights from.")
    card = unseal(_bytes_of(folder / "card.json", MAX_SEALED_BYTES), str(folder / "card.json"))
    content = _bytes_of(path, MAX_WEIGHTS_BYTES)
    named = _parsed(content, path)
    if not any(each.startswith(TRUNK) for each in named):
        raise DataError(f"{path}: the run of {card.name} has no trunk to transfer from.")
    trunk = {each.removeprefix(TRUNK): tensor for each, tensor in named.items() if not each.startswith(HEAD)}
    state, part = _checked(trunk, name, path)
    return Weights(state, f"run of {card.name}", hashlib.sha256(content).hexdigest(), part, card.preprocess, of_run=True)


def _fetched(name: str, version: str | None) -> Weights:
    from torchvision.models import get_model_weights

    best = get_model_weights(name).DEFAULT if version is None else published(name)[version]
    wanted = _hash_in(best.url)
    path = Path(torch.hub.get_dir(), "checkpoints", best.url.rpartition("/")[2])
    if not path.is_file():
        console = talk()
        console.print(f"fetching the weights of {name} ({best}) into {path.parent}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with _silence_limited_to(FETCH_TIMEOUT_S):
                torch.hub.download_url_to_file(best.url, str(path), wanted, progress=console.is_terminal)
        except (OSError, RuntimeError) as error:
            reason = getattr(error, "reason", error)
            raise DataError(
                f"the weights of {name} could not be fetched from {best.url} ({getattr(reason, 'strerror', None) or reason}). Fetch the "
                "file elsewhere and name it with `--weights FILE`, or see whether everything runs with `--weights random`."
            ) from None
    content = _bytes_of(path, MAX_WEIGHTS_BYTES)
    digest = hashlib.sha256(content).hexdigest()
    if not digest.startswith(wanted):
        raise DataError(f"{path}: its sha256 does not begin with {wanted}, so that it is damaged. Delete it, and it is fetched again.")
    state, part = _checked(_parsed(content, path), name, path)
    return Weights(state, f"torchvision's {best}", digest, part, preprocess_of(Backbone(name), best.name))


def _hash_in(url: str) -> str:
    """The beginning of the file's sha256, which torchvision writes into its name."""
    found = re.search(r"-([0-9a-f]{8,64})\.pth$", url)
    if found is None:
        raise DataError(f"torchvision names no hash of {url}, so that what is fetched from there cannot be checked.")
    return found[1]


@contextmanager
def _silence_limited_to(timeout_s: float) -> Iterator[None]:
    """The library opens its connections without a timeout of its own."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(timeout_s)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _bytes_of(path: Path, most: int) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(most + 1)
    except FileNotFoundError:
        raise DataError(f"there is no file or run folder {path} to take weights from.") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}.") from None
    if len(content) > most:
        raise DataError(f"{path}: larger than {most:,} bytes, the most that such a file may have.")
    return content


def _parsed(content: bytes, path: Path) -> Mapping[str, Tensor]:
    """Names and tensors of a file of either kind. Nothing in it is executed."""
    try:
        # A safetensors file begins with the length of its header, and the header is a JSON object.
        found: Any = safetensors.torch.load(content) if content[8:9] == b"{" else _state_dict_in(content, path)
    except DataError:
        raise
    except Exception as error:  # noqa: BLE001 - torch raises nearly anything on a damaged file
        reason = str(error).partition("\n")[0][:200] or type(error).__name__
        if isinstance(error, pickle.UnpicklingError):
            reason = "it is damaged, or holds more than tensors and could run code when it is opened"
        raise DataError(
            f"{path}: neither a safetensors file nor a state dict of torch ({reason}). Save `model.state_dict()` alone."
        ) from None
    if not isinstance(found, Mapping) or not found or not all(isinstance(each, str) for each in found):
        raise DataError(f"{path}: {type(found).__name__} where names with tensors were expected. Save `model.state_dict()` alone.")
    for name, tensor in found.items():
        if not isinstance(tensor, Tensor) or not _plain(tensor, len(content)):
            raise DataError(f"{path}: {name!r:.80} is no plain tensor. Save `model.state_dict()` alone.")
    return found


def _plain(tensor: Tensor, most: int) -> bool:
    """Whether its elements stand one by one in a file of `most` bytes: a view that repeats one of them may claim any number."""
    if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
        return False
    return tensor.numel() * tensor.element_size() <= most


def _state_dict_in(content: bytes, path: Path) -> object:
    if zipfile.is_zipfile(io.BytesIO(content)):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
        if unpacked > MAX_WEIGHTS_BYTES:
            raise DataError(f"{path}: {unpacked:,} bytes unpacked, more than the {MAX_WEIGHTS_BYTES:,} that weights may have.")
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


def _checked(named: Mapping[str, Tensor], network: str, path: Path) -> tuple[dict[str, Tensor], Part]:
    """The tensors under today's names, and how much of the network they are, if every one of them belongs to it and fits."""
    found: dict[str, Tensor] = {}
    for former, tensor in named.items():
        name = former
        for pattern, today in FORMER_NAMES:
            name = pattern.sub(today, name)
        if not name.startswith(AUXILIARY):
            found[name] = tensor
    skeleton = structure(network)
    wanted, last = skeleton.state_dict(), f"{last_layer(skeleton)}."
    part: Part = "features" if found and all(name.startswith("features.") for name in found) else "network"
    if part == "features":
        wanted = {name: tensor for name, tensor in wanted.items() if name.startswith("features.")}
    for name in sorted(found):
        if name not in wanted:
            raise DataError(f"{path}: the tensor {name!r:.120} does not belong to {network}.")
    state: dict[str, Tensor] = {}
    for name, expected in wanted.items():
        if name in found:
            # A network that told other classes apart is as good a trunk.
            state[name] = _fitted(found[name], found[name] if name.startswith(last) else expected, name, path)
        elif name.endswith(".num_batches_tracked"):
            # Files from before torch 0.4.1 do not count batches; only training from scratch would ask.
            state[name] = torch.zeros((), dtype=torch.int64)
        elif not name.startswith(last):
            raise DataError(f"{path}: the tensor {name} is missing, which {network} needs.")
    return state, part


def _fitted(found: Tensor, wanted: Tensor, name: str, path: Path) -> Tensor:
    # Shapes first: a stranger's tensor may claim more elements than its file has bytes.
    if found.shape != wanted.shape:
        raise _misshapen(str(path), name, found, wanted)
    if found.dtype != wanted.dtype and not (found.is_floating_point() and wanted.is_floating_point()):
        raise DataError(f"{path}: the tensor {name} is {found.dtype}; the network needs {wanted.dtype}.")
    fitted = found.detach().to(wanted.dtype).contiguous()
    if fitted.is_floating_point() and not bool(torch.isfinite(fitted).all()):
        raise DataError(f"{path}: the tensor {name} holds values that are no finite numbers.")
    return fitted


def _misshapen(where: str, name: str, found: Tensor, wanted: Tensor) -> DataError:
    return DataError(f"{where}: the tensor {name} has the shape {list(found.shape)}; the network needs {list(wanted.shape)}.")
