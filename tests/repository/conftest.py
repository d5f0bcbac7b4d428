"""What is published here is the small network of the exporter's tests."""

from support.digits import digits_run, trained

__all__ = ["digits_run", "trained"]
