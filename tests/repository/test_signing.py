"""A signed model is served only as its owner signed it: nothing changed, added or removed, and by nobody else's key."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from sightline.cli import run as sightline
from sightline.errors import ContractError, DataError, MissingExtra, RepositoryError
from sightline.repository import signing
from sightline.repository.history import rollback
from sightline.repository.signing import demand_signature, sign
from sightline_serving.selection.preflight import demand_signatures, select_models


def key_pair(folder: Path, name: str, algorithm: str = "ed25519") -> tuple[Path, Path]:
    """As the documentation says: with openssl."""
    private, public = folder / f"{name}.pem", folder / f"{name}.pub.pem"
    subprocess.run(["openssl", "genpkey", "-algorithm", algorithm, "-out", private], check=True, capture_output=True)
    subprocess.run(["openssl", "pkey", "-in", private, "-pubout", "-out", public], check=True, capture_output=True)
    return private, public


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    return key_pair(tmp_path, "own")


def demand(repository: Path, public: Path) -> None:
    demand_signatures(repository, select_models(repository), public)


def test_what_was_signed_is_served_and_every_change_is_refused(copied: Path, keys: tuple[Path, Path]) -> None:
    private, public = keys
    assert sign(copied, "mnist", private) == copied / "mnist" / "signature.json"
    demand(copied, public)
    listed = json.loads((copied / "mnist" / "signature.json").read_text())["statement"]["files"]
    files = {path.relative_to(copied).as_posix() for path in copied.rglob("*") if path.is_file()}
    assert set(listed) == files - {"mnist/signature.json", ".sightline.lock"}
    for name in listed:
        file = copied / name
        content = file.read_bytes()
        file.chmod(0o644)
        file.write_bytes(content + b" ")
        with pytest.raises(RepositoryError, match=rf"^{name} in .* was changed after mnist was signed\. "):
            demand_signature(copied, "mnist", public)
        file.unlink()
        with pytest.raises(RepositoryError, match=f"^{name} in .* is gone after mnist was signed"):
            demand_signature(copied, "mnist", public)
        file.write_bytes(content)
    (copied / "mnist_reformat" / "1" / "more.py").write_text("import os")
    with pytest.raises(ContractError, match=r"^mnist is not served: mnist_reformat/1/more\.py in .* was added after mnist was signed"):
        demand(copied, public)


def test_a_rollback_wants_a_new_signature(copied: Path, keys: tuple[Path, Path]) -> None:
    private, public = keys
    sign(copied, "mnist", private)
    rollback(copied, "mnist")
    with pytest.raises(ContractError, match=r"mnist/config\.pbtxt in .* was changed after mnist was signed"):
        demand(copied, public)
    sign(copied, "mnist", private)
    demand(copied, public)


def test_another_key_and_another_models_signature_are_refused(copied: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    private, public = keys
    with pytest.raises(RepositoryError, match=r"^mnist in .* is not signed: `sightline sign mnist --key PRIVATE\.pem` signs it$"):
        demand_signature(copied, "mnist", public)
    sign(copied, "mnist", private)
    with pytest.raises(RepositoryError, match=r"signature\.json is not a signature by the key in .*other\.pub\.pem"):
        demand_signature(copied, "mnist", key_pair(tmp_path, "other")[1])
    shutil.copytree(copied / "mnist", copied / "letters")
    with pytest.raises(RepositoryError, match="is the signature of another model, mnist"):
        demand_signature(copied, "letters", public)


@pytest.mark.parametrize("change", ["statement", "signature", "text"])
def test_a_changed_signature_is_refused(change: str, copied: Path, keys: tuple[Path, Path]) -> None:
    file = sign(copied, "mnist", keys[0])
    content = json.loads(file.read_text())
    if change == "statement":
        content["statement"]["files"]["mnist/labels.txt"] = "0" * 64
    elif change == "signature":
        content["signature"] = "AA" + content["signature"][2:]
    file.write_text("{" if change == "text" else json.dumps(content))
    with pytest.raises(RepositoryError, match=r"signature\.json is (no|not a) signature"):
        demand_signature(copied, "mnist", keys[1])


def test_a_file_that_is_no_such_key_is_a_sentence(copied: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    private, public = keys
    rsa, rsa_public = key_pair(tmp_path, "rsa", "rsa")
    for key in (tmp_path / "missing.pem", public, rsa):
        with pytest.raises(DataError, match=r"cannot be read|holds no private key|holds a key of another kind than Ed25519"):
            sign(copied, "mnist", key)
    sign(copied, "mnist", private)
    for key in (tmp_path / "missing.pem", private, rsa_public):
        with pytest.raises(DataError, match=r"cannot be read|holds no public key|holds a key of another kind than Ed25519"):
            demand_signature(copied, "mnist", key)


def test_a_damaged_model_and_a_link_are_not_signed(copied: Path, keys: tuple[Path, Path]) -> None:
    (copied / "mnist" / "2" / "more").symlink_to("/etc/passwd")
    with pytest.raises(RepositoryError, match=r"^mnist/2/more in .* is a link, and what it leads to cannot be signed"):
        sign(copied, "mnist", keys[0])
    (copied / "mnist" / "2" / "more").unlink()
    model = copied / "mnist" / "2" / "model.onnx"
    model.chmod(0o644)
    model.write_bytes(model.read_bytes() + b" ")
    with pytest.raises(RepositoryError, match=r"model\.onnx was changed after it was published"):
        sign(copied, "mnist", keys[0])


def test_without_the_package_it_is_said_what_to_install(copied: Path, keys: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "cryptography", None)
    with pytest.raises(MissingExtra, match=r"^signatures need the package cryptography: pip install 'sightline\[sign\]'$"):
        signing.sign(copied, "mnist", keys[0])


def test_the_command_signs(copied: Path, keys: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    sightline(["sign", "mnist", "--key", str(keys[0]), "--repository", str(copied)])
    assert capsys.readouterr().out == f"signed {copied / 'mnist' / 'signature.json'}\n"
    demand(copied, keys[1])
