"""From a torch network to an ONNX file in a precision, and both as functions that answer."""
