"""Asks again while nobody answers, for as long as the caller is willing to wait, and tells him that it does."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias, TypeVar

from sightline.errors import ServerUnavailable, SightlineError, UsageError

Value = TypeVar("Value")

OnWait: TypeAlias = Callable[[SightlineError, float], None]
"""Called with what went wrong and the seconds waited so far, each time before a call is made again."""

WAIT_S: Final = 0.5
"""What a caller who says nothing waits: enough for a connection that broke, not for a server that starts anew."""
FIRST_PAUSE_S: Final = 0.1
LONGEST_PAUSE_S: Final = 1.0


def demand_wait(wait_s: float) -> float:
    """Return `wait_s`, seconds. Raises UsageError if it is less than 0 or no number."""
    if not 0 <= wait_s < float("inf"):
        raise UsageError(f"the time to wait for a server must be 0 s or more, not {wait_s:g}")
    return wait_s


class Patience:
    """How long one call is made again, from now on. Pauses grow to LONGEST_PAUSE_S and are spread out, so that many clients do not come
    back at once.
    """

    def __init__(self, wait_s: float, on_wait: OnWait | None = None) -> None:
        self._began_s, self._wait_s, self._on_wait = time.monotonic(), wait_s, on_wait
        self._pause_s = FIRST_PAUSE_S
        self.waited = False
        """Whether the call had to be made more than once."""

    def pause_s(self, error: ServerUnavailable) -> float:
        """Return the seconds to pause before the next call. Raises `error` if the time is up."""
        waited_s = time.monotonic() - self._began_s
        remaining_s = self._wait_s - waited_s
        if remaining_s <= 0:
            raise error
        self.waited = True
        if self._on_wait is not None:
            self._on_wait(error, waited_s)
        pause_s = min(remaining_s, self._pause_s * random.uniform(0.5, 1.0))
        self._pause_s = min(LONGEST_PAUSE_S, 2 * self._pause_s)
        return pause_s


def patiently(call: Callable[[], Value], patience: Patience) -> Value:
    """Return what `call` returns, asking again while it raises ServerUnavailable, until `patience` ends; then that is raised.

    Only what may be asked twice may be asked so: a classifier is none the other for it.
    """
    while True:
        try:
            return call()
        except ServerUnavailable as error:
            pause_s = patience.pause_s(error)
        time.sleep(pause_s)


async def patiently_awaited(call: Callable[[], Awaitable[Value]], patience: Patience) -> Value:
    """As `patiently`, for what is awaited: meanwhile the event loop goes on."""
    while True:
        try:
            return await call()
        except ServerUnavailable as error:
            pause_s = patience.pause_s(error)
        await asyncio.sleep(pause_s)
