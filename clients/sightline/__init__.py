"""Sightline's contract and client: the model card, the reference reformatting, the SDK and the command line.

Each name is imported when it is first asked for: `sightline --help` needs none of them, and a blocking client nothing of the other one.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from sightline.async_classifier import AsyncClassifier
    from sightline.card import ModelCard, seal, unseal
    from sightline.classifier import Classifier, ClassProbability, Guess
    from sightline.errors import (
        BuildError,
        ContractError,
        DataError,
        DeadlineExceeded,
        GateRefused,
        HopDiffers,
        ImageError,
        MachineError,
        MissingExtra,
        ModelError,
        ModelNotFound,
        PublishError,
        RepositoryError,
        RowsFailed,
        ServerError,
        ServerStartError,
        ServerUnavailable,
        SightlineError,
        UsageError,
    )
    from sightline.image import ImageInput
    from sightline.preprocess import Preprocess, PreprocessV1, PreprocessV2
    from sightline.reformatting import reformat
    from sightline.transport import AsyncTransport, Tls, Transport

__all__ = [
    "AsyncClassifier",
    "AsyncTransport",
    "BuildError",
    "ClassProbability",
    "Classifier",
    "ContractError",
    "DataError",
    "DeadlineExceeded",
    "GateRefused",
    "Guess",
    "HopDiffers",
    "ImageError",
    "ImageInput",
    "MachineError",
    "MissingExtra",
    "ModelCard",
    "ModelError",
    "ModelNotFound",
    "Preprocess",
    "PreprocessV1",
    "PreprocessV2",
    "PublishError",
    "RepositoryError",
    "RowsFailed",
    "ServerError",
    "ServerStartError",
    "ServerUnavailable",
    "SightlineError",
    "Tls",
    "Transport",
    "UsageError",
    "reformat",
    "seal",
    "unseal",
]

_HOME: Final = {
    "async_classifier": ("AsyncClassifier",),
    "card": ("ModelCard", "seal", "unseal"),
    "classifier": ("Classifier", "ClassProbability", "Guess"),
    "image": ("ImageInput",),
    "preprocess": ("Preprocess", "PreprocessV1", "PreprocessV2"),
    "reformatting": ("reformat",),
    "transport": ("AsyncTransport", "Tls", "Transport"),
}
"""Module below `sightline` → its names; all others are errors."""
_MODULES: Final = {name: module for module, names in _HOME.items() for name in names}


def __getattr__(name: str) -> object:
    """Import a public name (PEP 562). Raises AttributeError for any other."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULES.get(name, 'errors')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
