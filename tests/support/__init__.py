"""Helpers that more than one test module uses. No test stands here, and no test module imports another."""
