"""Tiny models, published as the exporter publishes them, and a real Triton that serves them.

A test that needs Triton fails where there is none: nothing here skips.
"""

from support.tiny_models import about, in_process, publish, repository, served

__all__ = ["about", "in_process", "publish", "repository", "served"]
