"""Lets what holds connections begin anew in a forked process: the parent's connections would mix up their answers.

Forks come from gunicorn's preloading, Celery's prefork pool, `multiprocessing` and DataLoaders with workers. It is Python's own hook
(`os.register_at_fork`) that calls, so that no call has to ask first which process it is in. (`subprocess` starts another program, and
calls no hook.)

gRPC works in a forked process only if no thread was inside of it at the fork ("Other threads are currently calling into gRPC, skipping
fork() handlers", it writes; of 40 children of a parent with two busy threads, 6 to 8 never had an answer). So a fork waits until the
calls in flight have ended, and keeps new ones waiting for that long.
"""

import os
import threading
import time
import weakref
from types import TracebackType
from typing import Final, Protocol

PATIENCE_S: Final = 10.0
"""A fork waits for calls in flight no longer than this: as long as a call takes by default."""


class Renewed(Protocol):
    """What holds connections."""

    def renew(self) -> None:
        """Begin anew in a forked process. The other threads of the parent are not there: their locks stay locked for ever."""
        ...


class CallsInFlight:
    """A block that no fork falls into: `with IN_FLIGHT: …` around a call. Not to be nested."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Begin with none, as in a forked process."""
        self._changed = threading.Condition()
        self._threads: set[int] = set()
        self._forking = 0

    def __enter__(self) -> None:
        with self._changed:
            while self._forking:
                self._changed.wait()
            self._threads.add(threading.get_ident())

    def __exit__(self, _kind: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None) -> None:
        with self._changed:
            self._threads.discard(threading.get_ident())
            if self._forking:
                self._changed.notify_all()

    def before_fork(self) -> None:
        """Keep new calls waiting, and wait for those in flight; one of this very thread, which a signal's handler interrupted, is not."""
        give_up_s = time.monotonic() + PATIENCE_S
        with self._changed:
            self._forking += 1
            while self._threads - {threading.get_ident()} and (remaining_s := give_up_s - time.monotonic()) > 0:
                self._changed.wait(remaining_s)

    def after_fork(self) -> None:
        """Let the calls that wait go on, in the parent."""
        with self._changed:
            self._forking -= 1
            self._changed.notify_all()


IN_FLIGHT: Final = CallsInFlight()
_live: "weakref.WeakSet[Renewed]" = weakref.WeakSet()


def renew_after_fork(holder: Renewed) -> None:
    """Call `holder.renew()` in every process that is forked from this one, as long as `holder` lives."""
    _live.add(holder)


def _renew_all() -> None:
    IN_FLIGHT.begin()
    for holder in list(_live):
        holder.renew()


if hasattr(os, "register_at_fork"):  # Windows has no fork
    os.register_at_fork(before=IN_FLIGHT.before_fork, after_in_parent=IN_FLIGHT.after_fork, after_in_child=_renew_all)
