"""A real Triton with the tiny models of the serving tests."""

from support.tiny_models import served

__all__ = ["served"]
