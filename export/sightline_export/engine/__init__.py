"""TensorRT plans of published versions: built, inspected, held to the ONNX file's answers. Not yet run on TensorRT hardware."""
