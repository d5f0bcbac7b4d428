"""`sightline versions` and `sightline rollback`: what was published, what is served, and the way back."""

import json
from pathlib import Path

import click

REPOSITORY = click.option(
    "--repository", type=click.Path(path_type=Path), default=Path("model_repository"), show_default=True, help="The model repository."
)


@click.command(short_help="List the published versions of a model.")
@click.argument("model")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON document instead: the model and its versions.")
@REPOSITORY
def versions(model: str, as_json: bool, repository: Path) -> None:
    """List the versions of MODEL: number, date, precision, accuracy, what the gate looked at, and which of them Triton serves.

    Every file is hashed; a version whose files are not the published ones is named, and the command ends with exit code 13.
    """
    from rich.text import Text

    from sightline.console import results, table
    from sightline.errors import RepositoryError
    from sightline.repository.history import version_summaries

    summaries = version_summaries(repository, model)
    if as_json:
        document = {"model": model, "versions": [summary.model_dump(mode="json") for summary in summaries]}
        click.echo(json.dumps(document, indent=1, ensure_ascii=False))
    else:
        rows = table("version", "published", "precision", "accuracy", "size", "gate", "served", left=3)
        rows.columns[5].justify = rows.columns[6].justify = "left"
        for summary in summaries:
            rows.add_row(
                str(summary.version),
                summary.created.replace("T", " ").removesuffix("+00:00"),
                summary.precision,
                "" if summary.accuracy is None else f"{summary.accuracy:.2%}",
                f"{summary.bytes / 1e6:,.1f} MB",
                f"{summary.checks} checks on {summary.images:,} images",
                Text("damaged", style="bold red") if summary.damage else Text("served" if summary.served else "", style="green"),
            )
        results().print(rows)
    damages = [summary.damage for summary in summaries if summary.damage]
    if damages:
        raise RepositoryError(f"{damages[0]}{f' ({len(damages) - 1} more)' if damages[1:] else ''}")


@click.command(short_help="Serve an earlier version of a model again.")
@click.argument("model")
@click.option("--to", type=click.IntRange(1), help="The version to serve  [default: the one before the one that is served now].")
@click.option("--newest", is_flag=True, help="Take a rollback back: serve the newest version, now and after each export.")
@REPOSITORY
def rollback(model: str, to: int | None, newest: bool, repository: Path) -> None:
    """Make an earlier version of MODEL the one that is served; nothing is deleted.

    The version's files are hashed first. A running server goes on with what it loaded, and serves the other version when it is started
    again.
    """
    from sightline.errors import UsageError
    from sightline.repository.history import rollback as serve_earlier
    from sightline.repository.history import serve_newest

    if newest and to is not None:
        raise UsageError("--to and --newest exclude each other: name a version, or take the newest")
    number = serve_newest(repository, model) if newest else serve_earlier(repository, model, to)
    click.echo(f"{model} version {number} is the one that is served, as soon as the server is started again")
    if not newest:
        click.echo(f"what is exported from now on waits until `sightline rollback {model} --newest`", err=True)
