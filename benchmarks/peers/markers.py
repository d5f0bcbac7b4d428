"""Replaces what stands between two comments of a page, and nothing else."""

from typing import Final

BEGIN: Final = "<!-- {name}: written by `{command}`, do not edit -->"
END: Final = "<!-- {name}: end -->"


def replaced(page: str, name: str, command: str, block: str) -> str:
    """Return the page with `block` between the markers of `name`. Raises ValueError if they are not there, each once and in order."""
    begin, end = BEGIN.format(name=name, command=command), END.format(name=name)
    if page.count(begin) != 1 or page.count(end) != 1 or page.index(begin) > page.index(end):
        raise ValueError(f"the page needs the line {begin!r} and after it {end!r}, each once")
    before, _, rest = page.partition(begin)
    _, _, after = rest.partition(end)
    return f"{before}{begin}\n\n{block.strip()}\n\n{end}{after}"
