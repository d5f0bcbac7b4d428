"""FastAPI with torchvision's transforms, as teams write it: the JPEG file is uploaded, Pillow decodes it, the transforms make the tensor.

uvicorn transforms_server:app --workers N. The network is the published one from behind its own normalisation: float32 [N, 3, H, W].
"""

import contextlib
import io
import os
from collections.abc import AsyncIterator

import anyio.to_thread
import onnxruntime
import torch
from fastapi import FastAPI, File, Response, UploadFile
from PIL import Image
from torchvision import transforms

torch.set_num_threads(1)
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = int(os.environ["RACE_THREADS"])
options.add_session_config_entry("session.intra_op.allow_spinning", "0")
session = onnxruntime.InferenceSession(os.environ["RACE_MODEL"], options, providers=["CPUExecutionProvider"])
transform = transforms.Compose(
    [
        transforms.Resize(int(os.environ["RACE_RESIZE"])),
        transforms.CenterCrop(int(os.environ["RACE_CROP"])),
        transforms.ToTensor(),
        transforms.Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]),
    ]
)


@contextlib.asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Let no more threads compute at once than are worth it."""
    anyio.to_thread.current_default_thread_limiter().total_tokens = int(os.environ["RACE_POOL"]) or 40
    yield


app = FastAPI(lifespan=lifespan)


@app.post("/predict")
def predict(file: UploadFile = File(...)) -> Response:
    image = Image.open(io.BytesIO(file.file.read())).convert("RGB")
    tensor = transform(image).unsqueeze(0)
    probabilities = session.run(None, {session.get_inputs()[0].name: tensor.numpy()})[0]
    return Response(probabilities.tobytes(), media_type="application/octet-stream")
