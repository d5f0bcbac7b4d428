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
from sightline.reformat import reformat

ENCODED: Final = "pictures"
"""The input of both models that take encoded images: BYTES [N, 1], a whole JPEG, PNG … each."""

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
        pending = [[self.pool.submit(self._pixels_or_reason, content) for content in images] for images in batches]
        responses = []
        for futures in pending:
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
