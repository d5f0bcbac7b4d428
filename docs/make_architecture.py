"""Draws docs/architecture.svg, the picture of the house, from the layers that import-linter holds (pyproject.toml).

python docs/make_architecture.py
"""

import tomllib
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
PICTURE: Final = ROOT / "docs" / "architecture.svg"

Layers = Sequence[Sequence[str]]
"""From the top floor to the ground: a module imports only what lies on a lower floor."""

WIDTH, MARGIN, GAP, ROW, HEAD = 1000, 20, 8, 34, 52
COLUMN: Final = (WIDTH - 2 * MARGIN - 2 * 30) // 3
UPPER: Final = ("sightline_training", "sightline_export", "sightline_serving")
FOLDERS: Final = {
    "sightline_training": "training/",
    "sightline_export": "export/",
    "sightline_serving": "serving/",
    "sightline": "clients/",
}

STYLE: Final = """
  text { font-family: Helvetica, Arial, 'DejaVu Sans', sans-serif; text-anchor: middle; fill: #17222e; }
  .paper { fill: #ffffff; } .package { fill: #f3f6fa; stroke: #33475b; stroke-width: 1.5; }
  .base { fill: #e8f1fb; stroke: #1f5fa8; stroke-width: 2; }
  .data { fill: #fdf1dc; stroke: #b5761a; stroke-width: 1.5; } .wing { fill: #ffffff; stroke: #8fa1b3; }
  .title { font-size: 16px; font-weight: 600; } .folder { font-size: 12.5px; fill: #4a5a6a; } .name { font-size: 13px; }
  .arrow { stroke: #33475b; stroke-width: 1.8; fill: none; marker-end: url(#head); } .head { fill: #33475b; }
  .flow { stroke: #b5761a; stroke-width: 1.8; stroke-dasharray: 5 4; fill: none; marker-end: url(#flowhead); } .flowhead { fill: #b5761a; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3; } .paper { fill: #14181f; } .package { fill: #1c232d; stroke: #8fa1b3; } .base { fill: #16293f; stroke: #5b9be0; }
    .data { fill: #33270f; stroke: #d9a04a; } .wing { fill: #0f141b; stroke: #55677a; } .folder { fill: #a3b3c2; }
    .arrow { stroke: #a3b3c2; } .head { fill: #a3b3c2; } .flow { stroke: #d9a04a; } .flowhead { fill: #d9a04a; }
  }
"""


def layers_of(package: str) -> list[list[str]]:
    """Give the floors of a package as its import-linter contract has them, top floor first."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    for contract in project["tool"]["importlinter"]["contracts"]:
        if contract["type"] == "layers" and package in contract["containers"]:
            return [[name.strip() for name in floor.split("|")] for floor in contract["layers"]]
    raise SystemExit(f"error: no import-linter contract of pyproject.toml has the layers of {package}")


def picture() -> str:
    """Give the SVG."""
    upper = {package: layers_of(package) for package in UPPER}
    base = layers_of("sightline")
    tallest = max(map(len, upper.values()))
    upper_height = HEAD + tallest * ROW + GAP
    base_top = MARGIN + upper_height + 116
    base_height = HEAD + len(base) * ROW + GAP
    height = base_top + base_height + MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}">',
        "<title>The packages of Sightline and their layers</title>",
        f"<style>{STYLE}</style>",
        "<defs>"
        + "".join(
            f'<marker id="{name}" markerWidth="9" markerHeight="9" refX="8" refY="4.5" orient="auto">'
            f'<path class="{name}" d="M0 0 L9 4.5 L0 9 z"/></marker>'
            for name in ("head", "flowhead")
        )
        + "</defs>",
        f'<rect class="paper" width="{WIDTH}" height="{height}" rx="12"/>',
    ]
    lefts = {package: MARGIN + at * (COLUMN + 30) for at, package in enumerate(UPPER)}
    for package, floors in upper.items():
        parts += _package(package, floors, lefts[package], MARGIN, COLUMN, upper_height, "package")
    parts += _package("sightline", base, MARGIN, base_top, WIDTH - 2 * MARGIN, base_height, "base")
    bottom = MARGIN + upper_height
    training, export, serving = (lefts[package] + COLUMN // 2 for package in UPPER)
    middle = MARGIN + 26
    parts.append(f'<path class="arrow" d="M{lefts["sightline_export"]} {middle} H{lefts["sightline_training"] + COLUMN + 3}"/>')
    parts += [f'<path class="arrow" d="M{x} {bottom} V{base_top - 3}"/>' for x in (training, export - 60, serving + 60)]
    left, right = export + 20, serving - 20
    parts.append(f'<rect class="data" x="{left}" y="{bottom + 36}" width="{right - left}" height="44" rx="8"/>')
    parts.append(_text((left + right) // 2, bottom + 55, "model_repository/", "title"))
    parts.append(_text((left + right) // 2, bottom + 72, "published versions: data, no code", "folder"))
    parts.append(f'<path class="flow" d="M{left + 40} {bottom} V{bottom + 33}"/>')
    parts.append(f'<path class="flow" d="M{right - 40} {bottom + 36} V{bottom + 3}"/>')
    parts.append(_text(training + 32, bottom + 62, "imports", "folder"))
    parts.append(_text(left + 78, bottom + 22, "publishes", "folder"))
    parts.append(_text(right - 66, bottom + 22, "reads", "folder"))
    parts.append("</svg>\n")
    return "\n".join(parts)


def _package(name: str, floors: Layers, left: int, top: int, width: int, height: int, kind: str) -> list[str]:
    parts = [f'<rect class="{kind}" x="{left}" y="{top}" width="{width}" height="{height}" rx="10"/>']
    parts.append(_text(left + width // 2, top + 23, name, "title"))
    parts.append(_text(left + width // 2, top + 40, FOLDERS[name], "folder"))
    for down, floor in enumerate(floors):
        y = top + HEAD + down * ROW
        wing_width = (width - 2 * 12 - (len(floor) - 1) * GAP) / len(floor)
        for across, wing in enumerate(floor):
            x = left + 12 + across * (wing_width + GAP)
            parts.append(f'<rect class="wing" x="{x:.1f}" y="{y}" width="{wing_width:.1f}" height="{ROW - GAP}" rx="5"/>')
            parts.append(_text(round(x + wing_width / 2), y + 18, wing, "name"))
    return parts


def _text(x: int, y: int, words: str, kind: str) -> str:
    return f'<text class="{kind}" x="{x}" y="{y}">{escape(words)}</text>'


if __name__ == "__main__":
    PICTURE.write_text(picture(), encoding="utf-8")
