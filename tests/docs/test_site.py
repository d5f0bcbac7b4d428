"""The documentation site is built strictly, holds every page, and asks nothing of the network."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

import sightline
from support.readme import ROOT


class Assets(HTMLParser):
    """Addresses of what a browser loads with a page: scripts, style sheets, fonts, images."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        if tag in ("script", "img", "iframe", "source") and named.get("src"):
            self.addresses.append(named["src"] or "")
        if tag == "link" and named.get("rel") != "canonical" and named.get("href"):
            self.addresses.append(named["href"] or "")


def assets_of(page: Path) -> list[str]:
    parser = Assets()
    parser.feed(page.read_text(encoding="utf-8"))
    return parser.addresses


def test_every_page_of_the_docs_and_every_readme_is_on_the_site(site: Path) -> None:
    pages = {str(page.relative_to(site)) for page in site.rglob("*.html")}
    docs = {str(page.relative_to(ROOT / "docs").with_suffix(".html")) for page in (ROOT / "docs").rglob("*.md")}
    folders = {f"folders/{readme.parent.name}.html" for readme in ROOT.glob("[a-z]*/README.md")} - {"folders/examples.html"}
    assert docs | folders | {"index.html", "contributing.html", "changelog.html", "examples.html", "commands.html"} <= pages


def test_the_site_loads_nothing_from_the_network(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 20
    assert [(page.name, address) for page in pages for address in assets_of(page) if re.match(r"(https?:)?//", address)] == []
    sheets = [sheet.read_text(encoding="utf-8") for sheet in site.rglob("*.css")]
    assert not [sheet for sheet in sheets if re.search(r"url\(\s*['\"]?(https?:)?//|@import\s+['\"]?http", sheet)]


def test_every_asset_of_a_page_is_there(site: Path) -> None:
    for page in sorted(site.rglob("*.html")):
        if page.name != "404.html":  # its addresses begin at the root of the site
            missing = [address for address in assets_of(page) if not (page.parent / address.partition("?")[0]).exists()]
            assert missing == [], page.name


@pytest.mark.parametrize("name", sightline.__all__)
def test_everything_importable_from_the_top_is_documented(name: str, site: Path) -> None:
    pages = "".join(page.read_text(encoding="utf-8") for page in sorted((site / "api").glob("*.html")))
    thing = getattr(sightline, name)
    home = getattr(thing, "__module__", "sightline")
    assert re.search(rf'id="({re.escape(home)}|sightline(\.\w+)*)\.{name}"', pages), name
