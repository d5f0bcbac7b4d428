"""Imports a library that only one source needs, or says what to install."""

import importlib
from types import ModuleType

from sightline.errors import MissingExtra


def library(name: str, source: str) -> ModuleType:
    """Import the library that `source` needs. Raises MissingExtra, with what to install."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise MissingExtra(f"`sightline export --from {source}:…` needs {name}: pip install 'sightline[bring]'") from None
