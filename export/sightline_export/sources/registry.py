"""The sources of models that were trained elsewhere: a new `--from x:` is a module and a line here.

Nothing is imported before a model is asked for: the command's help needs the words only.
"""

import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from sightline.errors import UsageError

if TYPE_CHECKING:
    from sightline_export.sources.imported_model import ImportedModel, ImportRequest

Loader: TypeAlias = "Callable[[ImportRequest], ImportedModel]"
"""What is asked of a source → the model."""


@dataclass(frozen=True)
class Source:
    """A library or a kind of folder that models come from."""

    usage: str
    """How a model of it is named: `torchvision:NAME[/VERSION]`."""
    loader: str
    """`module:function` of its Loader."""

    @property
    def prefix(self) -> str:
        """The word before the colon."""
        return self.usage.partition(":")[0]

    def load(self) -> Loader:
        """Import the loader."""
        loader: Loader = pkgutil.resolve_name(self.loader)
        return loader


SOURCES: Final[dict[str, Source]] = {
    source.prefix: source
    for source in (
        Source("torchvision:NAME[/VERSION]", "sightline_export.sources.from_torchvision:from_torchvision"),
        Source("timm:NAME|DIR|hf-hub:OWNER/NAME", "sightline_export.sources.from_timm:from_timm"),
        Source("huggingface:DIR", "sightline_export.sources.from_huggingface:from_huggingface"),
    )
}


def usage() -> str:
    """Return all sources for a sentence: `torchvision:NAME[/VERSION], timm:NAME or huggingface:DIR`."""
    *usages, last = (source.usage for source in SOURCES.values())
    return f"{', '.join(usages)} or {last}" if usages else last


def source_named(text: str) -> tuple[Source, str]:
    """Return the source that `text` names, and what stands behind the colon. Raises UsageError, which lists the known ones."""
    prefix, _, model = text.partition(":")
    if prefix not in SOURCES or not model:
        raise UsageError(f"a model that was trained elsewhere is named {usage()}, not {text!r:.80}")
    return SOURCES[prefix], model
