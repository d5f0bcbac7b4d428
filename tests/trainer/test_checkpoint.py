"""Checkpoints as people have them: what wraps a network's tensors is taken off where it can mean one thing, and told."""

import argparse
import copy
from collections.abc import Mapping
from pathlib import Path

import pytest
import safetensors.torch
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader, TensorDataset

from sightline.errors import DataError
from sightline_training.networks.checkpoint import NetworkTensors, prefix_hint, read_network
from sightline_training.networks.weights import weights_from

Checkpoint = Mapping[str, object]


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "mine.pt"


def read(content: object, path: Path, network: nn.Module, entry: str | None = None) -> NetworkTensors:
    torch.save(content, path)
    return read_network(path, network.state_dict().keys(), entry)


def refusal(content: object, path: Path, network: nn.Module, entry: str | None = None) -> str:
    with pytest.raises(DataError) as refused:
        read(content, path, network, entry)
    return str(refused.value)


def same(file: NetworkTensors, state: Mapping[str, Tensor]) -> bool:
    return file.tensors.keys() == state.keys() and all(torch.equal(tensor, state[name]) for name, tensor in file.tensors.items())


def averaged(network: nn.Module) -> nn.Module:
    """Other values under the same names."""
    other = copy.deepcopy(network)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(0.9)
    return other


@pytest.mark.parametrize(
    ("wrap", "prefix"),
    [
        (lambda network: network, ""),
        (nn.DataParallel, "module."),
        (torch.compile, "_orig_mod."),
        (lambda network: nn.DataParallel(nn.ModuleDict({"_orig_mod": network})), "module._orig_mod."),
        (lambda network: nn.ModuleDict({"model": network}), "model."),
        (lambda network: nn.ModuleDict({"model": nn.ModuleDict({"backbone": network})}), "model.backbone."),
        (AveragedModel, "module."),
    ],
    ids=["bare", "DataParallel", "compile", "both", "model", "backbone in model", "AveragedModel"],
)
def test_what_a_wrapper_puts_before_every_name_is_taken_off(wrap: type[nn.Module], prefix: str, network: nn.Module, path: Path) -> None:
    file = read(wrap(network).state_dict(), path, network)
    assert same(file, network.state_dict())
    assert file.unwrapped == (f"without the prefix {prefix}" if prefix else "")


@pytest.mark.parametrize("entry", ["state_dict", "model", "model_state_dict", "net", "weights of the best epoch"])
def test_the_only_entry_that_holds_the_network_is_taken_whatever_stands_beside_it(entry: str, network: nn.Module, path: Path) -> None:
    optimizer = torch.optim.Adam(network.parameters())
    network(torch.zeros(2, 3, 4, 4)).sum().backward()
    optimizer.step()
    checkpoint = {
        "epoch": 7,
        "arch": "mine",
        "best": torch.tensor(0.9),
        "args": argparse.Namespace(lr=1e-3),
        "optimizer": optimizer.state_dict(),
        "criterion": {"weight": torch.ones(2)},
        entry: nn.DataParallel(network).state_dict(),
    }
    file = read(checkpoint, path, network)
    assert same(file, network.state_dict())
    assert file.unwrapped == f"its entry {entry}, without the prefix module."


def test_a_safetensors_file_of_a_wrapped_network_is_unwrapped_too(network: nn.Module, tmp_path: Path) -> None:
    safetensors.torch.save_file(nn.DataParallel(network).state_dict(), tmp_path / "mine.safetensors")
    assert same(read_network(tmp_path / "mine.safetensors", network.state_dict().keys()), network.state_dict())


def test_of_weights_and_their_moving_average_the_one_that_is_meant_must_be_said(network: nn.Module, path: Path) -> None:
    average = averaged(network)
    checkpoint = {"state_dict": network.state_dict(), "state_dict_ema": average.state_dict(), "epoch": 3}
    assert refusal(checkpoint, path, network) == (
        f"{path}: each of its entries 'state_dict' and 'state_dict_ema' holds this network's tensors, as weights and their moving average "
        "do: say which is meant, or save one alone."
    )
    for entry, meant in (("state_dict", network), ("state_dict_ema", average)):
        file = read(checkpoint, path, network, entry)
        assert same(file, meant.state_dict())
        assert file.unwrapped == f"its entry {entry}"
    assert refusal(checkpoint, path, network, "ema") == f"{path}: there is no entry 'ema': it holds the entries state_dict, state_dict_ema."


def test_an_average_without_the_counters_is_as_likely_and_one_within_an_entry_is_named_by_its_place(network: nn.Module, path: Path) -> None:
    average = {name: tensor for name, tensor in averaged(network).state_dict().items() if not name.endswith("num_batches_tracked")}
    checkpoint = {"model": network.state_dict(), "ema": {"decay": 0.999, "shadow": average}}
    assert "each of its entries 'ema.shadow' and 'model' holds this network's tensors" in refusal(checkpoint, path, network)
    assert same(read(checkpoint, path, network, "ema.shadow"), average)
    # What stands behind a name needs no whole place.
    assert read(checkpoint, path, network, "ema.shadow").unwrapped == "its entry ema.shadow"


def test_two_entries_of_the_very_same_tensors_are_one(network: nn.Module, path: Path) -> None:
    assert same(read({"model": network.state_dict(), "best": network.state_dict()}, path, network), network.state_dict())


