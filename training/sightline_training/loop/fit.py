"""The loop: each stage of a recipe is one Lightning fit, checkpointed every epoch and resumed from the last one after a kill.

What decides the weights (initial values, order of the images, dropout, augmentation) is drawn from seeds of (seed, stage,
epoch), so that an epoch that runs again after a kill gives the same weights as if nothing had happened (on a CPU, bit for bit,
with the same versions and number of threads).
"""

import logging
import signal
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.exceptions import SIGTERMException

from sightline.batches import batch_size_for
from sightline.host.files import remove_leftovers
from sightline_training.environment import Device, has_bfloat16
from sightline_training.loop.batches import Memory, train_batches, watched_batches
from sightline_training.loop.checkpoints import AtomicCheckpoints
from sightline_training.loop.epoch_progress import EpochProgress
from sightline_training.loop.history import Epoch, load_kept
from sightline_training.loop.stage_module import StageModule, StagePlan
from sightline_training.networks.transfer import Headed
from sightline_training.networks.wrappers import Network
from sightline_training.recipe import Recipe

TERMINATED: Final = 128 + signal.SIGTERM
"""What shells report of a program that SIGTERM ended."""


@dataclass(frozen=True, eq=False)
class Watched:
    """The images on which every epoch is measured."""

    memory: Memory
    chooses: bool
    """Whether they decide which epoch is kept and when to stop. If not, they are only measured, and the last epoch is kept."""


@dataclass(frozen=True, kw_only=True)
class FitSettings:
    """What `fit` needs to know besides the recipe and the images."""

    seed: int
    device: Device
    checkpoints: Path
    """The folder of the checkpoints; what it holds is continued."""


FeaturesOf = Callable[[Literal["train", "watched"], int], npt.NDArray[np.float32]]
"""Features [N, F] of the frozen trunk: of the images as they are (view 0), or of an augmented view (from 1)."""


def fit(
    network: Network, recipe: Recipe, train: Memory, watched: Watched, settings: FitSettings, features_of: FeaturesOf | None = None
) -> list[Epoch]:
    """Train `network` in place through all stages of `recipe`; leave in it the weights of the epoch that was kept (see `kept_epoch`).

    A stage that is complete in the checkpoints is not trained again. A stage with a frozen trunk learns from what `features_of` gives,
    if it is there, else from pixels. Returns the history of all epochs, those before a kill included. Raises KeyboardInterrupt if the
    user stopped it, DataError if a checkpoint is damaged, SightlineError if the loss is no number any more.
    """
    history: list[Epoch] = []
    for number, stage in enumerate(recipe.stages, 1):
        folder = settings.checkpoints / f"stage-{number}"
        folder.mkdir(parents=True, exist_ok=True)
        # After a stage in which the trunk learned, its features are no longer those that were computed before.
        still_frozen = all(earlier.trunk_share == 0 for earlier in recipe.stages[:number])
        frozen_features = features_of if still_frozen and isinstance(network.body, Headed) else None
        plan = StagePlan(
            recipe=recipe,
            number=number,
            seed=settings.seed,
            folder=folder,
            chooses=watched.chooses,
            from_features=frozen_features is not None,
        )
        for file in (plan.last, plan.kept):
            remove_leftovers(file)
        progress = EpochProgress()
        module = StageModule(network, plan, progress.print_line)
        if not module.is_finished:
            inputs, held_out = train, watched.memory
            if frozen_features is not None:
                views = [frozen_features("train", view) for view in range(1 + stage.views)]
                inputs = Memory(np.stack(views, axis=1), train.labels.numpy())
                held_out = Memory(frozen_features("watched", 0)[:, None], held_out.labels.numpy())
            _run_trainer(module, inputs, held_out, settings.device, progress)
        history += module.history
        load_kept(module.learner, plan.kept)
    return history


def _run_trainer(module: StageModule, train: Memory, watched: Memory, device: Device, progress: EpochProgress) -> None:
    plan = module.plan
    with _quiet_lightning():
        trainer = Trainer(
            accelerator=device,
            devices=1,
            precision="bf16-mixed" if plan.stage.mixed_precision and has_bfloat16(device) else "32-true",
            max_epochs=plan.stage.epochs,
            callbacks=[
                progress,
                # The last one only: the best weights are kept by ourselves, so that a run folder may be moved.
                ModelCheckpoint(plan.folder, plan.last.stem, save_on_train_epoch_end=True, enable_version_counter=False),
            ],
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            plugins=[AtomicCheckpoints()],
            default_root_dir=plan.folder,
        )
        try:
            trainer.fit(
                module,
                train_batches(train, plan.stage.batch_size, plan.draws, len(module.history)),
                watched_batches(watched, batch_size_for(tuple(watched.inputs.shape[1:]))),
                ckpt_path=plan.last if module.history else None,
                weights_only=True,
            )
        except SIGTERMException:
            raise SystemExit(TERMINATED) from None
        except SystemExit:
            # Lightning answers Ctrl-C with a plain exit and leaves the signal ignored.
            signal.signal(signal.SIGINT, signal.default_int_handler)
            raise KeyboardInterrupt from None


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Silence Lightning's tips, device lists and advice about workers, which help nobody who typed `sightline train`."""
    names = ("lightning", "lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero")
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
