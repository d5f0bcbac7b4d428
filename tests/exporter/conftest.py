"""A small network, really trained once a session on scikit-learn's bundled handwritten digits, and its export."""

from support.digits import digits_run, trained

__all__ = ["digits_run", "trained"]
