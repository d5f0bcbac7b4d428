"""A real Triton with the tiny models of the serving tests, where it is installed."""

from importlib.util import find_spec

if find_spec("psutil") is not None and find_spec("onnx") is not None:
    from support.tiny_models import in_process, repository, served

    __all__ = ["in_process", "repository", "served"]
