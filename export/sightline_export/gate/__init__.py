"""Compares an exported model with the trained one, and refuses what is not the same model."""
