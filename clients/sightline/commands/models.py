"""`sightline models`: what a server has loaded, and what each model eats and answers."""

import json

import click

from sightline.commands.options import Server, server_options


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line instead of a table.")
@server_options
def models(as_json: bool, server: Server) -> None:
    """List the models on a server."""
    from sightline.card import unseal
    from sightline.classifier import served_card
    from sightline.console import results, table
    from sightline.errors import ContractError
    from sightline.in_triton import IMAGE
    from sightline.transport import connect

    rows = table("model", "version", "input", "classes", "labels", "card", "answered", left=7)
    with connect(server.url, server.timeout_s, server.tls) as transport:
        for served in sorted(transport.models(), key=lambda model: (model.name, model.version)):
            row = {"model": served.name, "version": served.version, "answered": served.inferences}
            config = transport.config(served.name, served.version)
            try:
                if config.pictures_of is not None:
                    of = unseal(config.pictures_of, f"config.pbtxt of the model {served.name} on {server.url}")
                    what = "encoded images" if served.name == of.name + IMAGE else "(a step before it)"
                    rows.add_row(served.name, served.version, what, "-", f"for {of.name}", of.sha256[:12], str(served.inferences))
                    if as_json:
                        click.echo(json.dumps({**row, "card": None, "pictures_of": of.name}))
                    continue
                card = served_card(config, server.url)
            except ContractError as error:
                click.echo(f"note: {error}", err=True)
                rows.add_row(served.name, served.version, "?", "?", "no card of ours", "-", str(served.inferences))
                if as_json:
                    click.echo(json.dumps({**row, "card": None}))
                continue
            height, width, channels = card.preprocess.shape
            some = ", ".join(card.labels[:4]) + (", …" if len(card.labels) > 4 else "")
            rows.add_row(
                card.name,
                served.version,
                f"{height}×{width}×{channels} {card.preprocess.mode}",
                str(len(card.labels)),
                some,
                card.sha256[:12],
                str(served.inferences),
            )
            if as_json:
                click.echo(json.dumps({**row, "card": card.model_dump(mode="json"), "card_sha256": card.sha256}, ensure_ascii=False))
    if not as_json:
        if rows.row_count:
            results().print(rows)
        else:
            click.echo(f"the server at {server.url} has no models", err=True)
