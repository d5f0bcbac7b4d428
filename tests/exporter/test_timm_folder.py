"""Networks of timm's as a hub has them: folders without a preprocessor_config.json, and the hub's own names, from a server of our own."""

import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from sightline.errors import DataError, SightlineError, UsageError
from sightline.reformatting import reformat
from sightline_export.candidate import ExportCandidate
from sightline_export.settings import ImportSettings
from sightline_export.sources.external import import_model
from support.comparison_images import smooth

timm = pytest.importorskip("timm")
transformers = pytest.importorskip("transformers")

SEEN: dict[str, Any] = {
    "input_size": (3, 96, 96),
    "crop_pct": 1.0,
    "crop_mode": "squash",
    "interpolation": "bilinear",
    "mean": (0.0, 0.0, 0.0),
    "std": (1.0, 1.0, 1.0),
}
"""Otherwise than anything that timm publishes of the network."""


def network() -> nn.Module:
    torch.manual_seed(3)
    made: nn.Module = timm.create_model("test_resnet", num_classes=3).eval()
    return made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """As timm's own `save_for_hf` writes it, with preprocessing and labels of one's own."""
    folder = tmp_path / "pets"
    timm.models.save_for_hf(
        network(), folder, model_config={"label_names": ["cat", "dog", "fox"]}, data_config=SEEN, safe_serialization=True
    )
    return folder


def seen_by(candidate: ExportCandidate) -> tuple[object, ...]:
    spec = candidate.card.preprocess
    return spec.size, spec.fit, spec.resample, spec.mean, spec.std


AS_SAVED = ((96, 96), "stretch", "bilinear", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def answers_as_timm(candidate: ExportCandidate) -> bool:
    """Whether an image gets the answer of timm's own preprocessing and network."""
    image = smooth(0, (150, 120))
    transform = timm.data.create_transform(**timm.data.resolve_data_config(pretrained_cfg={**SEEN, "num_classes": 3}))
    with torch.inference_mode():
        ours = candidate.network()(torch.from_numpy(reformat(image, candidate.card.preprocess)[None]))
        theirs = torch.softmax(network()(transform(image)[None]), dim=1)
    return bool(torch.allclose(ours, theirs, atol=1e-6))


@pytest.mark.parametrize("source", ["timm:{}", "timm:local-dir:{}", "huggingface:{}"])
def test_a_folder_of_timms_is_imported_with_its_own_labels_and_preprocessing(source: str, folder: Path) -> None:
    said: list[str] = []
    candidate = import_model(source.format(folder), notify=said.append)
    assert (candidate.card.name, candidate.card.labels) == ("pets", ("cat", "dog", "fox"))
    assert seen_by(candidate) == AS_SAVED
    assert candidate.provenance["from"] == "timm:pets"
    assert candidate.provenance["weights"] == "file model.safetensors"
    assert said[0] == "images are stretched to 96 x 96 pixels (bilinear), RGB, mean 0, deviation 1: config.json"
    assert answers_as_timm(candidate)
    origin = candidate.preprocess_origin
    assert origin is not None
    assert (origin.source, origin.assumed) == ("config.json", False)


def test_a_state_dict_of_torch_serves_where_there_is_no_safetensors_file(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({f"module.{name}": tensor for name, tensor in network().state_dict().items()}, folder / "pytorch_model.bin")
    candidate = import_model(f"timm:{folder}")
    assert candidate.provenance["weights"] == "file pytorch_model.bin (without the prefix module.)"
    assert answers_as_timm(candidate)
    (folder / "pytorch_model.bin").unlink()
    with pytest.raises(DataError, match=r"^timm:pets holds no weights: model\.safetensors or pytorch_model\.bin is expected beside config"):
        import_model(f"timm:{folder}")
    assert import_model(f"timm:{folder}", ImportSettings(weights="random")).provenance["weights"] == "random"


def test_what_transformers_wraps_around_a_network_of_timms_is_taken_off(folder: Path) -> None:
    state = safetensors.torch.load_file(folder / "model.safetensors")
    wrapped = {f"timm_model.{name}": tensor for name, tensor in state.items()}
    safetensors.torch.save_file(wrapped, folder / "model.safetensors")
    described = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({"model_type": "timm_wrapper", "architectures": ["TimmWrapper"], **described}))
    candidate = import_model(f"huggingface:{folder}")
    assert candidate.provenance["weights"] == "file model.safetensors (without the prefix timm_model.)"
    assert answers_as_timm(candidate)


def test_the_config_beside_a_file_says_how_it_sees_and_what_its_classes_are_called(folder: Path) -> None:
    said: list[str] = []
    candidate = import_model("timm:test_resnet", ImportSettings(weights=str(folder / "model.safetensors")), said.append)
    assert (candidate.card.name, candidate.card.labels, seen_by(candidate)) == ("test_resnet", ("cat", "dog", "fox"), AS_SAVED)
    assert said[0] == "images are stretched to 96 x 96 pixels (bilinear), RGB, mean 0, deviation 1: config.json beside model.safetensors"
    assert candidate.provenance["from"] == "timm:test_resnet"
    assert answers_as_timm(candidate)


def test_the_config_of_another_network_beside_a_file_is_not_heeded_and_that_is_noted(folder: Path, tmp_path: Path) -> None:
    described = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**described, "architecture": "resnet18"}))
    (tmp_path / "labels.txt").write_text("cat\ndog\nfox\n")
    settings = ImportSettings(weights=str(folder / "model.safetensors"), labels=tmp_path / "labels.txt")
    said: list[str] = []
    candidate = import_model("timm:test_resnet", settings, said.append)
    assert "note: config.json beside model.safetensors is of resnet18, and was not heeded" in said
    assert seen_by(candidate)[0] == (160, 160)
    # What is no file of timm's is none of its business.
    (folder / "config.json").write_text('{"lr": 0.1}')
    assert import_model("timm:test_resnet", settings, said.append).provenance["notes"] == []


