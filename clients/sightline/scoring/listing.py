"""Finds the images that a text names: a folder, a list, a pattern, or any of them behind a URL."""

import posixpath
from collections.abc import Iterator
from pathlib import Path

from sightline.errors import UsageError
from sightline.image import SUFFIXES, is_image_file
from sightline.scoring.entries import Listing, PassedOver
from sightline.scoring.lists import STDIN, ListedImages, is_list, path_of_file_url
from sightline.scoring.remote import WEB, FarTree, demand_url, is_url
from sightline.scoring.walk import WILD, LocalTree, Walk, split_pattern


def listing(source: str | Path) -> Listing:
    """Return the images that `source` names; nothing is listed yet.

    A folder, whose images are those of `images_below`; a list (`.txt`, `.lst`, `.csv`, `.jsonl`, `.ndjson`, or `-` for a text list on
    stdin); a pattern with `*`, `?`, `[…]` and `**`; or a URL of one of these: `s3://bucket/prefix`, `https://host/list.txt`. Raises
    UsageError for what is none of them, MissingExtra where a URL needs a package that is not installed.
    """
    text = str(source)
    if isinstance(source, str):
        if text == STDIN:
            return ListedImages(STDIN, ".txt")
        if is_url(text) and not text.startswith("file://"):
            return _far(text)
        text = path_of_file_url(text)
    path = Path(text)
    if path.is_dir():
        return Walk(str(source), LocalTree(path))
    if path.is_file():
        if is_list(text):
            return ListedImages(text, path.suffix.lower())
        if is_image_file(path):
            raise UsageError(f"{text}: this is one image: classify it, or name a folder, a list or a pattern")
        raise UsageError(f"{text}: this is no folder, and no list by its name (.txt, .lst, .csv, .jsonl, .ndjson)")
    if WILD.search(text):
        base, pattern = split_pattern(text)
        if Path(base).is_dir():
            return Walk(str(source), LocalTree(Path(base)), pattern)
        raise UsageError(f"{base}: there is no such folder, so that nothing can match {text}")
    raise UsageError(f"{text}: there is no such folder of images, and no such list")


def images_below(folder: Path) -> Iterator[Path]:
    """Give the paths of all images below `folder`, by content or name, sorted. Raises UsageError if a folder cannot be listed.

    Hidden files and links to folders are passed over.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder}: there is no such folder of images")
    return _paths(Walk(str(folder), LocalTree(folder)))


def _paths(walk: Walk) -> Iterator[Path]:
    for entry in walk.entries(PassedOver()):
        if not isinstance(entry.image, str):
            raise UsageError(f"{entry.name}: a folder below {walk.source} cannot be listed ({entry.stamp})")
        yield Path(entry.image)


def _far(url: str) -> Listing:
    demand_url(url)
    if is_list(url):
        return ListedImages(url, posixpath.splitext(url.partition("?")[0])[1].lower())
    if url.startswith(WEB):
        raise UsageError(f"{url}: a web server lists no folders: name a list on it (.txt, .lst, .csv, .jsonl, .ndjson)")
    scheme, _, rest = url.partition("://")
    if not rest.strip("/"):
        raise UsageError(f"{url}: name a bucket, or a folder in one")
    if WILD.search(rest):
        base, pattern = split_pattern(rest)
        return Walk(url, FarTree(f"{scheme}://{base}"), pattern)
    if posixpath.splitext(rest)[1].lower() in SUFFIXES:
        raise UsageError(f"{url}: this is one image: name a folder, a list or a pattern")
    return Walk(url, FarTree(url.rstrip("/")))
