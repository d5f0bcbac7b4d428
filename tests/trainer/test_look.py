"""The look of an image is that of the image, in whichever mode its decoder gives it."""

import io

import numpy as np
import pytest
from PIL import Image

from sightline.image import open_image
from sightline_training.datasets.look import KINDS, look_of
from support.photos import photo


def look(image: Image.Image) -> tuple[str, bool, float, float]:
    seen = look_of(image)
    return KINDS[int(seen["kind"])], bool(seen["transparent"]), float(seen["side"]), round(float(seen["range"]), 4)


def opened(image: Image.Image, format_name: str) -> Image.Image:
    file = io.BytesIO()
    image.save(file, format_name)
    return open_image(file.getvalue())


RAMP = Image.linear_gradient("L")


@pytest.mark.parametrize(
    ("image", "kind", "transparent"),
    [
        (RAMP, "grey", False),
        (RAMP.convert("1"), "grey", False),
        (RAMP.convert("LA"), "grey", False),
        (RAMP.convert("RGB"), "grey, stored in colour", False),
        (RAMP.convert("RGB").quantize(256), "grey, stored in colour", False),
        (Image.merge("RGB", (RAMP, RAMP.rotate(90), RAMP)), "in colour", False),
        (Image.merge("RGB", (RAMP, RAMP.rotate(90), RAMP)).convert("CMYK"), "in colour", False),
        (Image.merge("LA", (RAMP, RAMP)), "grey", True),
        (Image.merge("RGBA", (RAMP, RAMP.rotate(90), RAMP, RAMP)), "in colour", True),
    ],
)
def test_kind_and_transparency_of_every_mode(image: Image.Image, kind: str, transparent: bool) -> None:
    assert look(image)[:3] == (kind, transparent, 256.0)
    assert look(image)[3] > 0.9


@pytest.mark.parametrize("format_name", ["PNG", "TIFF", "PPM"])
@pytest.mark.parametrize(("shift", "share"), [(0, 4095 / 65_535), (4, 65_520 / 65_535)])
def test_samples_of_sixteen_bits_are_measured_in_sixteen_bits(format_name: str, shift: int, share: float) -> None:
    samples = (np.arange(4096, dtype=np.uint16) << shift).reshape(64, 64)
    kind, _, side, used = look(opened(Image.fromarray(samples), format_name))
    assert (kind, side) == ("grey", 64.0)
    assert used == pytest.approx(share, abs=0.004)  # whether or not the decoder has made eight bits of them


def test_a_photo_of_grey_things_is_grey_and_a_spot_of_colour_makes_it_coloured() -> None:
    grey = photo(1).convert("L").convert("RGB")
    assert look(opened(grey, "JPEG"))[0] == "grey, stored in colour"
    grey.paste((200, 40, 40), (30, 30, 40, 40))
    assert look(opened(grey, "JPEG"))[0] == "in colour"


def test_colours_that_nobody_sees_do_not_count() -> None:
    image = Image.merge("RGBA", (RAMP, RAMP.rotate(90), RAMP, Image.new("L", RAMP.size)))
    assert look(image)[:2] == ("grey, stored in colour", True)
