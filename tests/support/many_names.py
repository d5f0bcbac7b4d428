"""A folder of many files that costs hardly any time to write: one image under many names."""

from pathlib import Path

from PIL import Image


def in_two_classes(folder: Path, count: int) -> Path:
    """Write `count` names of one image into the folders `cat` and `dog` below `folder`, by turns, and return `folder`."""
    for place in ("cat", "dog"):
        (folder / place).mkdir(parents=True)
    first = folder / "cat" / "00000.png"
    Image.linear_gradient("L").resize((5, 6)).convert("RGB").save(first)
    for number in range(1, count):
        (folder / ("cat" if number % 2 == 0 else "dog") / f"{number:05}.png").hardlink_to(first)
    return folder
