"""Feed a served model from a torch DataLoader, whose workers reformat the images: python examples/data_loader.py FOLDER

For programs that have such a loader already, as for active learning or for comparing with a network of their own. A worker gives what
the network gets, uint8 pixels, or why an image cannot be read; the batch is sent as it is. Prints a line for each image. Without
torch, `Classifier.stream` reads ahead and keeps several requests in flight by itself.
"""

import os
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
from torch.utils.data import DataLoader, Dataset

from sightline import Classifier, ImageError, reformat
from sightline.preprocess import Preprocess
from sightline.scoring import images_below

Sample = tuple[Path, npt.NDArray[np.uint8] | None, str]
"""Path, pixels [H, W, C], and why there are none."""


class Reformatted(Dataset[Sample]):
    """Images as the model's card wants them."""

    def __init__(self, paths: list[Path], spec: Preprocess) -> None:
        self.paths, self.spec = paths, spec

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Sample:
        """Reformat one image, in a worker. An error that a worker raised would end the loop."""
        try:
            return self.paths[index], reformat(self.paths[index], self.spec), ""
        except ImageError as error:
            return self.paths[index], None, str(error)


def as_they_are(samples: list[Sample]) -> list[Sample]:
    """Put no tensors together: an image that cannot be read has none."""
    return samples


if __name__ == "__main__":
    with Classifier("mnist", url=os.environ.get("SIGHTLINE_URL", "grpc://localhost:8001")) as mnist:
        images = Reformatted(list(images_below(Path(sys.argv[1]))), mnist.card.preprocess)
        for batch in DataLoader(images, batch_size=mnist.batch_size, num_workers=2, collate_fn=as_they_are):
            pixels = [sample[1] for sample in batch if sample[1] is not None]
            guesses = iter(mnist.classify_pixels(np.stack(pixels)) if pixels else ())
            for path, readable, error in batch:
                print(f"{path}: {error}" if readable is None else f"{path}: {next(guesses).label}")
