"""Ask a model with tritonclient alone, without Sightline: python examples/raw_tritonclient.py HOST:PORT MODEL IMAGE...

The files go to MODEL_image as they are, which reformats them inside the server, by the very function that the model was trained with. A
client that reformats by itself must do all that docs/preprocessing.md says, for the version that the card names; whoever does not know a
field's value must not guess.
"""

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.grpc as triton

address, model, *paths = sys.argv[1:]
client = triton.InferenceServerClient(address)

# 1. The card is in the model's configuration, as text; its sha256 is that of its canonical JSON.
sealed = json.loads(client.get_model_config(model).config.parameters["model_card"].string_value)
card: dict[str, Any] = sealed["card"]
canonical = json.dumps(card, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
if hashlib.sha256(canonical.encode()).hexdigest() != sealed["sha256"]:
    sys.exit("the card was changed")

# 2. Batches of whole files, BYTES [N, 1]. A file that is no image fails its request, and the message says which.
for start in range(0, len(paths), card["max_batch_size"]):
    chunk = paths[start : start + card["max_batch_size"]]
    files = triton.InferInput("pictures", [len(chunk), 1], "BYTES")
    files.set_data_from_numpy(np.array([[Path(path).read_bytes()] for path in chunk], dtype=np.object_))
    answer = client.infer(f"{model}_image", [files], outputs=[triton.InferRequestedOutput(card["output"])], client_timeout=10)
    for path, row in zip(chunk, answer.as_numpy(card["output"]), strict=True):
        print(path, card["labels"][row.argmax()], f"{row.max():.4f}")
