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
from sightline_export.settings import ExportSettings
from sightline_export.sources.run import export_run
from sightline_serving.selection.preflight import demand_signatures, select_models


def key_pair(folder: Path, name: str, algorithm: str = "ed25519") -> tuple[Path, Path]:
    """As the documentation says: with openssl."""
    private, public = folder / f"{name}.pem", folder / f"{name}.pub.pem"
    subprocess.run(["openssl", "genpkey", "-algorithm", algorithm, "-out", private], check=True, capture_output=True)
    subprocess.run(["openssl", "pkey", "-in", private, "-pubout", "-out", public], check=True, capture_output=True)
    return private, public


@pytest.fixture(scope="module")
def exported(digits_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    repository = tmp_path_factory.mktemp("models")
    export_run(digits_run, repository, ExportSettings(precisions=("fp32", "fp16"), images=20))
    return repository


@pytest.fixture
def repository(exported: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported, tmp_path / "models"))


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    return key_pair(tmp_path, "own")


def demand(repository: Path, public: Path) -> None:
    demand_signatures(repository, select_models(repository), public)


def test_what_was_signed_is_served_and_every_change_is_refused(repository: Path, keys: tuple[Path, Path]) -> None:
    private, public = keys
    assert sign(repository, "mnist", private) == repository / "mnist" / "signature.json"
    demand(repository, public)
    listed = json.loads((repository / "mnist" / "signature.json").read_text())["statement"]["files"]
    files = {path.relative_to(repository).as_posix() for path in repository.rglob("*") if path.is_file()}
    assert set(listed) == files - {"mnist/signature.json", ".sightline.lock"}
    for name in listed:
        file = repository / name
        content = file.read_bytes()
        file.chmod(0o644)
        file.write_bytes(content + b" ")
        with pytest.raises(RepositoryError, match=rf"^{name} in .* was changed after mnist was signed\. "):
            demand_signature(repository, "mnist", public)
        file.unlink()
        with pytest.raises(RepositoryError, match=f"^{name} in .* is gone after mnist was signed"):
            demand_signature(repository, "mnist", public)
        file.write_bytes(content)
    (repository / "mnist_reformat" / "1" / "more.py").write_text("import os")
    with pytest.raises(ContractError, match=r"^mnist is not served: mnist_reformat/1/more\.py in .* was added after mnist was signed"):
        demand(repository, public)


def test_a_rollback_wants_a_new_signature(repository: Path, keys: tuple[Path, Path]) -> None:
    private, public = keys
    sign(repository, "mnist", private)
    rollback(repository, "mnist")
    with pytest.raises(ContractError, match=r"mnist/config\.pbtxt in .* was changed after mnist was signed"):
        demand(repository, public)
    sign(repository, "mnist", private)
    demand(repository, public)


def test_another_key_and_another_models_signature_are_refused(repository: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    private, public = keys
    with pytest.raises(RepositoryError, match=r"^mnist in .* is not signed: `sightline sign mnist --key PRIVATE\.pem` signs it$"):
        demand_signature(repository, "mnist", public)
    sign(repository, "mnist", private)
    with pytest.raises(RepositoryError, match=r"signature\.json is not a signature by the key in .*other\.pub\.pem"):
        demand_signature(repository, "mnist", key_pair(tmp_path, "other")[1])
    shutil.copytree(repository / "mnist", repository / "letters")
    with pytest.raises(RepositoryError, match="is the signature of another model, mnist"):
        demand_signature(repository, "letters", public)


@pytest.mark.parametrize("change", ["statement", "signature", "text"])
def test_a_changed_signature_is_refused(change: str, repository: Path, keys: tuple[Path, Path]) -> None:
    file = sign(repository, "mnist", keys[0])
    content = json.loads(file.read_text())
    if change == "statement":
        content["statement"]["files"]["mnist/labels.txt"] = "0" * 64
    elif change == "signature":
        content["signature"] = "AA" + content["signature"][2:]
    file.write_text("{" if change == "text" else json.dumps(content))
    with pytest.raises(RepositoryError, match=r"signature\.json is (no|not a) signature"):
        demand_signature(repository, "mnist", keys[1])


def test_a_file_that_is_no_such_key_is_a_sentence(repository: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    private, public = keys
    rsa, rsa_public = key_pair(tmp_path, "rsa", "rsa")
    for key in (tmp_path / "missing.pem", public, rsa):
        with pytest.raises(DataError, match=r"cannot be read|holds no private key|holds a key of another kind than Ed25519"):
            sign(repository, "mnist", key)
    sign(repository, "mnist", private)
    for key in (tmp_path / "missing.pem", private, rsa_public):
        with pytest.raises(DataError, match=r"cannot be read|holds no public key|holds a key of another kind than Ed25519"):
            demand_signature(repository, "mnist", key)


def test_a_damaged_model_and_a_link_are_not_signed(repository: Path, keys: tuple[Path, Path]) -> None:
    (repository / "mnist" / "2" / "more").symlink_to("/etc/passwd")
    with pytest.raises(RepositoryError, match=r"^mnist/2/more in .* is a link, and what it leads to cannot be signed"):
        sign(repository, "mnist", keys[0])
    (repository / "mnist" / "2" / "more").unlink()
    model = repository / "mnist" / "2" / "model.onnx"
    model.chmod(0o644)
    model.write_bytes(model.read_bytes() + b" ")
    with pytest.raises(RepositoryError, match=r"model\.onnx was changed after it was published"):
        sign(repository, "mnist", keys[0])


def test_without_the_package_it_is_said_what_to_install(repository: Path, keys: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "cryptography", None)
    with pytest.raises(MissingExtra, match=r"^signatures need the package cryptography: pip install 'sightline\[sign\]'$"):
        signing.sign(repository, "mnist", keys[0])


def test_the_command_signs(repository: Path, keys: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    sightline(["sign", "mnist", "--key", str(keys[0]), "--repository", str(repository)])
    assert capsys.readouterr().out == f"signed {repository / 'mnist' / 'signature.json'}\n"
    demand(repository, keys[1])
