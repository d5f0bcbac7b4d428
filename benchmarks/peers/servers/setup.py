"""What each server of the race is told, through its environment: servers that start workers of their own hand that on to them."""

import os

import numpy as np
import onnxruntime

MODEL_FILE = os.environ["RACE_MODEL"]
MODEL_NAME = os.environ["RACE_NAME"]
PORT = int(os.environ["RACE_PORT"])
GRPC_PORT = int(os.environ["RACE_GRPC_PORT"])
WORKERS = int(os.environ["RACE_WORKERS"])
"""Processes that compute; 0 computes in the process that listens, where a server has that choice."""
THREADS = int(os.environ["RACE_THREADS"])
"""Of ONNX Runtime in one process."""
POOL = int(os.environ["RACE_POOL"])
"""Threads of one process that compute requests side by side; 0 computes in the event loop."""
MAX_BATCH = int(os.environ["RACE_MAX_BATCH"])
"""1 batches nothing."""
BATCH_WAIT_S = float(os.environ["RACE_BATCH_WAIT_MS"]) / 1000


class Network:
    """The ONNX file, as ONNX Runtime's guide to threads says to open it beside other busy threads: none of its own spins."""

    def __init__(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = THREADS
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(MODEL_FILE, options, providers=["CPUExecutionProvider"])
        tensor = self._session.get_inputs()[0]
        self.input, self.output = tensor.name, self._session.get_outputs()[0].name
        self.shape = tuple(tensor.shape[1:])

    def __reduce__(self) -> tuple[type["Network"], tuple[()]]:
        """A worker that is spawned opens the file by itself: KServe pickles its models."""
        return Network, ()

    def image(self, content: bytes) -> np.ndarray:
        """One image, uint8 [H, W, C], of the bytes of a request."""
        return np.frombuffer(content, np.uint8).reshape(self.shape)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Images uint8 [N, H, W, C] to probabilities float32 [N, classes]."""
        return self._session.run([self.output], {self.input: images})[0]
