"""Weights come from files, runs and downloads; whatever does not belong to the network is refused by the name of its tensor."""

import hashlib
import http.server
import io
import os
import re
import threading
import zipfile
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from torchvision.transforms._presets import ImageClassification

from sightline.card import ModelCard, seal
from sightline.errors import ContractError, DataError, UsageError
from sightline.reformatting import reformat
from sightline_training.datasets.imagenet_labels import LABELS
from sightline_training.networks import weight_files
from sightline_training.networks.backbones import Backbone, built, feature_count, preprocess_of, trunk_of, whole
from sightline_training.networks.transfer import Transferred
from sightline_training.networks.weights import load_weights, weights_from
from sightline_training.networks.wrappers import Answering, Network, probabilities_of
from sightline_training.recipes.cifar10 import CARD as SMALL_COLOUR_IMAGES

NAME = "mobilenet_v3_small"
BACKBONE = Backbone(NAME)

State = dict[str, Tensor]


@pytest.fixture(scope="module")
def random_state() -> State:
    return dict(weights_from(NAME, "random").state)


@pytest.fixture
def state(random_state: State) -> State:
    """A whole network's tensors, to change at will."""
    return dict(random_state)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "given.safetensors"


def _saved(state: State, path: Path) -> str:
    safetensors.torch.save_file({name: tensor.contiguous() for name, tensor in state.items()}, path)
    return str(path)


def _refusal(option: str | None, name: str = NAME) -> str:
    with pytest.raises(DataError) as refused:
        weights_from(name, option)
    return str(refused.value)


def _same(state: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]) -> bool:
    return state.keys() == expected.keys() and all(torch.equal(tensor, expected[name]) for name, tensor in state.items())


def test_a_safetensors_file_fills_the_whole_network(state: State, path: Path) -> None:
    weights = weights_from(NAME, _saved(state, path))
    assert _same(weights.state, state)
    assert (weights.part, weights.source, weights.preprocess) == ("network", "file given.safetensors", None)
    assert weights.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    network = whole(BACKBONE)
    load_weights(network, weights)
    assert _same(network.state_dict(), state)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_state_dict_of_torch_is_read_in_its_present_and_its_former_format(state: State, tmp_path: Path, zipped: bool) -> None:
    torch.save(state, tmp_path / "given.pth", _use_new_zipfile_serialization=zipped)
    assert _same(weights_from(NAME, str(tmp_path / "given.pth")).state, state)


def test_features_alone_are_told_by_their_names(state: State, path: Path) -> None:
    features = {name: tensor for name, tensor in state.items() if name.startswith("features.")}
    weights = weights_from(NAME, _saved(features, path))
    assert weights.part == "features"
    trunk = trunk_of(Backbone(NAME, weights.part))
    load_weights(trunk, weights)
    assert _same(trunk.state_dict(), features)


def test_weights_go_into_the_trunk_of_a_network_with_a_head_and_leave_the_head_alone(state: State, path: Path) -> None:
    body = Transferred(trunk_of(BACKBONE), nn.Linear(feature_count(BACKBONE), 2))
    head = {name: tensor.clone() for name, tensor in body.head.state_dict().items()}
    load_weights(body, weights_from(NAME, _saved(state, path)))
    assert _same(body.head.state_dict(), head)
    assert all(torch.equal(tensor, state[name]) for name, tensor in body.trunk.state_dict().items())


def test_what_is_loaded_is_a_copy(state: State, path: Path) -> None:
    weights, trunk = weights_from(NAME, _saved(state, path)), trunk_of(BACKBONE)
    load_weights(trunk, weights)
    with torch.no_grad():
        next(iter(trunk.parameters())).zero_()
    assert _same(weights.state, state)


