"""Says of a decoded image what images of one kind have in common: grey or in colour, transparent, how large, how much of the range it uses.

Taken before reformatting, which hides it: what looks alike afterwards may have been made in two ways.
"""

from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

MOST_PIXELS: Final = 256_000_000
"""Of an image that is trained on: phones make 200 million. Of a dataset more is let in than of what a stranger sends to be classified."""

Looks: TypeAlias = npt.NDArray[np.void]
"""An array of LOOK_DTYPE, one entry an image."""

KINDS: Final = ("grey", "grey, stored in colour", "in colour")
"""What `kind` counts."""
LOOK_DTYPE: Final = np.dtype(
    [
        ("kind", np.uint8),  # index into KINDS
        ("transparent", np.bool_),  # whether a pixel is, not whether it could be
        ("side", np.float32),  # pixels: the root of height times width
        ("range", np.float32),  # 0..1: the share of the range of values between the least and the greatest sample of a channel
    ]
)
VERSION: Final = 1
"""Of what a look holds."""
COLOURED: Final = 8
"""Levels by which red, green and blue must differ somewhere in an image that is in colour."""
SMALL: Final = 64
"""Pixels a side at which colour is looked for: less than that is a speck, or noise."""


def look_of(image: Image.Image) -> Looks:
    """Return the look of an image as `sightline.image.open_image` decodes it, shape ()."""
    look = np.zeros((), LOOK_DTYPE)
    look["side"] = np.sqrt(image.width * image.height)
    if image.mode == "I" or image.mode.startswith("I;16"):
        look["range"] = np.ptp(np.asarray(image).astype(np.int32)) / 65_535
        return look
    if image.has_transparency_data:
        image = image if image.mode in ("LA", "RGBA") else image.convert("RGBA")
        look["transparent"] = np.array(image.getchannel("A").getextrema()).min() < 255
    elif image.mode not in ("1", "L", "RGB"):
        image = image.convert("RGB")
    # What is drawn in one colour on transparent ground shows in the alpha alone.
    extrema = np.array(image.getextrema()).reshape(-1, 2)
    look["range"] = np.ptp(extrema, axis=1).max() / 255
    if image.mode in ("RGB", "RGBA"):
        small = np.asarray(image.resize((SMALL, SMALL), Image.Resampling.BOX))[..., :3].astype(np.int16)
        look["kind"] = 2 if np.ptp(small, axis=2).max() > COLOURED else 1
    return look
