"""The SDK against the shipped fake transport: what it sends, what it believes, what it refuses."""

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from sightline import Classifier, ImageInput, reformat, seal
from sightline.errors import ContractError, ImageError, ModelError, ModelNotFound, ServerUnavailable, UsageError
from sightline.testing import FakeTransport
from sightline.transport import InferResult, ServedConfig, ServedVersion, TensorSpec
from support.fake_network import LABELS, brightest, card


def plain(colour: str) -> Image.Image:
    return Image.new("RGB", (20, 20), colour)


def test_guesses_come_in_the_order_of_the_images_with_labels_from_the_served_card() -> None:
    with Classifier("colours", transport=FakeTransport(card(), brightest)) as classifier:
        guesses = classifier.classify([plain("blue"), plain("red"), plain("lime")], top=2)
    assert [guess.label for guess in guesses] == ["blue", "red", "green"]
    assert [guess.index for guess in guesses] == [2, 0, 1]
    assert guesses[0].probability == pytest.approx(1.0)
    assert [len(guess.top) for guess in guesses] == [2, 2, 2]
    assert guesses[0].top[0].label == guesses[0].label
    assert guesses[0].version == "1"


def test_more_classes_than_there_are_gives_all_of_them_once() -> None:
    classifier = Classifier("colours", transport=FakeTransport(card(), brightest))
    assert sorted(candidate.label for candidate in classifier.classify(plain("red"), top=99)[0].top) == sorted(LABELS)


def test_an_image_may_be_a_path_bytes_an_image_or_an_array(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    plain("blue").save(path)
    classifier = Classifier("colours", transport=FakeTransport(card(), brightest))
    kinds: list[ImageInput] = [path, str(path), path.read_bytes(), plain("blue"), np.asarray(plain("blue"))]
    assert [guess.label for guess in classifier.classify(kinds)] == ["blue"] * 5
    assert [classifier.classify(kind)[0].label for kind in kinds] == ["blue"] * 5


def test_requests_are_cut_to_the_models_batch_and_hold_exactly_the_reformatted_pixels() -> None:
    transport = FakeTransport(card(), brightest)
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (11, 13, 3), dtype=np.uint8) for _ in range(11)]
    probabilities = Classifier("colours", transport=transport).probabilities(images)
    pixels = np.stack([reformat(image, card().preprocess) for image in images])
    # Requests are under way at the same time, and may arrive in another order.
    assert sorted(request.tobytes() for request in transport.requests) == sorted(pixels[at : at + 4].tobytes() for at in (0, 4, 8))
    assert np.array_equal(probabilities, brightest(pixels))


def test_requests_are_cut_by_bytes_too() -> None:
    spec = card().preprocess.model_copy(update={"size": (2048, 2048)})
    classifier = Classifier("colours", transport=FakeTransport(card(preprocess=spec, max_batch_size=64), brightest))
    assert classifier.batch_size * 2048 * 2048 * 3 <= 32 * 1024**2
    assert classifier.batch_size == 2


def test_no_images_give_no_guesses_and_send_nothing() -> None:
    transport = FakeTransport(card(), brightest)
    classifier = Classifier("colours", transport=transport)
    assert classifier.classify([]) == []
    assert classifier.probabilities([]).shape == (0, 3)
    assert transport.requests == []