def test_a_network_that_told_other_classes_apart_is_as_good_a_trunk(state: State, path: Path) -> None:
    state |= {"classifier.3.weight": torch.zeros(7, 1024), "classifier.3.bias": torch.zeros(7)}
    weights = weights_from(NAME, _saved(state, path))
    load_weights(trunk_of(BACKBONE), weights)
    with pytest.raises(DataError) as refused:
        load_weights(whole(BACKBONE), weights)
    message = "file given.safetensors: the tensor classifier.3.weight has the shape [7, 1024]; the network needs [1000, 1024]."
    assert str(refused.value) == message


def test_without_its_last_layer_a_network_is_a_trunk_but_not_a_classifier(state: State, path: Path) -> None:
    del state["classifier.3.weight"], state["classifier.3.bias"]
    weights = weights_from(NAME, _saved(state, path))
    assert weights.part == "network"
    load_weights(trunk_of(BACKBONE), weights)
    with pytest.raises(DataError) as refused:
        load_weights(whole(BACKBONE), weights)
    assert str(refused.value) == "file given.safetensors: the tensor classifier.3.weight is missing."


def test_half_precision_becomes_single_and_a_missing_count_of_batches_nought(state: State, path: Path) -> None:
    halved = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    del halved["features.0.1.num_batches_tracked"]
    weights = weights_from(NAME, _saved(halved, path)).state
    assert weights["features.0.0.weight"].dtype == torch.float32
    assert torch.equal(weights["features.0.0.weight"], state["features.0.0.weight"].half().float())
    assert weights["features.0.1.num_batches_tracked"] == 0


def test_a_missing_tensor_is_named(state: State, path: Path) -> None:
    del state["features.0.1.bias"]
    assert _refusal(_saved(state, path)) == f"{path}: the tensor features.0.1.bias is missing, which mobilenet_v3_small needs."


def test_a_tensor_too_many_is_named(state: State, path: Path) -> None:
    state["features.99.weight"] = torch.zeros(1)
    assert _refusal(_saved(state, path)) == f"{path}: the tensor 'features.99.weight' does not belong to mobilenet_v3_small."


def test_a_tensor_of_another_shape_is_named_with_both_shapes(state: State, path: Path) -> None:
    state["features.0.0.weight"] = torch.zeros(16, 1, 3, 3)
    message = f"{path}: the tensor features.0.0.weight has the shape [16, 1, 3, 3]; the network needs [16, 3, 3, 3]."
    assert _refusal(_saved(state, path)) == message


def test_a_tensor_of_another_kind_is_named(state: State, path: Path) -> None:
    state["features.0.0.weight"] = state["features.0.0.weight"].to(torch.int32)
    assert _refusal(_saved(state, path)) == f"{path}: the tensor features.0.0.weight is torch.int32; the network needs torch.float32."


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_value_that_is_no_number_is_refused(state: State, path: Path, value: float) -> None:
    state["features.0.0.weight"] = torch.full((16, 3, 3, 3), 0.5).index_fill(0, torch.tensor([3]), value)
    assert _refusal(_saved(state, path)) == f"{path}: the tensor features.0.0.weight holds values that are no finite numbers."


def test_the_weights_of_another_network_are_refused(state: State, path: Path) -> None:
    assert _refusal(_saved(state, path), "resnet18") == f"{path}: the tensor 'classifier.0.bias' does not belong to resnet18."


def test_there_must_be_such_a_network_before_a_file_is_opened(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Did you mean mobilenet_v3_small"):
        weights_from("mobilenet_v3_smal", str(tmp_path / "none"))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert _refusal(str(tmp_path / "none")) == f"there is no file or run folder {tmp_path / 'none'} to take weights from."


def test_a_file_that_would_run_code_is_refused_and_runs_none(state: State, tmp_path: Path) -> None:
    proof = tmp_path / "it ran"

    class Hostile:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(proof),)

    torch.save({**state, "more": Hostile()}, tmp_path / "given.pth")
    reason = "besides tensors it holds posix.mkdir, which could run code when it is opened"
    advice = "In the program that wrote it, save the tensors alone: `model.state_dict()`, or a checkpoint's `state_dict`."
    assert _refusal(str(tmp_path / "given.pth")) == (
        f"{tmp_path / 'given.pth'}: neither a safetensors file nor a state dict of torch ({reason}). {advice}"
    )
    assert not proof.exists()


