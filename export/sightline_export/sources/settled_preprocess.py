"""Settles how an imported network sees an image: what its library says, what somebody states, and how sure anybody can be of it.

Nothing is assumed in silence. Where nobody says it of these very weights, the sentence says what is taken instead, from where, and in how
many ways it could be otherwise.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from sightline.errors import SightlineError, UsageError
from sightline.preprocess import Preprocess
from sightline_export.sources.stated_preprocess import StatedPreprocess

STATED: Final = "stated by who exported it"


@dataclass(frozen=True)
class PreprocessClaim:
    """What a source says of the preprocessing, and of which weights it says so."""

    preprocess: Preprocess | None
    """None if it cannot say, as `refusal` explains."""
    origin: str
    """Where it stands, for people: `timm's resnet50.a1_in1k`, `config.json beside the weights`."""
    of: str = ""
    """The weights of which nobody says it, so that it is an assumption; empty if it is said of these very weights."""
    published: Mapping[str, Preprocess | None] = field(default_factory=lambda: MappingProxyType({}))
    """For an assumption: how each published version of the network sees an image; None where a card cannot say."""
    doubt: str = ""
    """For an assumption: why it may be another; empty: because the published versions differ, or may not be what it was trained like."""
    refusal: SightlineError | None = None


@dataclass(frozen=True)
class SettledPreprocess:
    """How a network sees an image, and how that is known."""

    preprocess: Preprocess
    origin: str
    """Where it comes from, for people."""
    assumed: bool = False
    """Whether nobody said it of these very weights."""
    ways: int = 1
    """In how many different ways the network's published versions see an image, as far as it was not stated."""
    versions: int = 1
    """How many published versions that are."""
    stated: tuple[str, ...] = ()
    """The fields that were stated."""
    sentence: str = ""
    """What a user is told of it."""


def settle(claim: PreprocessClaim, stated: StatedPreprocess) -> SettledPreprocess:
    """Return the preprocessing that follows from both; what is stated wins.

    Raises the claim's own refusal if something is left that only the source could say, UsageError for a statement that is none.
    """
    if stated.complete:
        preprocess = stated.of(None)
        origin = f"stated in {stated.file}" if stated.file else STATED
        fields = tuple(stated.changes) if stated.whole is not None else tuple(type(preprocess).model_fields)
        sentence = f"images are {in_words(preprocess)}: {origin}{_with(stated) if stated.whole is not None else ''}"
        return SettledPreprocess(preprocess, origin, stated=fields, sentence=sentence)
    if claim.preprocess is None:
        refusal = claim.refusal or UsageError(f"{claim.origin} does not say how an image is seen: state the preprocessing")
        refusal.settings = (*refusal.settings, "preprocess")
        raise refusal
    preprocess = stated.of(claim.preprocess)
    if _said_by_libraries(preprocess) <= stated.changes.keys():
        sentence = f"images are {in_words(preprocess)}: {STATED}"
        return SettledPreprocess(preprocess, STATED, stated=tuple(stated.changes), sentence=sentence)
    if not claim.of:
        sentence = f"images are {in_words(preprocess)}: {claim.origin}{_with(stated)}"
        return SettledPreprocess(preprocess, claim.origin, stated=tuple(stated.changes), sentence=sentence)
    ways = len({_changed(published, stated) for published in claim.published.values()} | {preprocess})
    versions = max(1, len(claim.published))
    return SettledPreprocess(
        preprocess,
        claim.origin,
        assumed=True,
        ways=ways,
        versions=versions,
        stated=tuple(stated.changes),
        sentence=f"warning: it is assumed that images are {in_words(preprocess)}: {claim.origin}{_with(stated)}. "
        f"Nobody says so of {claim.of}: {claim.doubt or _doubt(ways, versions, stated)}",
    )


def in_words(spec: Preprocess) -> str:
    """Return what a specification does to an image, for the middle of a sentence."""
    height, width = spec.size
    if spec.fit == "crop":
        shape = f"scaled to {round(min(spec.size) / spec.crop_fraction)} pixels on the shorter side and cropped to {height} x {width}"
    elif spec.fit == "pad":
        shape = f"scaled to fit into {height} x {width} pixels and padded"
    else:
        shape = f"stretched to {height} x {width} pixels"
    # What a later version of the specification has besides.
    more = "".join(f", {key}={getattr(spec, key)}" for key in type(spec).model_fields if key not in Preprocess.model_fields)
    return f"{shape} ({spec.resample}), {spec.mode}, mean {_numbers(spec.mean)}, deviation {_numbers(spec.std)}{more}"


def _said_by_libraries(spec: Preprocess) -> set[str]:
    """The fields that decide what a library does to an image; whatever its weights are, it says nothing of the others."""
    return {"size", "fit", "resample", "mean", "std", *{"crop": ("crop_fraction",), "pad": ("background",)}.get(spec.fit, ())}


def _doubt(ways: int, versions: int, stated: StatedPreprocess) -> str:
    if ways > 1:
        differ = f"the {versions} published versions of this network see images in {ways} different ways"
        return f"{differ}. State the one that it was trained with"
    every = "the only published version of this network sees" if versions == 1 else f"all {versions} published versions of this network see"
    rest = "the rest" if stated.changes else "them"
    return f"{every} {rest} so, and it may have been trained in another way, which could be stated"


def _with(stated: StatedPreprocess) -> str:
    """The fields that were stated, behind where the others come from."""
    return f", with {' '.join(f'{key}={value}' for key, value in stated.changes.items())} as stated" if stated.changes else ""


def _changed(published: Preprocess | None, stated: StatedPreprocess) -> Preprocess | None:
    if published is None:
        return None
    try:
        return stated.of(published)
    except UsageError:
        return None


def _numbers(values: tuple[float, ...]) -> str:
    different = dict.fromkeys(f"{value:.4g}" for value in values)
    return " ".join(different if len(different) == 1 else (f"{value:.4g}" for value in values))
