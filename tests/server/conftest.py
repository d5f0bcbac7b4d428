"""Tiny models, published as the exporter publishes them, and a real Triton that serves them.

A test that needs Triton fails where there is none: nothing here skips.
"""

from support.digits import digits_run, trained
from support.tiny_models import about, in_process, publish, repository, served

__all__ = ["about", "digits_run", "in_process", "publish", "repository", "served", "trained"]
