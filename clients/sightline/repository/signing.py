"""Signs a published model, and checks the signature: for intent, where hashes find accidents only.

Plain Ed25519 (RFC 8032) from the package `cryptography`, over a statement of every file's sha256, with keys as PEM files that `openssl`
makes. Not OpenSSF's model-signing, whose bundles are made for identities that a service vouches for: it brings sigstore and some twenty
packages, and all that is needed here is one key that the server was given.
"""

import base64
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sightline.errors import DataError, MissingExtra, RepositoryError
from sightline.host.files import read_bytes, read_text, reason_of, write_atomically
from sightline.host.text import first_problem, one_line
from sightline.in_triton import IMAGE, REFORMAT
from sightline.repository.hashes import FileHashes
from sightline.repository.layout import MAX_TEXT_BYTES, SIGNATURE_FILE
from sightline.repository.publish import locked
from sightline.repository.read import check_files, model_named
from sightline.repository.report import Sha256, json_text

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

PURPOSE: Final = b"sightline model signature 1\n"
"""Signed in front of the statement, so that it is no signature of anything else."""
MAX_KEY_BYTES: Final = 16 * 1024
MAX_FILES: Final = 10_000


class Statement(BaseModel):
    """What is signed: every file of a model, and of the models that take encoded images for it."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, protected_namespaces=())

    schema_: Annotated[Literal[1], Field(alias="schema")] = 1
    model: str
    files: dict[str, Sha256]
    """Path below the repository, with `/` → sha256."""

    def content(self) -> bytes:
        """Return the bytes that are signed."""
        return PURPOSE + json_text(self.model_dump(mode="json", by_alias=True)).encode()


class Signed(BaseModel):
    """`signature.json` in a model's folder."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    statement: Statement
    signature: Annotated[str, Field(max_length=200)]
    """Base64."""


def sign(repository: Path, name: str, key_file: Path) -> Path:
    """Sign the model `name` as it lies in `repository` with a private key, and return the signature's file.

    Its versions are checked against their reports first. Raises DataError for a key that is none, RepositoryError for a model that is
    not there or damaged, MissingExtra without the package cryptography.
    """
    key = _private_key(key_file)
    with locked(repository, lambda _sentence: None):
        model = model_named(repository, name)
        for version in model.versions:
            check_files(version)
        statement = Statement(model=name, files=_files_of(repository, name, FileHashes()))
        signed = Signed(statement=statement, signature=base64.b64encode(key.sign(statement.content())).decode())
        file = model.folder / SIGNATURE_FILE
        write_atomically(file, json_text(signed.model_dump(mode="json", by_alias=True)))
    return file


def demand_signature(repository: Path, name: str, key_file: Path, hashes: FileHashes | None = None) -> None:
    """Raise RepositoryError, naming what differs, unless the files of the model are those that the key's owner signed, and no others.

    Raises DataError for a key that is none, MissingExtra without the package cryptography.
    """
    from cryptography.exceptions import InvalidSignature

    key = _public_key(key_file)
    file = repository / name / SIGNATURE_FILE
    try:
        signed = Signed.model_validate_json(read_text(file, MAX_TEXT_BYTES))
        key.verify(base64.b64decode(signed.signature, validate=True), signed.statement.content())
    except FileNotFoundError:
        raise RepositoryError(f"{name} in {repository} is not signed: `sightline sign {name} --key PRIVATE.pem` signs it") from None
    except OSError as error:
        raise RepositoryError(f"{file} cannot be read: {reason_of(error)}") from None
    except ValidationError as error:
        raise RepositoryError(f"{file} is no signature: {first_problem(error)}. Sign the model again") from None
    except (InvalidSignature, ValueError):
        raise RepositoryError(f"{file} is not a signature by the key in {key_file}. Sign the model with its other half") from None
    if signed.statement.model != name:
        raise RepositoryError(f"{file} is the signature of another model, {signed.statement.model:.64}. Sign this one")
    present = _files_of(repository, name, hashes or FileHashes())
    for path in sorted(present.keys() | signed.statement.files.keys()):
        was, now = signed.statement.files.get(path), present.get(path)
        if was != now:
            happened = "was added" if was is None else "is gone" if now is None else "was changed"
            raise RepositoryError(f"{path} in {repository} {happened} after {name} was signed. Restore it, or sign the model again")


def _files_of(repository: Path, name: str, hashes: FileHashes) -> dict[str, str]:
    """Path → sha256 of all files of a model and of those that take images for it; a link is refused, since it leads elsewhere."""
    signed: dict[str, str] = {}
    for folder in (repository / name, repository / f"{name}{REFORMAT}", repository / f"{name}{IMAGE}"):
        for path in sorted(folder.rglob("*")) if folder.is_dir() else ():
            place = path.relative_to(repository).as_posix()
            if path.is_symlink():
                raise RepositoryError(
                    f"{place} in {repository} is a link, and what it leads to cannot be signed. Put the file itself there"
                )
            if path.is_file() and path != repository / name / SIGNATURE_FILE:
                try:
                    signed[place] = hashes.of(path)
                except OSError as error:
                    raise RepositoryError(f"{path} cannot be read: {reason_of(error)}") from None
            if len(signed) > MAX_FILES:
                raise RepositoryError(f"{name} in {repository} has more than {MAX_FILES:,} files, which no published model has")
    return signed


def _private_key(file: Path) -> "Ed25519PrivateKey":
    _demand_library()
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(_pem(file), password=None)
    except Exception as error:  # noqa: BLE001 - of a file that is no key the library raises nearly anything
        raise DataError(f"{file} holds no private key that can be used here ({one_line(error)}): {_HOW_TO_MAKE_ONE}") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise DataError(f"{file} holds a key of another kind than Ed25519: {_HOW_TO_MAKE_ONE}")
    return key


def _public_key(file: Path) -> "Ed25519PublicKey":
    _demand_library()
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(_pem(file))
    except Exception as error:  # noqa: BLE001 - as above
        raise DataError(f"{file} holds no public key ({one_line(error)}): `openssl pkey -in PRIVATE.pem -pubout -out PUBLIC.pem`") from None
    if not isinstance(key, Ed25519PublicKey):
        raise DataError(f"{file} holds a key of another kind than Ed25519: {_HOW_TO_MAKE_ONE}")
    return key


_HOW_TO_MAKE_ONE: Final = "`openssl genpkey -algorithm ed25519 -out PRIVATE.pem` makes one"


def _pem(file: Path) -> bytes:
    try:
        return read_bytes(file, MAX_KEY_BYTES)
    except OSError as error:
        raise DataError(f"the key {file} cannot be read: {reason_of(error)}") from None


def _demand_library() -> None:
    try:
        import cryptography  # noqa: F401
    except ModuleNotFoundError:
        raise MissingExtra("signatures need the package cryptography: pip install 'sightline[sign]'") from None
