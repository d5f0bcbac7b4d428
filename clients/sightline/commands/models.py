"""`sightline models`: what a server has loaded, and what each model takes and answers."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import click

from sightline.card import ModelCard, unseal
from sightline.commands.options import Server, server_options
from sightline.errors import ContractError

if TYPE_CHECKING:
    from sightline.transport import ServedVersion, Transport

COLUMNS: Final = ("model", "version", "input", "classes", "labels", "card", "answered")


@dataclass(frozen=True)
class ListedModel:
    """What --json prints of a version of a model that the server has loaded."""

    model: str
    version: str
    answered: int
    """Images since the server started, those included that it was warmed up with."""
    card: ModelCard | None
    """The model's card; None if it has none that is valid, and of the models that take encoded images for another one."""
    card_sha256: str | None
    pictures_of: str | None
    """Of a model that takes encoded images: the model that it takes them for."""
    problem: str | None
    """Why there is no card."""


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line instead of a table.")
@server_options
def models(as_json: bool, server: Server) -> None:
    """List the models on a server."""
    from sightline.console import print_document, results, table
    from sightline.transport.patience import Patience, patiently

    rows = table(*COLUMNS, left=len(COLUMNS))
    with server.connect() as transport:
        loaded = patiently(transport.models, Patience(server.wait_s, server.options().get("on_wait")))
        for served in sorted(loaded, key=lambda version: (version.name, version.version)):
            listed = list_model(transport, served)
            if listed.problem is not None:
                click.echo(f"note: {listed.problem}", err=True)
            if as_json:
                print_document(listed)
            else:
                rows.add_row(*_row(listed))
    if rows.row_count:
        results().print(rows)
    elif not as_json:
        click.echo(f"the server at {server.url} has no models", err=True)


def list_model(transport: "Transport", served: "ServedVersion") -> ListedModel:
    """Ask the server for the configuration of a model, and describe it by the card in it."""
    from sightline.classifier import served_card
    from sightline.in_triton import SHARED

    config = transport.config(served.name, served.version)
    card = pictures_of = problem = None
    try:
        if config.pictures_of is not None:
            pictures_of = unseal(config.pictures_of, f"config.pbtxt of the model {served.name} on {transport.url}")
        elif served.name != SHARED:
            card = served_card(config, transport.url)
    except ContractError as error:
        problem = str(error)
    return ListedModel(
        model=served.name,
        version=served.version,
        answered=served.inferences,
        card=card,
        card_sha256=card.sha256 if card is not None else pictures_of.sha256 if pictures_of is not None else None,
        pictures_of=pictures_of.name if pictures_of is not None else None,
        problem=problem,
    )


def _row(listed: ListedModel) -> tuple[str, ...]:
    from sightline.in_triton import IMAGE, SHARED

    takes, classes, labels = "?", "?", "no card of ours"
    if listed.card is not None:
        height, width, channels = listed.card.preprocess.shape
        takes, classes = f"{height}×{width}×{channels} {listed.card.preprocess.mode}", str(len(listed.card.labels))
        labels = ", ".join(listed.card.labels[:4]) + (", …" if len(listed.card.labels) > 4 else "")
    elif listed.pictures_of is not None:
        is_ensemble = listed.model == listed.pictures_of + IMAGE
        takes, classes, labels = "encoded images" if is_ensemble else "(a step before it)", "-", f"for {listed.pictures_of}"
    elif listed.model == SHARED:
        takes, classes, labels = "(a step before them)", "-", "for all that take encoded images"
    return listed.model, listed.version, takes, classes, labels, (listed.card_sha256 or "-")[:12], str(listed.answered)