def test_an_unreadable_image_raises_with_its_name_and_gets_no_label(tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_text("not an image")
    classifier = Classifier("colours", transport=FakeTransport(card(), brightest))
    with pytest.raises(ImageError) as refusal:
        classifier.classify([plain("red"), broken])
    assert str(refusal.value).startswith(f"{broken}: not an image in a format that is read here (JPEG, ")


def test_stream_goes_on_after_an_unreadable_image_and_keeps_the_order(tmp_path: Path) -> None:
    missing = tmp_path / "missing.png"
    images: list[ImageInput] = [plain("red"), missing, plain("blue"), missing, plain("lime"), plain("blue")]
    classifier = Classifier("colours", transport=FakeTransport(card(), brightest))
    outcomes = list(classifier.stream(images))
    assert [
        outcome if isinstance(outcome, ImageError) else outcome.label for outcome in outcomes if not isinstance(outcome, ImageError)
    ] == [
        "red",
        "blue",
        "green",
        "blue",
    ]
    assert [isinstance(outcome, ImageError) for outcome in outcomes] == [False, True, False, True, False, False]
    assert str(outcomes[1]) == f"{missing}: cannot be read: No such file or directory"


def test_stream_reads_no_further_ahead_than_its_requests_in_flight() -> None:
    waits = []

    def endless() -> Any:
        for number in range(10**9):
            waits.append(number)
            yield plain("red")

    classifier = Classifier("colours", transport=FakeTransport(card(), brightest))
    assert next(classifier.stream(endless())).label == "red"  # type: ignore[union-attr]
    assert len(waits) == 5 * classifier.batch_size


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (lambda n: np.full((n, 3), np.nan, np.float32), "answered with numbers that are not finite: it is broken, no label is given"),
        (lambda n: np.full((n, 3), np.inf, np.float32), "answered with numbers that are not finite"),
        (lambda n: np.full((n, 3), 0.9, np.float32), "answered with numbers that are no probabilities: no label is given"),
        (lambda n: np.tile(np.array([1.5, -0.5, 0.0], np.float32), (n, 1)), "answered with numbers that are no probabilities"),
        (lambda n: np.full((n, 4), 0.25, np.float32), "answered float32 (1, 4) instead of float32 (1, 3)"),
        (lambda n: np.full((n + 1, 3), 1 / 3, np.float32), "answered float32 (2, 3) instead of float32 (1, 3)"),
    ],
)
def test_an_answer_that_is_no_distribution_never_becomes_a_label(answer: Any, sentence: str) -> None:
    classifier = Classifier("colours", transport=FakeTransport(card(), lambda pixels: answer(len(pixels))))
    with pytest.raises(ModelError) as refusal:
        classifier.classify(plain("red"))
    assert sentence in str(refusal.value)
    assert str(refusal.value).startswith("the model colours on fake://")


class Served(FakeTransport):
    """A fake whose configuration was altered."""

    def __init__(self, **changes: Any) -> None:
        super().__init__(card(), brightest)
        self.changes = changes

    def config(self, model: str, version: str = "") -> ServedConfig:
        return ServedConfig(**{**vars(super().config(model, version)), **self.changes})


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"sealed_card": None}, 'there is no model card under parameters["model_card"]'),
        ({"sealed_card": "{}"}, 'expected an object with exactly the members "card" and "sha256"'),
        ({"sealed_card": seal(card()).replace("0.5", "0.6", 1)}, "it was changed after it was written: the sha256 beside it is"),
        ({"sealed_card": seal(card(name="shapes"))}, "the card says that the name is shapes, the configuration says colours"),
        ({"outputs": (TensorSpec("probabilities", "TYPE_FP32", (4,)),)}, "the card says that the output is"),
        ({"inputs": (TensorSpec("pixels", "TYPE_FP32", (8, 6, 3)),)}, "the card says that the input is"),
        ({"inputs": ()}, "the card says that the input is"),
        ({"max_batch_size": 0}, "max_batch_size is 0, so the model takes no batches"),
    ],
)
def test_a_card_that_is_missing_tampered_or_contradicted_is_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ContractError) as refusal:
        Classifier("colours", transport=Served(**changes))
    assert str(refusal.value).startswith("config.pbtxt of the model colours on fake://: ")
    assert sentence in str(refusal.value)


def test_an_unknown_model_is_named() -> None:
    with pytest.raises(ModelNotFound, match="not flowers"):
        Classifier("flowers", transport=FakeTransport(card(), brightest))


@pytest.mark.parametrize("version", ["two", "1.0", "-1", "٣", "../1", "1" * 30])
def test_a_version_is_a_whole_number(version: str) -> None:
    with pytest.raises(UsageError, match="a model's version is a whole number"):
        Classifier("colours", transport=FakeTransport(card(), brightest), version=version)


