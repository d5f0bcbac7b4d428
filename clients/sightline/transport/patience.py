"""Asks again while nobody answers, for as long as the caller is willing to wait."""

import random
import time
from collections.abc import Callable
from typing import Final, TypeVar

from sightline.errors import ServerUnavailable, UsageError

Value = TypeVar("Value")

WAIT_S: Final = 0.5
"""What a caller who says nothing waits: enough for a connection that broke, not for a server that starts anew."""
FIRST_PAUSE_S: Final = 0.1
LONGEST_PAUSE_S: Final = 1.0


def demand_wait(wait_s: float) -> float:
    """Return `wait_s`, seconds. Raises UsageError if it is less than 0 or no number."""
    if not 0 <= wait_s < float("inf"):
        raise UsageError(f"the time to wait for a server must be 0 s or more, not {wait_s:g}")
    return wait_s


def patiently(call: Callable[[], Value], wait_s: float) -> Value:
    """Return what `call` returns, asking again for `wait_s` seconds while it raises ServerUnavailable; then that is raised.

    Only what may be asked twice may be asked so: a classifier is none the other for it. Pauses grow to LONGEST_PAUSE_S and are spread
    out, so that many clients do not come back at once.
    """
    give_up_s = time.monotonic() + wait_s
    pause_s = FIRST_PAUSE_S
    while True:
        try:
            return call()
        except ServerUnavailable:
            remaining_s = give_up_s - time.monotonic()
            if remaining_s <= 0:
                raise
        time.sleep(min(remaining_s, pause_s * random.uniform(0.5, 1.0)))
        pause_s = min(LONGEST_PAUSE_S, 2 * pause_s)
