"""The loop: each stage of a recipe is one Lightning fit, checkpointed every epoch and resumed from the last one after a kill.

What decides the weights (initial values, order of the images, dropout, augmentation) is drawn from seeds of (seed, stage,
epoch), so that an epoch that runs again after a kill gives the same weights as if nothing had happened (on a CPU, bit for bit,
with the same versions and number of threads).
"""

import logging
import math
import pickle
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, cast

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.torch
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import Tensor, nn
from torch.nn import functional
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from sightline.errors import DataError, SightlineError
from sightline_training import environment as provenance
from sightline_training.files import write_whole
from sightline_training.loop.batches import Batch, Memory, seed_of, train_batches, watched_batches
from sightline_training.loop.epoch_progress import EpochProgress
from sightline_training.networks.transfer import Headed, learning
from sightline_training.networks.wrappers import Network, comfortable_batch
from sightline_training.recipe import Recipe, Stage

Epoch = dict[str, float]
"""One line of metrics.csv: stage and epoch (from 1), losses, accuracies, learning rate, seconds."""

MEASURES: Final = (
    *("stage", "epoch", "train_loss", "train_accuracy", "watched_loss", "watched_accuracy"),
    *("learning_rate", "seconds", "cpu_seconds"),
)
"""The columns of metrics.csv."""

TERMINATED: Final = 128 + signal.SIGTERM
"""What shells report of a program that SIGTERM ended."""


@dataclass(frozen=True)
class Watched:
    """The images on which every epoch is measured."""

    memory: Memory
    chooses: bool
    """Whether they decide which epoch is kept and when to stop. If not, they are only looked at, and the last epoch is kept."""


FeaturesOf = Callable[[Literal["train", "watched"], int], npt.NDArray[np.float32]]
"""Features [N, F] of the frozen trunk: of the images as they are (view 0), or of an augmented view (from 1)."""


def fit(
    network: Network,
    recipe: Recipe,
    train: Memory,
    watched: Watched,
    *,
    seed: int,
    device: Literal["cpu", "gpu"],
    checkpoints: Path,
    features_of: FeaturesOf | None = None,
) -> list[Epoch]:
    """Train `network` in place through all stages of `recipe`; leave in it the weights of the epoch that was kept (see `kept_epoch`).

    What `checkpoints` holds is continued; a stage that is complete there is not trained again. A stage with a frozen trunk learns
    from what `features_of` gives, if it is there, else from pixels. Gives the history of all epochs, those before a kill included.
    Raises KeyboardInterrupt if the user stopped it, DataError if a checkpoint is damaged, SightlineError if the loss is no number
    any more.
    """
    history: list[Epoch] = []
    for number, stage in enumerate(recipe.stages, 1):
        folder = checkpoints / f"stage-{number}"
        folder.mkdir(parents=True, exist_ok=True)
        # After a stage in which the trunk learned, its features are no longer those that were kept.
        still_frozen = all(each.trunk_share == 0 for each in recipe.stages[:number])
        cached = features_of if still_frozen and isinstance(network.body, Headed) else None
        stretch = _Stretch(network, recipe, stage, number=number, seed=seed, folder=folder, on_features=cached is not None)
        stretch.chooses = watched.chooses
        stretch.history = _history_in(stretch.last)
        if not _finished(stretch.history, stage, watched.chooses):
            if cached is None:
                _run(stretch, train, watched.memory, device)
            else:
                views = np.stack([cached("train", view) for view in range(1 + stage.views)], axis=1)
                plain = cached("watched", 0)[:, None]
                _run(stretch, Memory(views, train.labels.numpy()), Memory(plain, watched.memory.labels.numpy()), device)
        history += stretch.history
        _take_kept(stretch.learner, stretch.kept)
    return history


def kept_epoch(history: list[Epoch], chooses: bool) -> Epoch:
    """The epoch of the last stage whose weights were kept.

    If the watched images choose, that of the highest accuracy on them, among equals the lowest loss; if not, the last one.
    """
    last_stage = [epoch for epoch in history if epoch["stage"] == history[-1]["stage"]]
    return max(last_stage, key=lambda epoch: (epoch["watched_accuracy"], -epoch["watched_loss"])) if chooses else last_stage[-1]


