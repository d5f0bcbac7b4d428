"""Sightline's contract and client: the model card, the reference reformatting, the SDK and the command line."""

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
from sightline.reformat import reformat
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