def _pickled(thing: object) -> bytes:
    file = io.BytesIO()
    torch.save(thing, file)
    return file.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello",
        b"\x08\0\0\0\0\0\0\0{" + b"}" * 7,
        b"\xff" * 8 + b"{}",
        b"PK\x03\x04 and no more",
        _pickled({"features.0.0.weight": torch.zeros(16, 3, 3, 3)})[:-100],
        _pickled(nn.Linear(2, 2)),
        _pickled([torch.zeros(3)]),
        _pickled(torch.zeros(3)),
        _pickled({}),
        _pickled({"epoch": 3}),
        _pickled({3: torch.zeros(3)}),
        _pickled({"state_dict": {"features.0.0.weight": torch.zeros(16, 3, 3, 3)}}),
        _pickled({"features.0.0.weight": torch.zeros(16, 3, 3, 3).to_sparse()}),
        _pickled({"features.0.0.weight": torch.zeros(1).expand(10**12)}),
    ],
)
def test_anything_but_names_with_tensors_is_refused_in_one_sentence(content: bytes, path: Path) -> None:
    path.write_bytes(content)
    message = _refusal(str(path))
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    assert len(message) < 500


def test_a_larger_file_than_any_network_has_is_not_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weight_files, "MAX_WEIGHTS_BYTES", 1000)
    path.write_bytes(bytes(1001))
    assert _refusal(str(path)) == f"{path}: cannot be read: larger than 1,000 bytes, the most that such a file may have."


def test_a_small_file_that_unpacks_to_a_large_one_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weight_files, "MAX_WEIGHTS_BYTES", 100_000)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data/0", bytes(200_000))
    assert path.stat().st_size < 1000
    assert _refusal(str(path)) == f"{path}: 200,000 bytes unpacked, more than the 100,000 that weights may have."


def test_auxiliary_heads_are_left_out(path: Path) -> None:
    from torchvision.models import googlenet

    torch.manual_seed(0)
    state = googlenet(weights=None, init_weights=False, aux_logits=True).state_dict()
    state = {name: torch.nan_to_num(tensor) for name, tensor in state.items()}
    assert "aux1.fc2.weight" in state
    weights = weights_from("googlenet", _saved(state, path)).state
    assert weights.keys() == built("googlenet").state_dict().keys()


def test_the_names_that_torchvisions_files_of_densenet_still_have_are_read(path: Path) -> None:
    state = weights_from("densenet121", "random").state
    former = {re.sub(r"(denselayer\d+\.(?:norm|conv))([12])\.", r"\1.\2.", name): tensor for name, tensor in state.items()}
    assert "features.denseblock1.denselayer1.norm.1.weight" in former
    assert _same(weights_from("densenet121", _saved(former, path)).state, dict(state))


@pytest.mark.slow
def test_the_names_that_torchvisions_files_of_the_vision_transformer_still_have_are_read(path: Path) -> None:
    state = weights_from("vit_b_32", "random").state
    former = {name.replace(".mlp.0.", ".mlp.linear_1.").replace(".mlp.3.", ".mlp.linear_2."): tensor for name, tensor in state.items()}
    assert former.keys() != state.keys()
    assert _same(weights_from("vit_b_32", _saved(former, path)).state, dict(state))


def test_random_weights_are_always_the_same_and_disturb_no_other_draw(random_state: State) -> None:
    before = torch.random.get_rng_state()
    again = weights_from(NAME, "random")
    assert torch.equal(torch.random.get_rng_state(), before)
    assert _same(dict(again.state), random_state)
    assert (again.source, again.part, again.preprocess) == ("random", "network", None)
    assert again.sha256 == weights_from(NAME, "random").sha256


