"""The shipped fake transport keeps what its docstring promises to the tests of applications."""

import numpy as np
import pytest

from sightline import Classifier, DeadlineExceeded, ModelNotFound, Transport
from sightline.testing import FakeTransport
from support.fake_network import brightest, card


def test_the_fake_is_a_transport_and_keeps_what_was_sent() -> None:
    transport = FakeTransport(card(), brightest, version="7")
    assert isinstance(transport, Transport)
    with Classifier("colours", transport=transport) as colours:
        guess = colours.classify(np.full((9, 9, 3), (0, 0, 255), np.uint8))[0]
    assert (guess.label, guess.version) == ("blue", "7")
    assert [request.shape for request in transport.requests] == [(1, 8, 6, 3)]
    assert [(served.name, served.version, served.inferences) for served in transport.models()] == [("colours", "7", 1)]


def test_an_error_of_the_function_reaches_the_application() -> None:
    def late(_pixels: object) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
        raise DeadlineExceeded("too late")

    with Classifier("colours", transport=FakeTransport(card(), late)) as colours, pytest.raises(DeadlineExceeded, match=r"^too late$"):
        colours.classify(np.zeros((9, 9, 3), np.uint8))


def test_another_model_or_version_is_not_there() -> None:
    for model, version in (("shapes", ""), ("colours", "2")):
        with pytest.raises(ModelNotFound, match=f"^the fake transport has colours version 1, not {model} {version}$"):
            Classifier(model, transport=FakeTransport(card(), brightest), version=version)
    with pytest.raises(ModelNotFound, match="has no model for encoded images"):
        FakeTransport(card(), brightest).infer_encoded("colours_image", "", "pictures", [b""], "probabilities")
