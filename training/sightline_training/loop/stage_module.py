"""One stage of a recipe as Lightning runs it: loss, optimizer, what is measured and what a checkpoint holds."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import safetensors.torch
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn import functional
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from sightline.errors import SightlineError
from sightline.host.files import write_atomically
from sightline_training.loop.batches import Batch, seed_of
from sightline_training.loop.history import Epoch, is_finished, kept_epoch, read_history
from sightline_training.loop.schedule import one_cycle, optimizer_of
from sightline_training.networks.transfer import Headed, learning
from sightline_training.networks.wrappers import Network
from sightline_training.recipe import Recipe, Stage


@dataclass(frozen=True, kw_only=True)
class StagePlan:
    """Which stage is trained, from which seed, and where its checkpoints lie."""

    recipe: Recipe
    number: int
    """From 1."""
    seed: int
    folder: Path
    chooses: bool
    """Whether the watched images decide which epoch is kept and when to stop."""
    from_features: bool
    """Whether the head learns from the features of a frozen trunk, which then runs no more."""

    @property
    def stage(self) -> Stage:
        """The stage itself."""
        return self.recipe.stages[self.number - 1]

    @property
    def draws(self) -> str:
        """What the seeds of the stage's epochs are made of."""
        return f"{self.seed}/{self.number}"

    @property
    def last(self) -> Path:
        """Lightning's checkpoint of the last epoch."""
        return self.folder / "last.ckpt"

    @property
    def kept(self) -> Path:
        """The weights of the kept epoch."""
        return self.folder / "kept.safetensors"


class StageModule(LightningModule):
    """A network that learns through one stage. The history of an interrupted stage is read back when this is made."""

    def __init__(self, network: Network, plan: StagePlan, print_line: Callable[[str], None]) -> None:
        super().__init__()
        self.plan, self.print_line = plan, print_line
        # All that a checkpoint must hold: of a large backbone that is frozen, nothing.
        self.learner: nn.Module = cast("Headed", network.body).head if plan.from_features else network
        self.history = read_history(plan.last)
        classes = len(plan.recipe.card.labels)
        self.train_loss, self.watched_loss = MeanMetric(), MeanMetric()
        self.train_accuracy = MulticlassAccuracy(classes, average="micro", validate_args=False)
        self.watched_accuracy = MulticlassAccuracy(classes, average="micro", validate_args=False)
        trainable = learning(network.body, plan.stage.trunk_share)
        for name, parameter in network.body.named_parameters():
            parameter.requires_grad_(name in trainable)

    @property
    def is_finished(self) -> bool:
        """Whether nothing is left to train."""
        return is_finished(self.history, self.plan.stage, self.plan.chooses)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return the stage's optimizer under a one-cycle schedule that ends with the last epoch."""
        optimizer = optimizer_of(self.plan.stage, [parameter for parameter in self.parameters() if parameter.requires_grad])
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: one_cycle(step, steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_train_epoch_start(self) -> None:
        """Draw dropout and augmentation from this epoch's own seed, whatever was drawn before it."""
        torch.manual_seed(seed_of(self.plan.draws, self.current_epoch, "noise"))
        self.began = time.perf_counter(), time.process_time()

    def training_step(self, batch: Batch, _: int) -> Tensor:
        """Return the loss of one batch: images augmented if the recipe says so, or one view's features of each image."""
        inputs, labels = batch
        if self.plan.from_features:
            inputs = inputs[torch.arange(len(inputs)), torch.randint(inputs.shape[1], (len(inputs),))]
        elif self.plan.recipe.augmentation is not None:
            inputs = self.plan.recipe.augmentation(inputs)
        logits = self.learner(inputs)
        loss = functional.cross_entropy(logits.float(), labels, label_smoothing=self.plan.stage.label_smoothing)
        self.train_loss.update(loss.detach(), len(labels))
        self.train_accuracy.update(logits.detach(), labels)
        return loss

    def validation_step(self, batch: Batch, _: int) -> None:
        """Measure one batch of the watched images."""
        inputs, labels = batch
        logits = self.learner(inputs[:, 0] if self.plan.from_features else inputs)
        self.watched_loss.update(functional.cross_entropy(logits.float(), labels), len(labels))
        self.watched_accuracy.update(logits, labels)

    def on_train_epoch_end(self) -> None:
        """Close the epoch: note it, keep its weights if they are the best, stop if nothing improves any more."""
        epoch = self._measured()
        if not math.isfinite(epoch["watched_loss"]):
            raise SightlineError(
                f"training diverged: after epoch {epoch['epoch']} the loss on held-out images is {epoch['watched_loss']}. "
                "Lower the recipe's learning rate and begin anew.",
                settings=("restart",),
            )
        self.history.append(epoch)
        best = self.plan.chooses and kept_epoch(self.history, self.plan.chooses) is epoch
        if best or (self.is_finished and not self.plan.chooses):
            write_atomically(self.plan.kept, safetensors.torch.save(self.learner.state_dict()))
        if self.is_finished:
            self.trainer.should_stop = True
        epochs = self.plan.stage.epochs
        self.print_line(
            f"epoch {epoch['epoch']:>{len(str(epochs))}}/{epochs}"
            f"  train loss {epoch['train_loss']:.4f} accuracy {epoch['train_accuracy']:.2%}"
            f"  held out loss {epoch['watched_loss']:.4f} accuracy {epoch['watched_accuracy']:.2%}"
            f"  {epoch['seconds']:.1f} s" + ("  (best)" if best else "")
        )

    def on_save_checkpoint(self, checkpoint: dict[str, object]) -> None:
        """Let the history travel with the weights: after a kill both stand at the same epoch."""
        checkpoint["history"] = self.history

    def _measured(self) -> Epoch:
        wall, cpu = self.began
        epoch: Epoch = {"stage": self.plan.number, "epoch": self.current_epoch + 1}
        for name in ("train_loss", "train_accuracy", "watched_loss", "watched_accuracy"):
            metric = getattr(self, name)
            epoch[name] = float(metric.compute())
            metric.reset()
        epoch["learning_rate"] = float(self.trainer.optimizers[0].param_groups[0]["lr"])
        epoch["seconds"], epoch["cpu_seconds"] = time.perf_counter() - wall, time.process_time() - cpu
        return epoch
