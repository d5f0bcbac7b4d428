"""Ask a model with tritonclient alone, without Sightline: python examples/raw_tritonclient.py HOST:PORT MODEL IMAGE...

What a client of another kind must do: fetch the card, check its hash, reformat as it says (docs/preprocessing.md), send uint8 NHWC.
This one knows what the card of `mnist` asks for, and refuses every other.
"""

import hashlib
import json
import sys
from typing import Any

import numpy as np
import numpy.typing as npt
import tritonclient.grpc as triton
from PIL import Image, ImageOps

address, model, *paths = sys.argv[1:]
client = triton.InferenceServerClient(address)

# 1. The card is in the model's configuration, as text; its sha256 is that of its canonical JSON.
sealed = json.loads(client.get_model_config(model).config.parameters["model_card"].string_value)
card: dict[str, Any] = sealed["card"]
canonical = json.dumps(card, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
if hashlib.sha256(canonical.encode()).hexdigest() != sealed["sha256"]:
    sys.exit("the card was changed")

# 2. Whoever does not know a field's value must not guess.
spec = card["preprocess"]
known = {"version": 1, "mode": "L", "fit": "pad", "resample": "bilinear", "exif": "apply", "polarity": "light-on-dark"}
if {name: spec[name] for name in known} != known:
    sys.exit(f"this client cannot reformat images for {model}")
height, width = spec["size"]


def reformat(path: str) -> npt.NDArray[np.uint8]:
    """Turn an image into uint8 [height, width, 1]."""
    image = ImageOps.exif_transpose(Image.open(path)).convert("L")
    scale = min(height / image.height, width / image.width)
    high, wide = max(1, round(image.height * scale)), max(1, round(image.width * scale))
    bilinear = Image.Resampling.BILINEAR
    pixels = np.asarray(image.resize((wide, image.height), bilinear).resize((wide, high), bilinear))
    border = np.concatenate([pixels[0], pixels[-1], pixels[1:-1, 0], pixels[1:-1, -1]])
    if np.median(border) > 127:
        pixels = 255 - pixels
    canvas = np.full((height, width), spec["background"][0], np.uint8)
    top, left = (height - high) // 2, (width - wide) // 2
    canvas[top : top + high, left : left + wide] = pixels
    return canvas[..., None]


# 3. Batches of uint8 [N, height, width, channels]; normalisation is inside the network.
for start in range(0, len(paths), card["max_batch_size"]):
    batch = np.stack([reformat(path) for path in paths[start : start + card["max_batch_size"]]])
    pixels = triton.InferInput(card["input"], list(batch.shape), "UINT8")
    pixels.set_data_from_numpy(batch)
    answer = client.infer(model, [pixels], outputs=[triton.InferRequestedOutput(card["output"])], client_timeout=10)
    for path, row in zip(paths[start:], answer.as_numpy(card["output"]), strict=False):
        print(path, card["labels"][row.argmax()], f"{row.max():.4f}")
