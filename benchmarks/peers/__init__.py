"""The race against the peers: the same ONNX models behind other servers, measured in one run."""
