"""What a job must know of its classifier besides the card."""

from sightline.classifier import Classifier
from sightline.errors import ModelNotFound
from sightline.transport.patience import patiently


def served_version(classifier: Classifier) -> str:
    """Return the version that a job asks for: the classifier's own, else the newest that its server has loaded."""
    if classifier.version:
        return classifier.version
    models = patiently(classifier._transport.models, classifier._wait_s)
    versions = [int(model.version) for model in models if model.name == classifier.model and model.version.isdecimal()]
    if not versions:
        raise ModelNotFound(f"the server at {classifier.url} lists no version of {classifier.model}")
    return str(max(versions))


def max_pixels_of(classifier: Classifier) -> int:
    """Return the most pixels that an image may have."""
    return classifier._max_pixels
