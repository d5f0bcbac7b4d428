"""What the scripts that draw scenes share: their options, and how much of a scene a served model reads right."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from sightline import Classifier
from sightline.proportions import wilson_interval


def options(description: str | None) -> argparse.Namespace:
    """Read the command line: model, data, url, images, sheet."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--url", default="grpc://localhost:8001")
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--sheet", type=Path, help="also write the first images of each scene into this file")
    return parser.parse_args()


def asked(classifier: Classifier, images: Sequence[Image.Image], labels: Sequence[str]) -> tuple[str, str, str]:
    """Return cells of a table: what is read right, Wilson's 95 % interval, and the mean probability of the wrong labels."""
    guesses = classifier.classify(list(images))
    wrong = [guess.probability for guess, label in zip(guesses, labels, strict=True) if guess.label != label]
    right = len(guesses) - len(wrong)
    low, high = wilson_interval(right, len(guesses))
    share = f"{right:,} of {len(guesses):,}: {100 * right / len(guesses):.1f} %"
    return share, f"{100 * low:.1f} … {100 * high:.1f}", f"{np.mean(wrong):.2f}" if wrong else ""


def write_sheet(path: Path, rows: Sequence[Sequence[Image.Image]], side: int = 96) -> None:
    """Write the images, a row for each scene, over magenta, which shows what is transparent."""
    sheet = Image.new("RGBA", (side * max(map(len, rows)), side * len(rows)), (255, 0, 255, 255))
    for down, images in enumerate(rows):
        for across, image in enumerate(images):
            sheet.alpha_composite(image.convert("RGBA").resize((side, side)), (side * across, side * down))
    sheet.save(path)
