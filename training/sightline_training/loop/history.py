"""The history of a stage, an entry an epoch: which epoch is kept, whether the stage is finished, and how both survive a kill."""

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import safetensors
import safetensors.torch
import torch
from torch import nn

from sightline.errors import DataError
from sightline.host.text import one_line
from sightline_training.recipe import Stage

Epoch = dict[str, float]
"""One line of metrics.csv: stage and epoch (from 1), losses, accuracies, learning rate, seconds."""

MEASURES: Final = (
    *("stage", "epoch", "train_loss", "train_accuracy", "watched_loss", "watched_accuracy"),
    *("learning_rate", "seconds", "cpu_seconds"),
)
"""The columns of metrics.csv."""


def kept_epoch(history: Sequence[Epoch], chooses: bool) -> Epoch:
    """Return the epoch of the last stage whose weights were kept.

    If the watched images choose, that of the highest accuracy on them, among equals the lowest loss; if not, the last one.
    """
    last_stage = [epoch for epoch in history if epoch["stage"] == history[-1]["stage"]]
    return max(last_stage, key=lambda epoch: (epoch["watched_accuracy"], -epoch["watched_loss"])) if chooses else last_stage[-1]


def is_finished(history: Sequence[Epoch], stage: Stage, chooses: bool) -> bool:
    """Return whether all epochs are done, or none was better than the best for `patience` epochs and the watched images may choose."""
    if len(history) >= stage.epochs:
        return True
    return chooses and bool(history) and history[-1]["epoch"] - kept_epoch(history, chooses)["epoch"] >= stage.patience


def read_history(checkpoint: Path) -> list[Epoch]:
    """Return the history that a checkpoint of Lightning's holds; empty if there is none. Raises DataError if it is damaged."""
    if not checkpoint.exists():
        return []
    try:
        history = torch.load(checkpoint, weights_only=True, map_location="cpu")["history"]
        return [{name: float(epoch[name]) for name in MEASURES} for epoch in history]
    except (OSError, RuntimeError, KeyError, TypeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        raise _damaged(checkpoint, error) from None


def load_kept(learner: nn.Module, kept: Path) -> None:
    """Load the weights of the kept epoch into `learner`. Raises DataError if the file is damaged."""
    try:
        learner.load_state_dict(safetensors.torch.load_file(kept))
    except (OSError, RuntimeError, safetensors.SafetensorError) as error:
        raise _damaged(kept, error) from None


def _damaged(path: Path, error: Exception) -> DataError:
    return DataError(f"{path}: damaged checkpoint ({one_line(error)}). Begin anew.", settings=("restart",))
