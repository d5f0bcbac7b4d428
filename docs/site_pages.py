"""Gives the site the pages that lie elsewhere in the checkout: the READMEs, the examples, and the help of every command.

A hook of MkDocs (mkdocs.yml). A text is written once and read in two places, so links are turned to where the site has their target.
"""

import posixpath
import re
from importlib.metadata import entry_points
from pathlib import Path
from typing import Final

import click
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT: Final = Path(__file__).resolve().parents[1]

FOLDERS: Final = ("clients", "training", "export", "serving", "docker", "model_repository")

READMES: Final = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "examples/README.md": "examples.md",
    **{
        f"{folder}/README.md": f"folders/{folder}.md"
        for folder in ("clients", "training", "export", "serving", "docker", "model_repository")
    },
}
"""A page in the checkout → the same page on the site."""

LINK: Final = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\((?!https?://|#)([^)#\s]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that do not lie in `docs/`."""
    for source, target in READMES.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, target, content=text + (examples() if target == "examples.md" else "")))
    files.append(File.generated(config, "commands.md", content=commands()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001
    """Turn the links of a page to the site's own pages; the name of a source file stays as text."""
    here = {target: source for source, target in READMES.items()}.get(page.file.src_uri, f"docs/{page.file.src_uri}")

    def turned(link: re.Match[str]) -> str:
        image, label, target, anchor = link[1], link[2], link[3], link[4] or ""
        path = posixpath.normpath(posixpath.join(posixpath.dirname(here), target))
        if f"{path}/README.md" in READMES:
            path += "/README.md"
        address = READMES.get(path) or (path.removeprefix("docs/") if path.startswith("docs/") else None)
        if address is None or files.get_file_from_path(address) is None:
            if not (ROOT / path).exists():
                return link[0]  # MkDocs says that it is broken
            return label
        return f"{image}[{label}]({posixpath.relpath(address, posixpath.dirname(page.file.src_uri) or '.')}{anchor})"

    return LINK.sub(turned, markdown)


def commands() -> str:
    """Give the page of the command line: what `--help` says, command by command."""
    lines = [
        "# Command line",
        "",
        "What `sightline COMMAND --help` prints. Results go to stdout, everything else to stderr; the exit code comes",
    ]
    lines += ["from [the error](errors.md).", ""]
    for point in sorted(entry_points(group="sightline.commands"), key=lambda point: point.name):
        command: click.Command = point.load()
        context = click.Context(command, info_name=f"sightline {point.name}", max_content_width=96, terminal_width=96)
        lines += [f"## {point.name}", "", "```text", command.get_help(context), "```", ""]
    return "\n".join(lines)


def examples() -> str:
    """Give the source of every example, for the page that explains them."""
    languages = {".py": "python", ".sh": "sh"}
    scripts = sorted(path for path in (ROOT / "examples").iterdir() if path.suffix in languages)
    return "".join(f"\n## {path.name}\n\n```{languages[path.suffix]}\n{path.read_text(encoding='utf-8')}```\n" for path in scripts)
