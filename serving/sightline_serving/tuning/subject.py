"""What is measured: a published model, or the one that takes encoded images for it; how it is served, and what it is sent."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from sightline.bench.expected import expected_answers, published_answers
from sightline.bench.perf_analyzer import encoded_data, input_data
from sightline.bench.run import opened
from sightline.errors import ModelError, RepositoryError, UsageError
from sightline.host.files import read_bytes
from sightline.image import MAX_BYTES, ImageInput
from sightline.in_triton import ENCODED, IMAGE, REFORMAT
from sightline.reformatting import reformat
from sightline.repository.edit import editable
from sightline.repository.instances import instances_of, with_count, with_instances
from sightline.repository.read import ModelFolder, PublishedModel, model_named, read_folder
from sightline.transport import Transport, connect
from sightline_serving.selection.fitting_cores import fitted_to
from sightline_serving.selection.plan_selection import Replacement
from sightline_serving.selection.preflight import Selection, select_versions
from sightline_serving.server import Server, start_selection
from sightline_serving.settings import FREE_PORTS
from sightline_serving.tuning.candidates import Candidate

MOST_IMAGES: Final = 32
"""That are sent, again and again. A network takes as long for one as for another; decoders do not, and so there are some."""
DATA_BYTES: Final = 32 * 1024 * 1024
"""perf_analyzer reads them all before each measurement."""
Content = bytes | npt.NDArray[np.uint8]

CALL_S: Final = 60.0
AS_MEASURED: Final = replace(FREE_PORTS, fit_cores=False, plans=False)
"""What a candidate says is what is served."""


@dataclass(frozen=True)
class Subject:
    """A model to measure, and its images."""

    repository: Path
    model: PublishedModel
    selection: Selection
    """What is served: the model, and what takes encoded images for it where these are sent."""
    images: tuple[Content, ...]
    """Encoded, or uint8 [H, W, C] each."""
    cores: int

    @property
    def encoded(self) -> bool:
        """Whether encoded images are sent."""
        return len(self.selection.folders) > 1

    @property
    def name(self) -> str:
        """Of the model that is asked."""
        return self.model.name + IMAGE if self.encoded else self.model.name

    @property
    def present(self) -> Candidate:
        """What `sightline serve` serves on this machine."""
        fitted = fitted_to(self.model, self.cores)
        settings = instances_of(self.model.config) if fitted is None else fitted.settings
        return Candidate(settings, reformats_of(self.selection.folders[self.model.name + REFORMAT]) if self.encoded else None)

    def data(self) -> str:
        """Return perf_analyzer's file of the images."""
        if self.encoded:
            return encoded_data(ENCODED, [image for image in self.images if isinstance(image, bytes)])
        return input_data(self.model.card, np.stack([image for image in self.images if not isinstance(image, bytes)]), None)

    @contextmanager
    def served(self, candidate: Candidate) -> Iterator[Server]:
        """Serve it as `candidate` says until the block ends. Raises ModelError if it does not answer as it was published."""
        configs = {name: folder.config for name, folder in self.selection.folders.items()}
        configs[self.model.name] = with_instances(configs[self.model.name], candidate.instances)
        if candidate.reformats is not None:
            name = self.model.name + REFORMAT
            configs[name] = with_count(configs[name], candidate.reformats)
        folders = {name: replace(folder, config=configs[name]) for name, folder in self.selection.folders.items()}
        replacements = {name: Replacement(config, {}) for name, config in configs.items()}
        serving = replace(self.selection, folders=folders)
        with start_selection(self.repository.resolve(), serving, AS_MEASURED, replacements) as server:
            self._demand_right_answers(server)
            yield server

    def ask_once(self, transport: Transport) -> float:
        """Ask about the first image, and return how long the answer took, in seconds."""
        card, first = self.model.card, self.images[0]
        began_s = time.monotonic()
        if isinstance(first, bytes):
            transport.infer_encoded(self.name, "", ENCODED, [first], card.output)
        else:
            transport.infer(self.name, "", card.input, first[None], card.output)
        return time.monotonic() - began_s

    def _demand_right_answers(self, server: Server) -> None:
        card = self.model.card
        with connect(server.grpc_url, CALL_S) as transport:
            served = opened(transport, card, "")
            first = self.images[0]
            pixels = reformat(first, card.preprocess) if isinstance(first, bytes) else first
            alone = expected_answers(transport, served, [pixels], published_answers(served, None))
            if isinstance(first, bytes):
                answer = transport.infer_encoded(self.name, "", ENCODED, [first], card.output).values
                delta = float(np.abs(answer.astype(np.float64) - alone.answers).max())
                if not delta <= alone.tolerance:
                    raise ModelError(
                        f"{self.name} answers otherwise than {self.model.name} to the same image (|Δp| {delta:.3g}, {alone.tolerance:g} is "
                        "allowed), so its speed means nothing"
                    )


def subject_named(repository: Path, name: str, images: Sequence[ImageInput], cores: int) -> Subject:
    """Read the model `name`, or the one that `<model>_image` is for, with images to send.

    Raises RepositoryError if there is none, or if its configuration could not be changed; UsageError without images.
    """
    base = name.removesuffix(IMAGE)
    encoded = base != name and (repository / name).is_dir() and (repository / base).is_dir()
    model = model_named(repository, base if encoded else name)
    editable(model)
    if not images:
        raise UsageError("there are no images to measure with")
    others = {each: read_folder(repository / each) for each in (base + REFORMAT, base + IMAGE)} if encoded else {}
    if encoded and not all(folder.versions for folder in others.values()):
        raise RepositoryError(f"{name} in {repository} is not whole: export {base} again")
    selection = select_versions({model.name: model, **others})
    contents = [_encoded(image) if encoded else reformat(image, model.card.preprocess) for image in images[:MOST_IMAGES]]
    return Subject(repository, model, selection, tuple(_within(contents)), cores)


def reformats_of(folder: ModelFolder) -> int:
    """Return the processes in which a model that reformats works."""
    return sum(max(1, group.count) for group in folder.config.instance_groups) or 1


def _within(contents: Sequence[Content]) -> Iterator[Content]:
    total = 0
    for content in contents:
        size = len(content) if isinstance(content, bytes) else content.nbytes
        if total and total + size > DATA_BYTES:
            return
        total += size
        yield content


def _encoded(image: ImageInput) -> bytes:
    if isinstance(image, bytes):
        return image
    if isinstance(image, str | Path):
        return read_bytes(image, MAX_BYTES)
    raise UsageError("to a model that takes encoded images, files are sent: name their paths, or give their bytes")
