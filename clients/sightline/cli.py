"""The `sightline` command. Its subcommands are entry points (group `sightline.commands`), loaded only when they are called."""

import gc
import os
import sys
import warnings
from collections.abc import Sequence
from importlib.metadata import EntryPoint, entry_points, version
from typing import Final

import click

# Pydantic would look for plugins in every package that is installed, which takes longer than all its models here.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")

from sightline.errors import MissingExtra, SightlineError, UsageError

GROUP: Final = "sightline.commands"

EXTRAS: Final = {"sightline_training": "train", "sightline_export": "export", "sightline_serving": "serve"}
"""Package of a command → the extra that brings what it imports."""

OPTIONAL: Final = {
    "torch": "PyTorch",
    "torchvision": "torchvision",
    "lightning": "Lightning",
    "torchmetrics": "torchmetrics",
    "safetensors": "safetensors",
    "matplotlib": "matplotlib",
    "sklearn": "scikit-learn",
    "onnx": "ONNX",
    "onnxscript": "onnxscript",
    "onnxruntime": "ONNX Runtime",
    "psutil": "psutil",
}
"""Module that is not in the base install → what people call it."""

INTERRUPTED: Final = 130
"""What shells give a program that Ctrl-C ended: 128 + SIGINT."""


class Commands(click.Group):
    """A click group whose members are entry points."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """List the names of the installed commands."""
        return sorted(entry_points(group=GROUP).names)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Load one command; None if there is none of that name."""
        point = next((point for point in entry_points(group=GROUP) if point.name == cmd_name), None)
        if point is None:
            return None
        command = _loaded(point)
        if not isinstance(command, click.Command):
            raise TypeError(f"the entry point {point.value} of the group {GROUP} is no click command")
        return command


def _loaded(point: EntryPoint) -> object:
    """Import a command. What is imported stays, so that looking through it for garbage, now and in processes to come, is for nothing."""
    collects = gc.isenabled()
    gc.disable()
    try:
        return point.load()
    finally:
        gc.freeze()
        if collects:
            gc.enable()


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(version("sightline"), prog_name="sightline")
def sightline() -> None:
    """Train, export, serve and call image classifiers: same picture, same answer, at every hop."""


def run(arguments: Sequence[str]) -> None:
    """Run the command line and raise what goes wrong: the twin of `main` for programs and tests.

    Raises SightlineError; click's own usage errors become UsageError.
    """
    try:
        sightline.main(list(arguments), prog_name="sightline", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        raise UsageError("a command is missing") from None
    except click.UsageError as error:
        hint = f" (see `{error.ctx.command_path} --help`)" if error.ctx else ""
        raise UsageError(f"{error.format_message()}{hint}") from None
    except click.ClickException as error:
        raise UsageError(error.format_message()) from None
    except ModuleNotFoundError as error:
        module = OPTIONAL.get((error.name or "").partition(".")[0])
        packages = [point.value.partition(".")[0] for point in entry_points(group=GROUP) if point.name in arguments[:1]]
        if module is None or not packages or packages[0] not in EXTRAS:
            raise
        raise MissingExtra(f"`sightline {arguments[0]}` needs {module}: pip install 'sightline[{EXTRAS[packages[0]]}]'") from None


def main() -> None:
    """Run the command line; print an error as one sentence on stderr and end with its exit code."""
    # Read once, when torch starts its threads: waiting for one another they then sleep. On cores with other work, spinning cost
    # an epoch of mnist up to 69 s instead of 4.4 s.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # What Pillow warns of (size, damaged EXIF) we refuse or allow ourselves, with the image's name in the sentence.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    try:
        run(sys.argv[1:])
    except SightlineError as error:
        from sightline.console import messages

        messages().print(f"error: {error}", style="bold red")
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        print("interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        # The reader of our output has left (`sightline classify … | head`); Python would complain once more while it ends.
        sys.stderr.close()
        sys.exit(141)


if __name__ == "__main__":
    main()
