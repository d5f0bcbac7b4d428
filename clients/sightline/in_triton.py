"""The first step of the ensemble `<model>_image`, inside Triton: encoded images in, the pixels of `sightline.reformat` out.

Triton's Python backend loads it through the `model.py` that `sightline export` publishes. What clients in other languages send goes
through the very function that the Python client calls, so that their images are seen alike. `sightline serve` may let one such model
reformat for many: then each of them has an input and an output of its own.
"""

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from sightline.card import PICTURES_OF, ModelCard, unseal
from sightline.errors import ImageError
from sightline.host.cpu import usable_cores
from sightline.image import MAX_PIXELS, declared_pixels
from sightline.preprocess import AnyPreprocess
from sightline.reformatting import reformat

Outcome = npt.NDArray[np.uint8] | str
"""The pixels of an image, or what is wrong with it."""

ENCODED: Final = "pictures"
"""The input of both models that take encoded images: BYTES [N, 1], a whole JPEG, PNG … each."""

MAX_REQUEST_PIXELS: Final = 4 * MAX_PIXELS
"""358 million, of all images of one request: thirty photos of 12 megapixels, or four of the largest image. Files of some kilobytes can
claim that much each, and 64 of them kept two cores busy for 23 s."""

REFORMAT: Final = "_reformat"
IMAGE: Final = "_image"
"""What is appended to a model's name."""
SHARED: Final = "sightline_reformatting"
"""The model that reformats for all others, where `sightline serve` has started one instead of a `<model>_reformat` each."""
SHARED_OF: Final = f"{PICTURES_OF}_"
"""What its parameters with cards begin with; the model's name follows."""


def shared_tensors(card: ModelCard) -> tuple[str, str]:
    """Return the names of the input and of the output by which the shared model reformats for `card`'s."""
    return f"{ENCODED}_{card.name}", f"{card.input}_{card.name}"


class InputTensor(Protocol):
    """An input of a request, as Triton's Python backend gives it (`pb_utils.Tensor`)."""

    def name(self) -> str:
        """Return the input's name."""
        ...

    def as_numpy(self) -> npt.NDArray[np.object_]:
        """Return its values, bytes [N, 1]."""
        ...


class InferenceRequest(Protocol):
    """A request, as Triton's Python backend gives it (`pb_utils.InferenceRequest`)."""

    def inputs(self) -> Sequence[InputTensor]:
        """Return the inputs that it came with."""
        ...


@dataclass(frozen=True)
class _Task:
    """What is done with one input."""

    output: str
    preprocess: AnyPreprocess


class TritonPythonModel:
    """One instance: its threads decode the images of all requests that wait together."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Read the card, or those of all models, from the configuration. Raises ContractError, whose text Triton logs."""
        config = json.loads(args["model_config"])
        self.tasks: dict[str, _Task] = {}
        for key, parameter in config["parameters"].items():
            if key == PICTURES_OF or key.startswith(SHARED_OF):
                card = unseal(parameter["string_value"], f"config.pbtxt of model {config['name']}")
                taken, given = (ENCODED, card.input) if key == PICTURES_OF else shared_tensors(card)
                self.tasks[taken] = _Task(given, card.preprocess)
        # Pillow decodes and scales without Python's lock.
        self.pool = ThreadPoolExecutor(usable_cores())

    def execute(self, requests: Sequence[InferenceRequest]) -> list[object]:
        """Answer each request with uint8 pixels [N, height, width, channels], or with the first image that cannot be read."""
        import triton_python_backend_utils as triton

        responses = []
        for futures, refusal, output in [self._begun(request.inputs()) for request in requests]:
            if refusal:
                responses.append(triton.InferenceResponse(error=triton.TritonError(refusal, triton.TritonError.INVALID_ARG)))
                continue
            outcomes = [future.result() for future in futures]
            refused = next((index for index, outcome in enumerate(outcomes) if isinstance(outcome, str)), None)
            if refused is None:
                responses.append(triton.InferenceResponse([triton.Tensor(output, np.stack(outcomes))]))
            else:
                which = f"image {refused} of {len(outcomes)} (counted from 0)" if len(outcomes) > 1 else "the image"
                error = triton.TritonError(f"{which} was refused: {outcomes[refused]}", triton.TritonError.INVALID_ARG)
                responses.append(triton.InferenceResponse(error=error))
        return responses

    def finalize(self) -> None:
        """End the threads."""
        self.pool.shutdown()

    def _begun(self, inputs: Sequence[InputTensor]) -> tuple[list[Future[Outcome]], str, str]:
        """Let the threads begin with a request: what will come of each image, why none of it is decoded, and what the output is called."""
        if len(inputs) != 1:
            return [], f"a request is answered for one model, and this one has {len(inputs)} inputs", ""
        task = self.tasks[inputs[0].name()]
        images: list[bytes] = inputs[0].as_numpy().reshape(-1).tolist()
        refusal = _too_much(images)
        futures = [] if refusal else [self.pool.submit(_pixels_or_reason, content, task.preprocess) for content in images]
        return futures, refusal, task.output


def _pixels_or_reason(content: bytes, preprocess: AnyPreprocess) -> Outcome:
    try:
        return reformat(bytes(content), preprocess)
    except ImageError as error:
        return str(error).removeprefix("image: ")
    except Exception as error:  # noqa: BLE001 - one request's image must not fail those of its neighbours
        return f"it could not be read ({type(error).__name__})"


def _too_much(images: Sequence[bytes]) -> str:
    """Return why the images of a request are not decoded; empty if they are. One alone is judged when it is decoded."""
    if len(images) > 1 and sum(declared_pixels(bytes(content)) for content in images) > MAX_REQUEST_PIXELS:
        return f"the {len(images)} images of the request have more than {MAX_REQUEST_PIXELS:,} pixels together: send fewer at a time"
    return ""
