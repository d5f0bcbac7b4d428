"""Everything that can go wrong, as one tree: who is at fault decides the class, and the class decides the exit code.

SightlineError                     1
├── UsageError                     2   the words of the caller: the command line or the arguments of a call
├── ImageError                     3   the image cannot be read, or not as an image
├── ContractError                  4   a model card is missing, unknown, tampered with or contradicted
├── ServerError                    5   the server answered with a failure that is its own
│   ├── ServerUnavailable          6   nobody answers at the address
│   ├── DeadlineExceeded           7   no answer within the time given
│   └── ServerStartError           8   Triton did not start, or died
├── ModelError                     9   the server is well, the model is not
│   └── ModelNotFound             10   the server has no such model or version
├── DataError                     11   a dataset is missing or damaged
├── GateRefused                   12   the exported model is not the same model
├── RepositoryError               13   the model repository, or a version in it, is missing or damaged
│   └── PublishError              19   nothing could be published in it
├── HopDiffers                    14   `sightline verify` or `compare` found answers that part
├── MissingExtra                  15   an optional dependency is not installed
├── RowsFailed                    16   a batch job finished, but some images could not be scored
├── MachineError                  17   the machine cannot do it: no driver, no room on the disk, a folder that cannot be written
└── BuildError                    18   TensorRT would not build a plan

A message is one sentence or two: what is wrong, where, and what to do about it.
"""

from typing import Literal, TypeAlias


class SightlineError(Exception):
    """The root of the tree. `exit_code` is what the `sightline` command ends with.

    `settings` are the names of the arguments or settings that the caller could change to get further: a function does not know what
    its command calls them, and the command adds the names of its options to the message.
    """

    exit_code = 1

    def __init__(self, *args: object, settings: tuple[str, ...] = ()) -> None:
        super().__init__(*args)
        self.settings = settings


class UsageError(SightlineError):
    """The command line, or the arguments of a call, make no sense."""

    exit_code = 2


ImageErrorKind: TypeAlias = Literal["image", "unsupported", "too-large", "empty", "unreadable-file"]
"""Why there is no image: the content is damaged or is none; it is an image of a kind that is not read here; it has more bytes or pixels
than allowed; there is no content; the system does not let it be read."""


class ImageError(SightlineError):
    """The image cannot be read, is too large, or is not an image. No label is ever given for it. `kind` says so in a word."""

    exit_code = 3

    def __init__(self, *args: object, kind: ImageErrorKind = "image", settings: tuple[str, ...] = ()) -> None:
        super().__init__(*args, settings=settings)
        self.kind: ImageErrorKind = kind


class ContractError(SightlineError):
    """A model card is missing, of an unknown version, damaged, tampered with, or contradicted by the model."""

    exit_code = 4


class ServerError(SightlineError):
    """The server answered with a failure that is its own."""

    exit_code = 5


class ServerUnavailable(ServerError):
    """Nobody answers at the address, or the connection broke before an answer."""

    exit_code = 6


class DeadlineExceeded(ServerError):
    """No answer within the time that the caller allowed."""

    exit_code = 7


class ServerStartError(ServerError):
    """Triton did not start, did not become ready, or died. The message ends with the end of Triton's log."""

    exit_code = 8


class ModelError(SightlineError):
    """The server is well, the model is not: not ready, or its answer is no probability distribution."""

    exit_code = 9


class ModelNotFound(ModelError):
    """The server has no model of that name, or not that version of it."""

    exit_code = 10


class DataError(SightlineError):
    """A dataset or a run folder is missing, incomplete or damaged."""

    exit_code = 11


class GateRefused(SightlineError):
    """The exported model does not give the trained model's answers, so it is not published."""

    exit_code = 12


class RepositoryError(SightlineError):
    """The model repository, or a model or version in it, is missing, damaged or contradicts itself."""

    exit_code = 13


class PublishError(RepositoryError):
    """Nothing could be published: the repository cannot take this version. It is as it was before."""

    exit_code = 19


class HopDiffers(SightlineError):
    """Two neighbouring hops of the line, or two models that were compared, differ more than they may for the same image."""

    exit_code = 14


class MissingExtra(SightlineError):
    """An optional dependency is not installed."""

    exit_code = 15


class RowsFailed(SightlineError):
    """A batch job wrote all its rows, but for some images the row holds an error instead of a label."""

    exit_code = 16


class MachineError(SightlineError):
    """The machine cannot do it: no NVIDIA driver, no room on the disk, a folder that cannot be written."""

    exit_code = 17


class BuildError(SightlineError):
    """TensorRT would not build a plan, or built another one than was asked for."""

    exit_code = 18
