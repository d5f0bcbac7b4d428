"""Changes `config.pbtxt`, the only file of a published model that ever does: which version is served, and how on a machine's cores."""

import os
from dataclasses import replace
from pathlib import Path

from sightline.errors import RepositoryError
from sightline.host.cpu import usable_cores
from sightline.host.files import sync_folder, write_new
from sightline.in_triton import REFORMAT
from sightline.repository.config import ModelConfig, VersionPolicy
from sightline.repository.config_text import config_text
from sightline.repository.instances import InstanceChanges, InstanceSettings, instances_of, marked_as_set, with_count, with_instances
from sightline.repository.layout import CONFIG_FILE, NEW_CONFIG_FILE
from sightline.repository.publish import locked
from sightline.repository.read import ModelFolder, PublishedModel, model_named, read_folder
from sightline.repository.samples import completed


def change_instances(repository: Path, name: str, changes: InstanceChanges) -> InstanceSettings:
    """Change how the model `name` is spread over a machine, from its server's next start on; return the whole. Raises RepositoryError."""
    settings = changes.applied_to(instances_of(editable(model_named(repository, name))))
    set_instances(repository, name, settings)
    return settings


def set_instances(repository: Path, name: str, settings: InstanceSettings) -> None:
    """Let the model `name` be spread over a machine as `settings` say, from its server's next start on. Raises RepositoryError.

    That it was set by somebody, on this machine's cores, is written beside it: `serve` leaves it alone on other machines too.
    """
    with locked(repository, lambda _sentence: None):
        model = model_named(repository, name)
        replace_config(model, marked_as_set(with_instances(editable(model), settings), usable_cores()))


def set_reformats(repository: Path, name: str, processes: int) -> None:
    """Let so many processes reformat what is sent to `<name>_image`, from the server's next start on. Raises RepositoryError."""
    with locked(repository, lambda _sentence: None):
        folder = read_folder(repository / f"{name}{REFORMAT}")
        replace_config(folder, with_count(folder.config, processes))


def set_policy(model: PublishedModel, policy: VersionPolicy) -> None:
    """Let Triton serve other versions, each with its golden sample. Only for who holds the repository's lock.

    Raises RepositoryError or OSError.
    """
    parameters = completed(model, policy.served(model.numbers))
    replace_config(model, replace(editable(model), policy=policy, parameters=parameters))


def editable(model: PublishedModel) -> ModelConfig:
    """Return the configuration to change. Raises RepositoryError if it holds what would be lost on the way."""
    if model.config.unknown_settings:
        raise RepositoryError(
            f"{model.folder / CONFIG_FILE} holds settings of a newer Triton than this program knows, which would be lost: "
            f"{model.config.unknown_settings}. Change it by hand"
        )
    return model.config


def replace_config(model: ModelFolder, config: ModelConfig) -> None:
    """Replace the configuration in one rename, so that whoever reads it sees the old or the new one whole. Raises OSError."""
    new = model.folder / NEW_CONFIG_FILE
    new.unlink(missing_ok=True)
    write_new(new, config_text(config).encode(), mode=0o644)
    os.replace(new, model.folder / CONFIG_FILE)
    sync_folder(model.folder)
