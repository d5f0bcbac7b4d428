"""Fetches a network of timm's from the Hugging Face hub, `hf-hub:owner/name@revision`: its config.json and weights, within bounds."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from sightline.errors import DataError, SightlineError
from sightline.host.files import size_text
from sightline.host.text import one_line
from sightline_export.sources.libraries import library
from sightline_export.sources.timm_config import CONFIG, MAX_CONFIG_BYTES, read_config
from sightline_export.sources.timm_folder import WEIGHTS, TimmFolder
from sightline_training.networks.weight_files import MAX_WEIGHTS_BYTES

PREFIXES: Final = ("hf-hub:", "hf_hub:")
"""What timm calls a name of the hub, today and before."""


def is_hub_name(named: str) -> bool:
    """Whether a name is one of the hub's."""
    return named.startswith(PREFIXES)


def fetched(named: str, *, weights: bool) -> TimmFolder:
    """Fetch what `named` names into the hub's cache, `weights` too if they are wanted; what is there already is not fetched again.

    Raises DataError if it cannot be had, is too large, or is no network of timm's.
    """
    repository, _, revision = named.partition(":")[2].partition("@")
    whose = f"hf-hub:{repository}"
    config_file = _first_of(repository, (CONFIG,), revision or None, MAX_CONFIG_BYTES)
    config = None if config_file is None else read_config(config_file)
    if config_file is None or config is None:
        raise DataError(f"{whose} has no {CONFIG} of timm's, which names an architecture and a pretrained_cfg")
    # The folder of a snapshot is called as its commit: all files are to be of one.
    commit = config_file.parent.name
    file = _first_of(repository, WEIGHTS, commit, MAX_WEIGHTS_BYTES) if weights else None
    return TimmFolder(f"timm:{whose}@{commit[:12]}", config, file, f"{CONFIG} of {whose}", repository.rpartition("/")[2])


def _first_of(repository: str, names: Sequence[str], revision: str | None, limit_bytes: int) -> Path | None:
    """Return where the first file that the repository has lies in the hub's cache, fetched if need be; None if it has none of them."""
    hub, errors = library("huggingface_hub", "timm"), library("huggingface_hub.errors", "timm")
    missing: Exception | None = None
    for name in names:
        try:
            # Answered by the cache where nobody else answers.
            _demand_small(repository, name, hub.hf_hub_download(repository, name, revision=revision, dry_run=True).file_size, limit_bytes)
            return Path(hub.hf_hub_download(repository, name, revision=revision))
        except errors.EntryNotFoundError as error:
            missing = error
        except SightlineError:
            raise
        except Exception as error:  # noqa: BLE001 - a dozen libraries are on the way to the hub
            raise _unreachable(repository, name, error) from None
    if isinstance(missing, errors.LocalEntryNotFoundError):
        raise _unreachable(repository, names[0], missing)
    return None


def _demand_small(repository: str, name: str, size_bytes: int, limit_bytes: int) -> None:
    """Raise DataError if a file is larger than any that is read."""
    if size_bytes > limit_bytes:
        raise DataError(f"hf-hub:{repository}: {name} has {size_bytes:,} bytes; {size_text(limit_bytes)} are the most that is fetched")


def _unreachable(repository: str, name: str, error: Exception) -> DataError:
    return DataError(
        f"{name} of hf-hub:{repository} could not be fetched from the Hugging Face hub ({one_line(error)}). Fetch the files elsewhere and "
        "name the folder that they lie in."
    )
