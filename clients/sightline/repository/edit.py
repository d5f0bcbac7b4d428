"""Changes `config.pbtxt`, the only file of a published model that ever does: which version is served, and how on a machine's cores."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from sightline.errors import RepositoryError, UsageError
from sightline.in_triton import IMAGE, REFORMAT
from sightline.repository.config import Shape, give_shape, shape_in
from sightline.repository.publish import locked, sync_folder, write_new
from sightline.repository.read import CARD_FILE, CONFIG_FILE, Model, read_model, read_text

NEW_CONFIG: Final = ".sightline.config.pbtxt"
"""The new configuration until it is renamed; Triton reads `config.pbtxt` alone."""


def change_shape(
    repository: Path,
    name: str,
    *,
    instances: int | None = None,
    threads: int | None = None,
    queue_delay_us: int | None = None,
    no_batching: bool = False,
) -> Shape:
    """Change what is given of the model's shape, keep the rest, and give the whole. Raises UsageError or RepositoryError."""
    if queue_delay_us is not None and no_batching:
        raise UsageError("--queue-delay is a setting of batching: leave out it or --no-batching")
    changes = {"instances": instances, "threads": threads, "queue_delay_us": queue_delay_us}
    given: dict[str, Any] = {field: value for field, value in changes.items() if value is not None}
    if no_batching:
        given["queue_delay_us"] = None
    shape = replace(shape_in(own_config(published_model(repository, name))), **given)
    set_shape(repository, name, shape)
    return shape


def set_shape(repository: Path, name: str, shape: Shape) -> None:
    """Let the model `name` be spread over a machine as `shape` says, from its server's next start on. Raises RepositoryError."""
    with locked(repository, lambda _sentence: None):
        model = published_model(repository, name)
        config = own_config(model)
        give_shape(config, shape)
        replace_config(model.folder, config)


def published_model(repository: Path, name: str) -> Model:
    """The model `name` of `repository`. Raises RepositoryError, which names those that there are."""
    for suffix in (IMAGE, REFORMAT):
        of = name.removesuffix(suffix)
        if of != name and (repository / of / CARD_FILE).is_file() and not (repository / name / CARD_FILE).exists():
            raise RepositoryError(f"{name} only takes encoded images for {of} and has no versions of its own: name {of}")
    # The name comes from a command line, and must not lead out of the repository.
    model = read_model(repository / name) if repository.is_dir() and Path(name).name == name and name not in ("", ".", "..") else None
    if model is None:
        there = sorted(each.name for each in repository.iterdir() if (each / CARD_FILE).is_file()) if repository.is_dir() else []
        raise RepositoryError(f"there is no model {name} in {repository}: it has {', '.join(there) or 'none'}")
    return model


def own_config(model: Model) -> Any:
    """The configuration to change. Raises RepositoryError if it holds what would be lost on the way."""
    file = model.folder / CONFIG_FILE
    try:
        return text_format.Parse(read_text(file), model_config_pb2.ModelConfig())
    except text_format.ParseError as error:
        raise RepositoryError(
            f"{file} holds settings of a newer Triton than this program knows, which would be lost: {error}. Change it by hand"
        ) from None


def replace_config(folder: Path, config: Any) -> None:
    """Replace the configuration in one rename, so that whoever reads it sees the old or the new one whole. Raises OSError."""
    new = folder / NEW_CONFIG
    new.unlink(missing_ok=True)
    text: str = text_format.MessageToString(config, as_utf8=False)
    write_new(new, text.encode(), mode=0o644)
    os.rename(new, folder / CONFIG_FILE)
    sync_folder(folder)
