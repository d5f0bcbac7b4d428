"""Export: a run folder becomes ONNX, passes the gate, and is published in a Triton model repository."""
