"""Holds every file that decides an answer to the card and to the reports, so that none is changed in silence.

A version's files are in its report (`check_files`). Here are those beside the versions: card, labels, images to warm up with, the
configuration as far as it decides an answer or lets a client check one, and the two models that take encoded images. What may be set by
hand, such as instances, batching or the version that is served, may be. A hash finds accidents; it does not find somebody who computes it
anew.
"""

from collections.abc import Callable, Mapping

from sightline.card import CARD_KEY, PICTURES_OF, ModelCard, unseal
from sightline.errors import ContractError, RepositoryError
from sightline.host.files import read_bytes, reason_of
from sightline.repository.card_config import contradictions, labels_text, shared_files
from sightline.repository.config import decisive_differences
from sightline.repository.hashes import FileHashes
from sightline.repository.image_ensemble import image_configs
from sightline.repository.layout import CARD_FILE, CONFIG_FILE, LABELS_FILE, MAX_TEXT_BYTES
from sightline.repository.read import ModelFolder
from sightline.repository.samples import check_samples

RESTORE = "Restore the file that was published, or delete the model's folder and export again"


def check_shared(model: ModelFolder, hashes: FileHashes | None = None, card_of: Callable[[str], ModelCard | None] = lambda _: None) -> None:
    """Raise RepositoryError, naming the file, unless what lies beside the versions of a model is what its card and its reports say.

    `card_of` gives the card of another model of the repository, by name: a model that takes encoded images must have the same. A model
    that Sightline did not publish has no card, and nothing is known of it.
    """
    try:
        _check_card(model, card_of)
    except ContractError as error:
        raise RepositoryError(str(error)) from None
    known = hashes or FileHashes()
    for version in model.versions:
        for name, published in (version.described.shared if version.described is not None else {}).items():
            try:
                actual = known.of(model.folder / name)
            except OSError as error:
                raise _changed(model, name, reason_of(error)) from None
            if actual != published:
                raise _changed(model, name, f"sha256 {actual:.12}…, published {published:.12}…")


def _check_card(model: ModelFolder, card_of: Callable[[str], ModelCard | None]) -> None:
    where = f"{CONFIG_FILE} of model {model.name} in {model.folder.parent}"
    parameters = model.config.parameters
    if PICTURES_OF in parameters:
        card = unseal(parameters[PICTURES_OF], where)
        other = card_of(card.name)
        if other is not None and other != card:
            raise RepositoryError(
                f"{where} holds another card of {card.name} than that model itself (sha256 {card.sha256:.12}…). {RESTORE}"
            )
        expected = image_configs(card).get(model.name)
        if expected is None:
            raise RepositoryError(f"{where} takes encoded images for {card.name}, and has no name for that. {RESTORE}")
        if differing := decisive_differences(model.config, expected):
            raise RepositoryError(f"{where} was changed: {', '.join(differing)}. {RESTORE}")
        _check_texts(model, {LABELS_FILE: labels_text(card)} if expected.platform else {}, all_needed=True)
    elif CARD_KEY in parameters:
        card = unseal(parameters[CARD_KEY], where)
        published = (model.folder / CARD_FILE).exists() or any(version.described and version.described.shared for version in model.versions)
        if published and (differing := contradictions(model.config, card)):
            raise RepositoryError(f"{where} contradicts the model card in it: {'; '.join(differing)}. {RESTORE}")
        named = any(tensor.label_file == LABELS_FILE for tensor in model.config.outputs)
        _check_texts(model, {LABELS_FILE: labels_text(card)} if named else {}, all_needed=True)
        _check_texts(model, shared_files(card), all_needed=False)
        check_samples(model, card)
    elif any(version.described is not None for version in model.versions):
        raise RepositoryError(f"{where} holds no model card, though a version of it was published with one. {RESTORE}")


def _check_texts(model: ModelFolder, files: Mapping[str, str], *, all_needed: bool) -> None:
    for name, content in files.items():
        if not all_needed and not (model.folder / name).exists():
            continue
        try:
            actual = read_bytes(model.folder / name, MAX_TEXT_BYTES)
        except OSError as error:
            raise _changed(model, name, reason_of(error)) from None
        if actual != content.encode():
            raise _changed(model, name, "it is not what the model's card says")


def _changed(model: ModelFolder, name: str, reason: str) -> RepositoryError:
    return RepositoryError(f"{name} of model {model.name} in {model.folder.parent} was changed after it was published: {reason}. {RESTORE}")
