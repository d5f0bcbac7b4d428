"""Fetches what a data folder misses: downloaded beside, checked, then moved, so that a broken download leaves nothing that looks whole."""

import contextlib
import hashlib
import io
import logging
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from sightline_training.downloads import FETCH_TIMEOUT_S, silence_limited_to


def fetch_from_mirrors(folder: Path, md5s: Mapping[str, str], mirrors: Sequence[str]) -> None:
    """Download files (name → md5) into `folder`, each from the first of `mirrors` that gives it whole; torchvision does the work.

    Raises OSError or RuntimeError (see `why_not_fetched`).
    """
    with _beside(folder) as incoming:
        for name, md5 in md5s.items():
            _download(name, md5, mirrors, incoming)
            shutil.move(incoming / name, folder / name)


def fetch_from_kaggle(folder: Path, handle: str, sha256s: Mapping[str, str]) -> None:
    """Bring files (name → sha256) of a Kaggle dataset into `folder`, wherever in the dataset they lie; kagglehub does the work.

    `handle` names a version ("owner/dataset/versions/1"): what kagglehub's own cache holds of it is used without a network, and a
    copy there that is damaged is downloaded once more. Raises OSError or RuntimeError (see `why_not_fetched`).
    """
    with _beside(folder) as incoming:
        for again in (False, True):
            downloaded = _kaggle_dataset(handle, again)
            files = {name: _with_sum(downloaded, name, sha256) for name, sha256 in sha256s.items()}
            if all(files.values()):
                break
        for name, path in files.items():
            if path is None:
                raise OSError(f"the dataset {handle} holds no {name} with the expected sha256 {sha256s[name][:16]}...")
            # The cache may be on another disk, and stays as it is.
            shutil.copyfile(path, incoming / name)
        for name in files:
            shutil.move(incoming / name, folder / name)


def downloaded_from_kaggle(handle: str) -> Path:
    """The folder of a whole Kaggle dataset in kagglehub's cache, downloaded first if it is not there: it is large, and so not copied.

    `handle` names a version, as for `fetch_from_kaggle`. Raises OSError or RuntimeError (see `why_not_fetched`).
    """
    return _kaggle_dataset(handle, again=False)


def why_not_fetched(error: Exception) -> str:
    """What lies under the wrapping of urllib, urllib3 and requests, without a full stop."""
    inner: BaseException = error
    while (under := inner.__cause__ or inner.__context__) is not None:
        inner = under
    reason = getattr(inner, "reason", inner)
    return getattr(reason, "strerror", None) or (str(reason).splitlines() or [type(reason).__name__])[0].rstrip(".")


@contextlib.contextmanager
def _beside(folder: Path) -> Iterator[Path]:
    """An empty folder on the disk of `folder`, which is made if it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fetching-", dir=folder) as incoming:
        yield Path(incoming)


def _download(name: str, md5: str, mirrors: Sequence[str], incoming: Path) -> None:
    """Try one mirror after the other; torchvision checks the md5. Raises what the last one raised."""
    from torchvision.datasets.utils import download_url

    failure: Exception | None = None
    for mirror in mirrors:
        try:
            # torchvision draws a bar of its own, on stderr, terminal or not.
            with silence_limited_to(FETCH_TIMEOUT_S), contextlib.redirect_stderr(io.StringIO()):
                download_url(f"{mirror}{name}", str(incoming), filename=name, md5=md5)
        except (OSError, RuntimeError) as error:
            failure = error
        else:
            return
    raise failure or OSError("torchvision names no mirror")


def _kaggle_dataset(handle: str, again: bool) -> Path:
    """The folder of the dataset in kagglehub's cache, downloaded if it is not there or `again`."""
    import kagglehub

    log = logging.getLogger("kagglehub")
    loudness = log.level
    try:
        # Its log goes to stdout, where only results belong, and its bars are drawn on stderr, terminal or not.
        log.setLevel(logging.ERROR)
        quiet = io.StringIO()
        with silence_limited_to(FETCH_TIMEOUT_S), contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet):
            return Path(kagglehub.dataset_download(handle, force_download=again))
    except OSError:
        raise
    except Exception as error:
        # Its errors share no class, and what it unpacks may raise anything.
        raise RuntimeError(str(error) or type(error).__name__) from error
    finally:
        log.setLevel(loudness)


def _with_sum(folder: Path, name: str, sha256: str) -> Path | None:
    """The file of that name and sha256 anywhere below `folder`."""
    for path in sorted(folder.rglob(name)):
        if path.is_file():
            with path.open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() == sha256:
                    return path
    return None