def one_cycle(step: int, steps: int) -> float:
    """Share of the peak learning rate at `step` (from 0) of `steps`: a cosine from 1/25 up over the first fifth, then down to 0.

    The shape of Smith and Topin 2017 (arXiv:1708.07120) with the constants of fast.ai. torch's OneCycleLR divides by zero when
    there are five steps.
    """
    warm = 0.2 * steps
    if step < warm:
        return 1 - 0.96 * (1 + math.cos(math.pi * step / warm)) / 2
    return (1 + math.cos(math.pi * (step - warm) / (steps - warm))) / 2


def _finished(history: list[Epoch], stage: Stage, chooses: bool) -> bool:
    """Whether all epochs are done, or none was better than the best for `patience` epochs and that may be known."""
    if len(history) >= stage.epochs:
        return True
    return chooses and bool(history) and history[-1]["epoch"] - kept_epoch(history, chooses)["epoch"] >= stage.patience


def _history_in(checkpoint: Path) -> list[Epoch]:
    if not checkpoint.exists():
        return []
    try:
        history = torch.load(checkpoint, weights_only=True, map_location="cpu")["history"]
        return [{name: float(epoch[name]) for name in MEASURES} for epoch in history]
    except (OSError, RuntimeError, KeyError, TypeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        raise _damaged(checkpoint, error) from None


def _take_kept(learner: nn.Module, kept: Path) -> None:
    try:
        learner.load_state_dict(safetensors.torch.load_file(kept))
    except (OSError, RuntimeError, safetensors.SafetensorError) as error:
        raise _damaged(kept, error) from None


def _damaged(path: Path, error: Exception) -> DataError:
    reason = (str(error) or type(error).__name__).splitlines()[0][:200]
    return DataError(f"{path}: damaged checkpoint ({reason}). Start again with `--restart`.")


def _run(stretch: "_Stretch", train: Memory, watched: Memory, device: Literal["cpu", "gpu"]) -> None:
    with _quiet_lightning():
        trainer = Trainer(
            accelerator=device,
            devices=1,
            precision="bf16-mixed" if stretch.stage.mixed_precision and provenance.has_bfloat16(device) else "32-true",
            max_epochs=stretch.stage.epochs,
            callbacks=[
                stretch.progress,
                # The last one only: the best weights are kept by ourselves, so that a run folder may be moved.
                ModelCheckpoint(stretch.last.parent, stretch.last.stem, save_on_train_epoch_end=True, enable_version_counter=False),
            ],
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            default_root_dir=stretch.last.parent,
        )
        try:
            trainer.fit(
                stretch,
                train_batches(train, stretch.stage.batch_size, stretch.seed, len(stretch.history)),
                watched_batches(watched, comfortable_batch(tuple(watched.given.shape[1:]))),
                ckpt_path=stretch.last if stretch.history else None,
                weights_only=True,
            )
        except SIGTERMException:
            raise SystemExit(TERMINATED) from None
        except SystemExit:
            # Lightning answers Ctrl-C with a plain exit and leaves the signal ignored.
            signal.signal(signal.SIGINT, signal.default_int_handler)
            raise KeyboardInterrupt from None


class _Stretch(LightningModule):
    """One stage: loss, optimizer, what is measured and what a checkpoint holds."""

    def __init__(self, network: Network, recipe: Recipe, stage: Stage, *, number: int, seed: int, folder: Path, on_features: bool) -> None:
        super().__init__()
        # All that a checkpoint must hold: of a large backbone that is frozen, nothing.
        self.learner: nn.Module = cast("Headed", network.body).head if on_features else network
        self.stage, self.augmentation, self.on_features = stage, recipe.augmentation, on_features
        self.number, self.seed = number, f"{seed}/{number}"
        self.kept, self.last = folder / "kept.safetensors", folder / "last.ckpt"
        self.history: list[Epoch] = []
        self.chooses = True
        self.progress = EpochProgress()
        classes = len(recipe.card.labels)
        self.train_loss, self.watched_loss = MeanMetric(), MeanMetric()
        self.train_accuracy = MulticlassAccuracy(classes, average="micro", validate_args=False)
        self.watched_accuracy = MulticlassAccuracy(classes, average="micro", validate_args=False)
        learns = learning(network.body, stage.trunk_share)
        for name, parameter in network.body.named_parameters():
            parameter.requires_grad_(name in learns)

    def configure_optimizers(self) -> Any:
        """The stage's optimizer under a one-cycle schedule that ends with the last epoch."""
        learns = [parameter for parameter in self.parameters() if parameter.requires_grad]
        rate, decay = self.stage.learning_rate, self.stage.weight_decay
        optimizer: torch.optim.Optimizer
        if self.stage.optimizer == "sgd":
            optimizer = torch.optim.SGD(learns, lr=rate, momentum=0.9, nesterov=True, weight_decay=decay, fused=True)
        else:
            optimizer = torch.optim.AdamW(learns, lr=rate, weight_decay=decay, fused=True)
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: one_cycle(step, steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_train_epoch_start(self) -> None:
        """Draw dropout and augmentation from this epoch's own seed, whatever was drawn before it."""
        torch.manual_seed(seed_of(self.seed, self.current_epoch, "noise"))
        self.began = time.perf_counter(), time.process_time()

    def training_step(self, batch: Batch, _: int) -> Tensor:
        """Loss of one batch: images augmented if the recipe says so, or one view's features of each image."""
        given, labels = batch
        if self.on_features:
            given = given[torch.arange(len(given)), torch.randint(given.shape[1], (len(given),))]
        elif self.augmentation is not None:
            given = self.augmentation(given)
        logits = self.learner(given)
        loss = functional.cross_entropy(logits.float(), labels, label_smoothing=self.stage.label_smoothing)
        self.train_loss.update(loss.detach(), len(labels))
        self.train_accuracy.update(logits.detach(), labels)
        return loss

    def validation_step(self, batch: Batch, _: int) -> None:
        """Measure one batch of the watched images."""
        given, labels = batch
        logits = self.learner(given[:, 0] if self.on_features else given)
        self.watched_loss.update(functional.cross_entropy(logits.float(), labels), len(labels))
        self.watched_accuracy.update(logits, labels)

    def on_train_epoch_end(self) -> None:
        """Close the epoch: note it, keep its weights if they are the best, stop if nothing improves any more."""
        wall, cpu = self.began
        epoch: Epoch = {"stage": self.number, "epoch": self.current_epoch + 1}
        for name in ("train_loss", "train_accuracy", "watched_loss", "watched_accuracy"):
            metric = getattr(self, name)
            epoch[name] = float(metric.compute())
            metric.reset()
        epoch["learning_rate"] = float(self.trainer.optimizers[0].param_groups[0]["lr"])
        epoch["seconds"], epoch["cpu_seconds"] = time.perf_counter() - wall, time.process_time() - cpu
        if not math.isfinite(epoch["watched_loss"]):
            raise SightlineError(
                f"training diverged: after epoch {epoch['epoch']} the loss on held-out images is {epoch['watched_loss']}. "
                "Lower the recipe's learning rate and start again with `--restart`."
            )
        self.history.append(epoch)
        finished = _finished(self.history, self.stage, self.chooses)
        best = self.chooses and kept_epoch(self.history, self.chooses) is epoch
        if best or (finished and not self.chooses):
            write_whole(self.kept, safetensors.torch.save(self.learner.state_dict()))
        if finished:
            self.trainer.should_stop = True
        self.progress.said(
            f"epoch {epoch['epoch']:>{len(str(self.stage.epochs))}}/{self.stage.epochs}"
            f"  train loss {epoch['train_loss']:.4f} accuracy {epoch['train_accuracy']:.2%}"
            f"  held out loss {epoch['watched_loss']:.4f} accuracy {epoch['watched_accuracy']:.2%}"
            f"  {epoch['seconds']:.1f} s" + ("  (best)" if best else "")
        )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """The history travels with the weights: after a kill both stand at the same epoch."""
        checkpoint["history"] = self.history


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Lightning's tips, device lists and advice about workers help nobody who typed `sightline train`."""
    loud = [
        logging.getLogger(name) for name in ("lightning", "lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero")
    ]
    levels = [each.level for each in loud]
    for each in loud:
        each.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for each, level in zip(loud, levels, strict=True):
            each.setLevel(level)