def test_the_config_of_the_weights_that_a_file_was_made_from_is_an_assumption(folder: Path, tmp_path: Path) -> None:
    described = json.loads((folder / "config.json").read_text())
    described |= {"num_classes": 1000, "label_names": None, "model_args": {"num_classes": 1000}}
    (folder / "config.json").write_text(json.dumps(described))
    (tmp_path / "labels.txt").write_text("cat\ndog\nfox\n")
    said: list[str] = []
    settings = ImportSettings(weights=str(folder / "model.safetensors"), labels=tmp_path / "labels.txt")
    assert answers_as_timm(import_model("timm:test_resnet", settings, said.append))
    assert said[0] == (
        "warning: it is assumed that images are stretched to 96 x 96 pixels (bilinear), RGB, mean 0, deviation 1: config.json beside "
        "model.safetensors. Nobody says so of model.safetensors: that config.json is of a network of 1,000 classes. State the "
        "preprocessing if it was trained with another"
    )


@pytest.mark.parametrize(
    ("changes", "error", "sentence"),
    [
        ({"architecture": "resnet_of_mine"}, UsageError, " has no network 'resnet_of_mine'"),
        ({"architecture": 3}, DataError, " holds no config.json of timm's, which names an architecture and a pretrained_cfg"),
        ({"num_classes": 0, "model_args": {}}, UsageError, "timm:pets has no classes, only features: "),
        ({"num_classes": 10**12, "model_args": {}, "label_names": []}, UsageError, "timm does not know what the 1,000,000,000,000 classes"),
        ({"label_names": ["cat"]}, UsageError, "timm does not know what the 3 classes of timm:pets are called: name them in a text file"),
        (
            {"model_args": {"checkpoint_path": "/etc/passwd", "pretrained": True}},
            UsageError,
            "timm:pets: config.json has the model_args checkpoint_path, pretrained, which are no arguments of a network",
        ),
        ({"model_args": {"num_classes": 5}}, UsageError, "timm:pets: config.json describes a network of 5 classes: 2 to 100,000"),
        ({"model_args": {"channels": [64, 2**20, 2**20, 64]}}, UsageError, "timm:pets: config.json describes a network of "),
        ({"model_args": {"depth_of": 3}}, UsageError, "timm:pets: timm cannot build the network that config.json describes ("),
        ({"pretrained_cfg": {**SEEN, "crop_pct": 0.9}}, UsageError, "a card can stretch or crop, not both. (Settings: preprocess)"),
        ({"pretrained_cfg": {**SEEN, "input_size": [3]}}, UsageError, "is none that timm could have written: "),
        ({"pretrained_cfg": 3}, DataError, "config.json: damaged: pretrained_cfg: Input should be a valid dictionary"),
        ({"pretrained_cfg": {**SEEN, "mean": "grey"}}, UsageError, "is none that timm could have written: "),
    ],
)
def test_a_config_that_cannot_be_imported_is_refused_with_the_reason(
    changes: dict[str, Any], error: type[SightlineError], sentence: str, folder: Path
) -> None:
    described = {**json.loads((folder / "config.json").read_text()), **changes}
    (folder / "config.json").write_text(json.dumps(described))
    with pytest.raises(error) as refused:
        import_model(f"timm:{folder}")
    settings = f" (Settings: {', '.join(refused.value.settings)})" if refused.value.settings else ""
    assert sentence in f"{refused.value}{settings}"


