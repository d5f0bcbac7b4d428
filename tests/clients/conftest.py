"""A real Triton with the tiny models of the serving tests."""

from serving.conftest import served

__all__ = ["served"]
