"""Serving: starts and stops a real Triton Inference Server over a model repository."""