def test_what_a_card_cannot_say_of_a_config_is_imported_once_the_whole_is_stated(folder: Path, tmp_path: Path) -> None:
    described = json.loads((folder / "config.json").read_text())
    described["pretrained_cfg"] |= {"crop_pct": 0.9}
    (folder / "config.json").write_text(json.dumps(described))
    with pytest.raises(UsageError, match="a card can stretch or crop, not both"):
        import_model(f"timm:{folder}", ImportSettings(preprocess=("exif=ignore",)))
    (tmp_path / "seen.json").write_text(json.dumps({"architecture": "test_resnet", "pretrained_cfg": SEEN}))
    assert seen_by(import_model(f"timm:{folder}", ImportSettings(preprocess=(str(tmp_path / "seen.json"),)))) == AS_SAVED


def test_tensors_that_do_not_fit_are_named(folder: Path) -> None:
    state = safetensors.torch.load_file(folder / "model.safetensors")
    for changes, sentence in (
        ({"more": torch.zeros(1)}, r"model\.safetensors: the tensor 'more' does not belong to pets\.$"),
        ({"fc.bias": torch.zeros(4)}, r"the tensor fc\.bias has the shape \[4\]; the network needs \[3\]\.$"),
        ({"fc.bias": torch.full((3,), np.nan)}, r"the tensor fc\.bias holds values that are no finite numbers\.$"),
    ):
        safetensors.torch.save_file({**state, **changes}, folder / "model.safetensors")
        with pytest.raises(DataError, match=sentence):
            import_model(f"timm:{folder}")
    with pytest.raises(DataError, match=r"holds no config\.json of timm's, which names an architecture and a pretrained_cfg$"):
        import_model(f"timm:{folder.parent}")


# ---- the hub, from a server of our own

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """Serves the few routes of the hub that a download takes."""

    folder: Path
    url: str = ""
    asked: list[str] = field(default_factory=list)
    claimed_bytes: int | None = None


@pytest.fixture
def hub(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    state = Hub(folder)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, *, body: bool) -> None:
            state.asked.append(f"{self.command} {self.path}")
            parts = self.path.partition("?")[0].split("/")
            file = folder / parts[-1]
            if parts[1:4] != ["mine", "pets", "resolve"] or parts[4] not in ("main", "v1", COMMIT) or not file.is_file():
                self.send_response(404)
                self.send_header("X-Error-Code", "EntryNotFound" if parts[1:3] == ["mine", "pets"] else "RepoNotFound")
                self.send_header("X-Repo-Commit", COMMIT)
                self.end_headers()
                return
            content = file.read_bytes()
            claimed = state.claimed_bytes if state.claimed_bytes is not None and file.suffix == ".safetensors" else len(content)
            self.send_response(200)
            self.send_header("Content-Length", str(claimed))
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.end_headers()
            if body:
                self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    state.url = f"http://127.0.0.1:{server.server_port}"
    yield state
    server.shutdown()
    server.server_close()


