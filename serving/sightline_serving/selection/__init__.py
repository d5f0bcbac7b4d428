"""What of a model repository is served on this machine: versions, INT8 files, TensorRT plans."""