def test_a_part_of_the_names_is_not_taken_for_the_network_unless_somebody_says_so(network: nn.Module, path: Path) -> None:
    # The backbone's own classifier is there, and another head answers: the backbone alone would answer something else.
    both = {"backbone": network, "head": nn.Linear(2, 3)}
    state = nn.ModuleDict(both).state_dict()
    assert refusal(state, path, network) == (
        f"{path}: this network's names stand in it behind a prefix that not all names have, 'backbone' ({len(network.state_dict())}): "
        "say which is meant, or save one alone."
    )
    file = read(state, path, network, "backbone")
    assert same(file, network.state_dict())
    assert file.unwrapped == "its entry backbone"
    twins = nn.ModuleDict({"student": network, "teacher": averaged(network)}).state_dict()
    assert "'student' (9) and 'teacher' (9): say which is meant" in refusal(twins, path, network)
    assert refusal(twins, path, network, "pupil") == f"{path}: there is no entry 'pupil': its names begin with student, teacher."


def test_entries_of_which_none_is_the_network_are_listed(network: nn.Module, path: Path) -> None:
    other = {"a": {"x.weight": torch.zeros(1)}, "b": {"y.weight": torch.zeros(1)}}
    assert refusal(other, path, network) == (
        f"{path}: none of its entries 'a', 'b' holds this network's tensors: say which is meant, or save one alone."
    )


def test_a_prefix_that_is_no_wrappers_is_named_in_the_refusal(tmp_path: Path) -> None:
    state = {f"visual.{name}": tensor for name, tensor in weights_from("squeezenet1_1", "random").state.items()}
    torch.save({name.replace("features", "trunk"): tensor for name, tensor in state.items()}, tmp_path / "mine.pt")
    with pytest.raises(DataError) as refused:
        weights_from("mobilenet_v3_small", str(tmp_path / "mine.pt"))
    assert str(refused.value) == (
        f"{tmp_path / 'mine.pt'}: the tensor 'visual.classifier.1.bias' does not belong to mobilenet_v3_small. "
        "All its names begin with 'visual.'."
    )
    assert prefix_hint(["a.x", "b.x"]) == prefix_hint([]) == ""


def test_a_file_of_a_network_of_torchvision_says_what_was_unwrapped_in_its_source(tmp_path: Path) -> None:
    state = weights_from("squeezenet1_1", "random").state
    torch.save({"net": {f"module.{name}": tensor for name, tensor in state.items()}}, tmp_path / "mine.pt")
    weights = weights_from("squeezenet1_1", str(tmp_path / "mine.pt"))
    assert weights.source == "file mine.pt (its entry net, without the prefix module.)"
    assert all(torch.equal(tensor, state[name]) for name, tensor in weights.state.items())
    torch.save({"net": state, "ema": {name: tensor * 2 for name, tensor in state.items()}}, tmp_path / "mine.pt")
    with pytest.raises(DataError, match="each of its entries 'ema' and 'net'"):
        weights_from("squeezenet1_1", str(tmp_path / "mine.pt"))
    doubled = weights_from("squeezenet1_1", str(tmp_path / "mine.pt"), entry="ema")
    assert torch.equal(doubled.state["classifier.1.bias"], 2 * state["classifier.1.bias"])


class Settings:
    """A class of somebody's program."""


class Lit(LightningModule):
    def __init__(self, network: nn.Module, settings: object = None) -> None:
        super().__init__()
        self.save_hyperparameters(ignore="network")
        self.model = network

    def training_step(self, batch: list[Tensor], _number: int) -> Tensor:
        loss: Tensor = self.model(batch[0]).sum()
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 1e-3)


def lightning_checkpoint(module: Lit, path: Path) -> Path:
    trainer = Trainer(
        max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, accelerator="cpu"
    )
    trainer.fit(module, DataLoader(TensorDataset(torch.zeros(2, 3, 4, 4)), batch_size=2))
    trainer.save_checkpoint(path)
    return path


def test_a_checkpoint_of_lightning_is_read_and_one_with_a_class_in_its_hyper_parameters_says_what_to_do(
    network: nn.Module, tmp_path: Path
) -> None:
    file = read_network(lightning_checkpoint(Lit(network), tmp_path / "plain.ckpt"), network.state_dict().keys())
    assert same(file, network.state_dict())
    assert file.unwrapped == "its entry state_dict, without the prefix model."
    path = lightning_checkpoint(Lit(network, Settings()), tmp_path / "settings.ckpt")
    with pytest.raises(DataError) as refused:
        read_network(path, network.state_dict().keys())
    assert str(refused.value) == (
        f"{path}: neither a safetensors file nor a state dict of torch (besides tensors it holds {Settings.__module__}.Settings, which "
        "could run code when it is opened). In the program that wrote it, save the tensors alone: `model.state_dict()`, or a "
        "checkpoint's `state_dict`."
    )


def test_a_whole_network_that_was_pickled_names_its_classes(network: nn.Module, path: Path) -> None:
    assert "besides tensors it holds torch.nn.modules.batchnorm.BatchNorm2d, torch.nn.modules.container.Sequential, " in refusal(
        network, path, network
    )


def test_only_what_is_taken_must_be_plain_and_what_claims_more_than_the_file_has_is_refused(network: nn.Module, path: Path) -> None:
    vast = {name: torch.zeros(1).expand(10**12) for name in network.state_dict()}
    assert same(read({"model": network.state_dict(), "mask": {"a": torch.zeros(3).to_sparse()}}, path, network), network.state_dict())
    assert refusal({"model": vast}, path, network).endswith(" is no plain tensor. Save `model.state_dict()` alone.")
    assert "each of its entries 'ema' and 'model'" in refusal({"model": network.state_dict(), "ema": vast}, path, network)