def ask(hub: Hub, source: str, home: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Import in a process of its own: huggingface_hub reads its address when it is imported. Prints what the candidate is."""
    program = (
        "import sys; from sightline.errors import SightlineError; from sightline_export.sources.external import import_model\n"
        "try: candidate = import_model(sys.argv[1])\n"
        "except SightlineError as error: sys.exit(f'{type(error).__name__}: {error}')\n"
        "print(candidate.card.name, *candidate.card.labels, candidate.card.preprocess.size[0], candidate.provenance['from'],\n"
        "      candidate.provenance['weights'], candidate.preprocess_origin.source, sep='|')"
    )
    settings = {"HF_ENDPOINT": hub.url, "HF_HOME": str(home), "no_proxy": "127.0.0.1", "HF_HUB_DISABLE_TELEMETRY": "1", **environment}
    return subprocess.run(
        [sys.executable, "-c", program, source], env={**os.environ, **settings}, capture_output=True, text=True, timeout=240, check=False
    )


def test_a_name_of_the_hub_is_fetched_once_and_is_there_without_the_hub_from_then_on(hub: Hub, tmp_path: Path) -> None:
    done = ask(hub, "timm:hf-hub:mine/pets@v1", tmp_path / "home")
    expected = f"pets|cat|dog|fox|96|timm:hf-hub:mine/pets@{COMMIT[:12]}|file model.safetensors|config.json of hf-hub:mine/pets"
    assert done.stdout.strip() == expected, done.stderr
    assert "HEAD /mine/pets/resolve/v1/config.json" in hub.asked
    # Whatever happens meanwhile, all files are of one commit.
    assert f"HEAD /mine/pets/resolve/{COMMIT}/model.safetensors" in hub.asked
    hub.asked.clear()
    offline = ask(hub, "timm:hf-hub:mine/pets@v1", tmp_path / "home", HF_HUB_OFFLINE="1")
    assert offline.stdout.strip() == expected, offline.stderr
    assert hub.asked == []


# A minute: the hub's own library waits between its attempts.
@pytest.mark.slow
def test_what_the_hub_does_not_have_or_has_too_much_of_is_refused_with_the_reason(hub: Hub, tmp_path: Path) -> None:
    hub.claimed_bytes = 5 * 1024**3
    too_large = ask(hub, "timm:hf-hub:mine/pets", tmp_path / "home")
    assert too_large.stderr.strip() == (
        "DataError: hf-hub:mine/pets: model.safetensors has 5,368,709,120 bytes; 4,096 MiB are the most that is fetched"
    )
    assert not any(asked.startswith("GET") and "safetensors" in asked for asked in hub.asked)
    unknown = ask(hub, "timm:hf-hub:somebody/nothing", tmp_path / "home")
    assert unknown.stderr.startswith("DataError: config.json of hf-hub:somebody/nothing could not be fetched from the Hugging Face hub (")
    assert unknown.stderr.strip().endswith("Fetch the files elsewhere and name the folder that they lie in.")
    nobody = ask(Hub(hub.folder, "http://127.0.0.1:1"), "timm:hf-hub:mine/other", tmp_path / "home")
    assert "\nDataError: config.json of hf-hub:mine/other could not be fetched from the Hugging Face hub (" in nobody.stderr
    (hub.folder / "config.json").write_text("{}")
    foreign = ask(hub, "timm:hf-hub:mine/pets", tmp_path / "other")
    assert (
        foreign.stderr.strip()
        == "DataError: hf-hub:mine/pets has no config.json of timm's, which names an architecture and a pretrained_cfg"
    )