@pytest.mark.parametrize(("pixels"), [np.zeros((1, 6, 8, 3), np.uint8), np.zeros((8, 6, 3), np.uint8), np.zeros((1, 8, 6, 3), np.float32)])
def test_pixels_of_another_shape_or_type_are_refused_before_they_are_sent(pixels: Any) -> None:
    transport = FakeTransport(card(), brightest)
    with pytest.raises(UsageError, match=r"pixels must be uint8 \[N, 8, 6, 3\], not "):
        Classifier("colours", transport=transport).probabilities_of_pixels(pixels)
    assert transport.requests == []


class Flaky(FakeTransport):
    """Nobody answers the first `absences` times."""

    def __init__(self, absences: int) -> None:
        super().__init__(card(), brightest)
        self.absences = absences
        self.asked = 0

    def infer(self, *arguments: Any) -> InferResult:
        self.asked += 1
        if self.asked <= self.absences:
            raise ServerUnavailable("nobody")
        return super().infer(*arguments)


def test_a_request_that_found_nobody_is_asked_again() -> None:
    transport = Flaky(2)
    assert Classifier("colours", transport=transport).classify(plain("red"))[0].label == "red"
    assert transport.asked == 3


def test_who_waits_is_told_what_for_and_how_long() -> None:
    told: list[tuple[str, float]] = []
    classifier = Classifier(
        "colours", transport=Flaky(3), wait_s=5, on_wait=lambda error, waited_s: told.append((f"{type(error).__name__}: {error}", waited_s))
    )
    classifier.classify(plain("red"))
    assert [words for words, _ in told] == ["ServerUnavailable: nobody"] * 3
    assert 0 <= told[0][1] < told[1][1] < told[2][1] < 5


def test_the_version_that_answers_is_the_newest_that_is_loaded() -> None:
    class Many(FakeTransport):
        def models(self) -> list[ServedVersion]:
            return [ServedVersion(name, version, 0) for name, version in (("colours", "9"), ("colours", "10"), ("other", "11"))]

    assert Classifier("colours", transport=Many(card(), brightest)).served_version() == "10"
    assert Classifier("colours", transport=Many(card(), brightest, version="9"), version="9").served_version() == "9"
    with pytest.raises(ModelNotFound, match=r"^the server at fake:// has no such model or version any more: colours version 7$"):
        Classifier("colours", transport=Many(card(), brightest, version="7"), version="7").served_version()


def test_nobody_is_asked_again_for_as_long_as_the_caller_waits_and_no_longer() -> None:
    transport = Flaky(1_000)
    began = time.monotonic()
    with pytest.raises(ServerUnavailable):
        Classifier("colours", transport=transport, wait_s=0.3).classify(plain("red"))
    assert time.monotonic() - began >= 0.3
    assert 3 <= transport.asked <= 6
    impatient = Flaky(1)
    with pytest.raises(ServerUnavailable):
        Classifier("colours", transport=impatient, wait_s=0).classify(plain("red"))
    assert impatient.asked == 1


@pytest.mark.parametrize("wait_s", [-1.0, float("nan"), float("inf")])
def test_a_time_to_wait_is_a_number_of_seconds(wait_s: float) -> None:
    with pytest.raises(UsageError, match=rf"^the time to wait for a server must be 0 s or more, not {wait_s:g}$"):
        Classifier("colours", transport=Flaky(0), wait_s=wait_s)


def test_a_failure_of_the_model_is_not_asked_again() -> None:
    requests = []

    def broken(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        requests.append(len(pixels))
        raise ModelError("broken")

    with pytest.raises(ModelError, match="broken"):
        Classifier("colours", transport=FakeTransport(card(), broken)).classify(plain("red"))
    assert requests == [1]


def test_many_threads_share_one_classifier_without_mixing_answers() -> None:
    classifier = Classifier("colours", transport=FakeTransport(card(), brightest))
    mistakes: list[str] = []

    def work(colour: str, label: str) -> None:
        mistakes.extend(guess.label for guess in classifier.classify([plain(colour)] * 50) if guess.label != label)

    threads = [threading.Thread(target=work, args=pair) for pair in [("red", "red"), ("lime", "green"), ("blue", "blue")] * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert mistakes == []
