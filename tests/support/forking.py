"""Work in processes that may be killed: each is forked on demand from one that has imported everything already and has no threads."""

import multiprocessing
import os
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sightline.errors import SightlineError

PATIENCE_S = 120

fresh = multiprocessing.get_context("forkserver")


def nothing(_child: int, _order: Any) -> None:
    """Leave the child alone."""


@contextmanager
def forked(work: Callable[[Any], None], watch: Callable[[int, Any], None] = nothing) -> Iterator[Callable[[Any], int]]:
    """Give a function that does `work(order)` in a process of its own and returns its exit code: 0, that of an error, or -9.

    `watch` gets the process's number and the order, and may kill it.
    """
    ours, theirs = fresh.Pipe()
    server = fresh.Process(target=_fork_on_demand, args=(theirs, work, watch))
    server.start()

    def done(order: Any) -> int:
        ours.send(order)
        assert ours.poll(PATIENCE_S)
        code: int = ours.recv()
        return code

    try:
        yield done
    finally:
        server.kill()
        server.join(30)


def _fork_on_demand(orders: Any, work: Callable[[Any], None], watch: Callable[[int, Any], None]) -> None:
    while True:
        order = orders.recv()
        child = os.fork()
        if child == 0:
            try:
                work(order)
            except SightlineError as error:
                traceback.print_exc()
                os._exit(error.exit_code)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        watch(child, order)
        orders.send(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