# ---- a run's folder


@pytest.fixture
def run(state: State, tmp_path: Path) -> Path:
    """What a finished transfer leaves: its own preprocessing, a trunk, a head."""
    folder = tmp_path / "flowers"
    folder.mkdir()
    card = ModelCard(name="flowers", description="", labels=("a", "b"), preprocess=SMALL_COLOUR_IMAGES.preprocess, max_batch_size=1)
    (folder / "card.json").write_text(seal(card))
    trunk = {f"body.trunk.{name}": tensor for name, tensor in state.items() if not name.startswith("classifier.3.")}
    _saved(trunk | {"body.head.weight": torch.zeros(2, 1024), "body.head.bias": torch.zeros(2)}, folder / "weights.safetensors")
    return folder


def test_a_run_gives_its_trunk_and_its_preprocessing(run: Path, state: State) -> None:
    weights = weights_from(NAME, str(run))
    assert (weights.part, weights.source) == ("network", "run of flowers")
    assert weights.preprocess == SMALL_COLOUR_IMAGES.preprocess
    assert weights.sha256 == hashlib.sha256((run / "weights.safetensors").read_bytes()).hexdigest()
    trunk = trunk_of(BACKBONE)
    load_weights(trunk, weights)
    assert all(torch.equal(tensor, state[name]) for name, tensor in trunk.state_dict().items())


def test_a_run_on_the_convolutional_part_gives_that(run: Path, state: State) -> None:
    features = {f"body.trunk.{name}": tensor for name, tensor in state.items() if name.startswith("features.")}
    _saved(features | {"body.head.weight": torch.zeros(2, 576)}, run / "weights.safetensors")
    weights = weights_from(NAME, str(run))
    assert weights.part == "features"
    load_weights(trunk_of(Backbone(NAME, "features")), weights)


def test_a_run_on_another_network_is_refused_by_the_name_of_a_tensor(run: Path) -> None:
    message = _refusal(str(run), "vgg16_bn")
    assert message == f"{run / 'weights.safetensors'}: the tensor 'features.0.0.weight' does not belong to vgg16_bn."


def test_a_run_without_a_trunk_is_refused(run: Path) -> None:
    _saved({"body.0.weight": torch.zeros(2)}, run / "weights.safetensors")
    assert _refusal(str(run)) == f"{run / 'weights.safetensors'}: the run of flowers has no trunk to transfer from."


def test_a_folder_that_is_no_finished_run_is_refused(tmp_path: Path) -> None:
    assert _refusal(str(tmp_path)) == f"{tmp_path} holds no finished run (no weights.safetensors) to take weights from."


def test_a_run_whose_card_was_changed_is_refused(run: Path) -> None:
    card = run / "card.json"
    card.write_text(card.read_text().replace("0.4914", "0.5"))
    with pytest.raises(ContractError, match="it was changed after it was written"):
        weights_from(NAME, str(run))


# ---- torchvision's downloads, from a server of our own


Published = tuple[Path, http.server.HTTPServer]


@pytest.fixture
def published(state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Published]:
    """A file that torchvision seems to have published, named after its hash, and the server that has it."""
    import torchvision.models
    from torchvision.models import Weights, WeightsEnum

    content = _pickled(state)
    served = tmp_path / "served"
    served.mkdir()
    file = served / f"small-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    file.write_bytes(content)
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(served))
    monkeypatch.setattr(http.server.SimpleHTTPRequestHandler, "log_message", lambda *_: None)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/{file.name}"

    class Small_Weights(WeightsEnum):  # type: ignore[misc]  # noqa: N801 - torchvision has no types, and its way of naming
        OLD = Weights(url="http://127.0.0.1/small-00000000.pth", transforms=partial(ImageClassification, crop_size=96), meta={})
        NEW = Weights(url=url, transforms=partial(ImageClassification, crop_size=64, resize_size=80), meta={})
        DEFAULT = NEW

    monkeypatch.setattr(torchvision.models, "get_model_weights", lambda _: Small_Weights)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    preprocess_of.cache_clear()
    yield file, server
    preprocess_of.cache_clear()
    server.shutdown()
    server.server_close()


