"""Shows how a network trains: on a terminal one bar with the time left for the whole stage, elsewhere a line an epoch."""

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from sightline.console import messages


class EpochProgress(Callback):
    """Draws the progress of a stage through Lightning's hooks."""

    def __init__(self) -> None:
        self.console = messages()
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Begin the bar where a resumed stage stands."""
        self.task = self.bar.add_task("training", total=trainer.estimated_stepping_batches, completed=trainer.global_step)
        self.bar.start()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Show which epoch it is."""
        self.bar.update(self.task, description=f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}")

    def on_train_batch_end(self, trainer: Trainer, *_: object) -> None:
        """Move the bar."""
        self.bar.update(self.task, completed=trainer.global_step)

    def print_line(self, line: str) -> None:
        """Print the line of an epoch, above the bar."""
        (self.bar.console if self.console.is_terminal else self.console).print(line)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Take the bar away."""
        self.bar.stop()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:  # noqa: ARG002
        """Give the terminal back."""
        self.bar.stop()
