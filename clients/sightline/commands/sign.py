"""`sightline sign`: says, with a key, that a model is the one that was meant to be published."""

from pathlib import Path

import click

from sightline.commands.versions import REPOSITORY


@click.command(short_help="Sign a published model, for `serve --require-signature`.")
@click.argument("model")
@click.option("--key", type=click.Path(path_type=Path, dir_okay=False), required=True, help="PEM file with an Ed25519 private key.")
@REPOSITORY
def sign(model: str, key: Path, repository: Path) -> None:
    """Sign every file of MODEL as it is now, and of the models that take encoded images for it.

    `sightline serve --require-signature PUBLIC.pem` then serves it only as long as nothing was changed, added or removed. What changes the
    model afterwards (export, rollback, tune, finalize) makes a new signature necessary.
    """
    from sightline.repository.signing import sign as sign_model

    click.echo(f"signed {sign_model(repository, model, key)}")
