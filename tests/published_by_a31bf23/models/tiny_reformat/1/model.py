"""Encoded pictures to pixels. The Python of this Triton must have the package sightline (pip install sightline)."""

from sightline.in_triton import TritonPythonModel

__all__ = ["TritonPythonModel"]
