"""The first step of the ensemble `<model>_image`, inside Triton: encoded images in, the pixels of `sightline.reformat` out.

Triton's Python backend loads it through the `model.py` that `sightline export` publishes. What clients in other languages send goes
through the very function that the Python client calls, so that their images are seen alike.
"""

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import numpy as np
import numpy.typing as npt

from sightline.card import PICTURES_OF, unseal
from sightline.errors import ImageError
from sightline.host.cpu import usable_cores
from sightline.image import MAX_PIXELS, declared_pixels
from sightline.reformatting import reformat

ENCODED: Final = "pictures"
"""The input of both models that take encoded images: BYTES [N, 1], a whole JPEG, PNG … each."""

MAX_REQUEST_PIXELS: Final = 4 * MAX_PIXELS
"""358 million, of all images of one request: thirty photos of 12 megapixels, or four of the largest image. Files of some kilobytes can
claim that much each, and 64 of them kept two cores busy for 23 s."""

REFORMAT: Final = "_reformat"
IMAGE: Final = "_image"
"""What is appended to a model's name."""


class TritonPythonModel:
    """One instance: its threads decode the images of all requests that wait together."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Read the card from the configuration. Raises ContractError, whose text Triton logs."""
        config = json.loads(args["model_config"])
        self.card = unseal(config["parameters"][PICTURES_OF]["string_value"], f"config.pbtxt of model {config['name']}")
        self.pixels = config["output"][0]["name"]
        # Pillow decodes and scales without Python's lock.
        self.pool = ThreadPoolExecutor(usable_cores())

    def execute(self, requests: Sequence[object]) -> list[object]:
        """Answer each request with uint8 pixels [N, height, width, channels], or with the first image that cannot be read."""
        import triton_python_backend_utils as triton

        batches = [triton.get_input_tensor_by_name(request, ENCODED).as_numpy().reshape(-1) for request in requests]
        refusals = [_too_much(images) for images in batches]
        pending = [
            [] if refusal else [self.pool.submit(self._pixels_or_reason, content) for content in images]
            for images, refusal in zip(batches, refusals, strict=True)
        ]
        responses = []
        for futures, refusal in zip(pending, refusals, strict=True):
            if refusal:
                responses.append(triton.InferenceResponse(error=triton.TritonError(refusal, triton.TritonError.INVALID_ARG)))
                continue
            outcomes = [future.result() for future in futures]
            refused = next((index for index, outcome in enumerate(outcomes) if isinstance(outcome, str)), None)
            if refused is None:
                responses.append(triton.InferenceResponse([triton.Tensor(self.pixels, np.stack(outcomes))]))
            else:
                which = f"image {refused} of {len(outcomes)} (counted from 0)" if len(outcomes) > 1 else "the image"
                error = triton.TritonError(f"{which} was refused: {outcomes[refused]}", triton.TritonError.INVALID_ARG)
                responses.append(triton.InferenceResponse(error=error))
        return responses

    def finalize(self) -> None:
        """End the threads."""
        self.pool.shutdown()

    def _pixels_or_reason(self, content: bytes) -> npt.NDArray[np.uint8] | str:
        """The pixels, or what is wrong with the image."""
        try:
            return reformat(bytes(content), self.card.preprocess)
        except ImageError as error:
            return str(error).removeprefix("image: ")
        except Exception as error:  # noqa: BLE001 - one request's image must not fail those of its neighbours
            return f"it could not be read ({type(error).__name__})"


def _too_much(images: Sequence[bytes]) -> str:
    """Return why the images of a request are not decoded; empty if they are. One alone is judged when it is decoded."""
    if len(images) > 1 and sum(declared_pixels(bytes(content)) for content in images) > MAX_REQUEST_PIXELS:
        return f"the {len(images)} images of the request have more than {MAX_REQUEST_PIXELS:,} pixels together: send fewer at a time"
    return ""
