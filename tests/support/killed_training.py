"""Trainings in forked processes, which have torch imported already: to be killed, or to run out of room."""

import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import torch

from sightline import cli
from sightline.errors import SightlineError
from sightline_training.recipes import recipe_named
from sightline_training.settings import TrainSettings
from sightline_training.train import train

EPOCHS = 8


def train_digits(folder: Path) -> None:
    """The same training each time: one thread, since sums depend on the number of threads."""
    torch.set_num_threads(1)
    train(recipe_named("mnist"), folder, TrainSettings(dataset="digits", device="cpu", epochs=EPOCHS))


def in_child(action: Callable[[], None], kill_after_s: float | None = None, kill_with: Path | None = None) -> int:
    """Run `action` in a child, killed after so many seconds, or as soon as a file is there.

    Returns its exit code, that of an error, or minus the signal that ended it.
    """
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            action()
            code = 0
        except SightlineError as error:
            code = error.exit_code
        finally:
            os._exit(code)
    if kill_after_s is not None or kill_with is not None:
        deadline_s = time.monotonic() + (kill_after_s or float("inf"))
        while time.monotonic() < deadline_s and not (kill_with and kill_with.is_file()):
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.002)
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@contextmanager
def forked_command(arguments: Sequence[str]) -> Iterator[tuple[int, TextIO]]:
    """Run `sightline` with these arguments in a child: its process id, and what it prints on stderr. Whoever asks waits for its end."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.dup2(writing, 2)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os.close(reading)
            sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w", buffering=1)
            # As in a terminal, and not as pytest sets them.
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            sys.argv = ["sightline", *arguments]
            cli.main()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        finally:
            sys.stderr.flush()
            os._exit(code)
    os.close(writing)
    with open(reading, encoding="utf-8") as printed:
        yield child, printed


def without_room(folder: Path, most_bytes: int) -> None:
    """Train where no file may be longer than `most_bytes`, as on a disk that is nearly full."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))
    train_digits(folder)
