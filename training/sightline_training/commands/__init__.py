"""A click command each."""
