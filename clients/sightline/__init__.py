"""Sightline's contract and client: the model card, the reference reformatting, the SDK and the command line."""

from sightline.card import ModelCard, Preprocess, seal, unseal
from sightline.classifier import Candidate, Classifier, Guess
from sightline.errors import SightlineError
from sightline.image import ImageInput
from sightline.reformat import reformat

__all__ = ["Candidate", "Classifier", "Guess", "ImageInput", "ModelCard", "Preprocess", "SightlineError", "reformat", "seal", "unseal"]
