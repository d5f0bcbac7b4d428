"""Reads every copy of a model's card on its way from the run to the clients, and says where two of them differ."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from sightline.card import CARD_KEY, MAX_SEALED_BYTES, ModelCard, unseal
from sightline.classifier import served_card
from sightline.errors import ContractError, RepositoryError
from sightline.host.files import read_bytes, read_text, reason_of
from sightline.repository.card_config import card_in
from sightline.repository.config_text import parse_config
from sightline.repository.layout import CARD_FILE, CONFIG_FILE, MAX_TEXT_BYTES, ONNX_FILE
from sightline.repository.read import card_fields
from sightline.transport import Transport
from sightline_export.sources.run import card_file
from sightline_export.verify.hops import Hop, HopKind, Tally

RUN: Final = "run"
GRPC: Final = "gRPC"
HTTP: Final = "HTTP"

Copies = Mapping[str, ModelCard | ContractError]
"""Where the copy lies, in the order of the line → the card, or why it is none."""


def read_copies(run_folder: Path, model_folder: Path, version: int, over_grpc: Transport, over_http: Transport) -> Copies:
    """Read all six copies. A copy that cannot be believed is a ContractError in its place; a missing file raises RepositoryError."""
    name = model_folder.name
    return {
        RUN: _card_file(card_file(run_folder)),
        ONNX_FILE: _onnx(model_folder / str(version) / ONNX_FILE),
        CARD_FILE: _card_file(model_folder / CARD_FILE),
        CONFIG_FILE: _config(model_folder / CONFIG_FILE),
        GRPC: _served(over_grpc, name, version),
        HTTP: _served(over_http, name, version),
    }


def compare_copies(copies: Copies) -> list[Hop]:
    """Compare every copy with the run's card: a hop for each, and one before them if the run's own card cannot be believed."""
    origin = copies[RUN]
    others = {name: copy for name, copy in copies.items() if name != RUN}
    tallies = []
    if isinstance(origin, ContractError):
        tallies.append(Tally(HopKind.CARD, RUN))
        tallies[0].differs(str(origin))
    others_agree = len({None if isinstance(copy, ContractError) else copy.sha256 for copy in others.values()}) == 1
    for name, copy in others.items():
        tallies.append(tally := Tally(HopKind.CARD, RUN, name))
        if isinstance(copy, ContractError):
            tally.differs(str(copy))
        elif isinstance(origin, ContractError):
            continue
        elif copy != origin:
            hint = "; all the other copies agree, so the run's is the one that changed" if others_agree else ""
            tally.differs("; ".join(differences(origin, copy))[:300] + hint)
        else:
            tally.same()
    return [tally.hop() for tally in tallies]


def differences(card: ModelCard, other: ModelCard) -> list[str]:
    """Name the fields that differ, with both values: `preprocess.mean is [0.5] before and [0.6] after`."""
    before, after = card_fields(card), card_fields(other)
    return [
        f"{field} is {before.get(field)} before and {after.get(field)} after"
        for field in before | after
        if before.get(field) != after.get(field)
    ]


def _card_file(path: Path) -> ModelCard | ContractError:
    try:
        return unseal(read_bytes(path, MAX_SEALED_BYTES), str(path))
    except OSError as error:
        return ContractError(f"{path}: the card cannot be read: {reason_of(error)}")
    except ContractError as error:
        return error


def _onnx(path: Path) -> ModelCard | ContractError:
    import onnx
    from google.protobuf.message import DecodeError

    try:
        properties = {entry.key: entry.value for entry in onnx.load(path, load_external_data=False).metadata_props}
    except (OSError, DecodeError) as error:
        raise RepositoryError(f"{path}: not an ONNX file: {error}") from None
    if CARD_KEY not in properties:
        return ContractError(f"{path}: the file holds no model card")
    try:
        return unseal(properties[CARD_KEY], str(path))
    except ContractError as error:
        return error


def _config(path: Path) -> ModelCard | ContractError:
    try:
        return card_in(parse_config(read_text(path, MAX_TEXT_BYTES), str(path)), str(path))
    except OSError as error:
        raise RepositoryError(f"{path} cannot be read: {reason_of(error)}") from None
    except ContractError as error:
        return error


def _served(transport: Transport, model: str, version: int) -> ModelCard | ContractError:
    try:
        return served_card(transport.config(model, str(version)), transport.url)
    except ContractError as error:
        return error