def _stopped(server: http.server.HTTPServer) -> None:
    server.shutdown()
    server.server_close()


def test_torchvisions_best_weights_are_fetched_once_and_bring_their_preprocessing(published: Published, state: State) -> None:
    file, server = published
    weights = weights_from(NAME, None)
    assert _same(weights.state, state)
    assert weights.source == "torchvision's Small_Weights.NEW"
    assert weights.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert weights.preprocess is not None
    assert (weights.preprocess.size, weights.preprocess.crop_fraction) == ((64, 64), 0.8)
    _stopped(server)
    assert _same(weights_from(NAME, None).state, state)


def test_a_published_file_that_lies_elsewhere_is_recognised(published: Published, tmp_path: Path) -> None:
    file, _ = published
    (tmp_path / "mine.pt").write_bytes(file.read_bytes())
    weights = weights_from(NAME, str(tmp_path / "mine.pt"))
    assert weights.source == "file mine.pt, torchvision's Small_Weights.NEW"
    assert weights.preprocess is not None
    assert weights.preprocess.size == (64, 64)


def test_what_cannot_be_fetched_is_named_with_the_way_out(published: Published) -> None:
    file, server = published
    _stopped(server)
    message = _refusal(None)
    assert message.startswith(f"the weights of {NAME} could not be fetched from http://127.0.0.1:{server.server_port}/{file.name} (")
    assert message.endswith("). Fetch the file elsewhere and name it as the weights, or see whether everything runs with `random` ones.")


def test_a_file_that_was_damaged_on_the_way_or_since_is_not_taken(published: Published, tmp_path: Path) -> None:
    file, _ = published
    whole_content = file.read_bytes()
    file.write_bytes(whole_content[:-1] + b"?")
    assert "invalid hash value" in _refusal(None)
    kept = tmp_path / "torch" / "hub" / "checkpoints" / file.name
    assert not kept.exists()
    file.write_bytes(whole_content)
    weights_from(NAME, None)
    kept.write_bytes(whole_content[:-1])
    begin = file.stem.rpartition("-")[2]
    assert _refusal(None) == (f"{kept}: its sha256 does not begin with {begin}, so that it is damaged. Delete it, and it is fetched again.")


def test_torchvision_names_the_hash_of_all_that_it_publishes() -> None:
    from torchvision.models import get_model_weights

    from sightline_training.networks.backbones import known_backbones

    urls = [weights.url for name in known_backbones() for weights in get_model_weights(name)]
    assert len(urls) > 100
    assert all(re.search(r"-[0-9a-f]{8,64}\.pth$", url) for url in urls)


# ---- real weights


@pytest.mark.realdata
def test_mobilenet_with_folded_batch_normalisation_loads_as_it_is_and_knows_a_brown_bear(data_folder: Path) -> None:
    file = data_folder / "weights" / "mobilenet_v2_imagenet.safetensors"
    weights = weights_from("mobilenet_v2", str(file))
    listed = (data_folder / "SHA256SUMS").read_text().splitlines()
    assert f"{weights.sha256}  ./weights/{file.name}" in listed or f"{weights.sha256}  weights/{file.name}" in listed
    backbone = Backbone("mobilenet_v2", weights.part)
    network = whole(backbone)
    load_weights(network, weights)
    spec = preprocess_of(backbone)
    card = ModelCard(name="imagenet", description="", labels=LABELS, preprocess=spec, max_batch_size=1)
    photo = data_folder / "doggy_door" / "doggy_door_images" / "brown_bear.jpg"
    answer = probabilities_of(Answering(Network(card, network)).eval(), np.stack([reformat(photo, spec)]))[0]
    assert LABELS[answer.argmax()] == "brown bear"
    assert answer.max() > 0.9
