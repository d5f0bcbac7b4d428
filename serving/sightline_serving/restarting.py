"""Starts a Triton that died again: at the same addresses, after growing pauses, and not for ever.

A request can kill the wheel's Triton (see serving/README.md), and so can the kernel for want of memory. One death is an accident, five
in ten minutes have a cause that starting again does not mend.
"""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final, NoReturn

from sightline.errors import ServerStartError
from sightline_serving.server import Server, TritonDied, start_server
from sightline_serving.settings import ServeSettings

MOST_RESTARTS: Final = 5
WITHIN_S: Final = 600.0
FIRST_PAUSE_S: Final = 0.5
"""Before it is started again; doubled after each death that follows within WITHIN_S."""


def keep_serving(
    repository: Path,
    settings: ServeSettings,
    ready: Callable[[Server], None],
    notify: Callable[[str], None] = lambda _sentence: None,
) -> NoReturn:
    """Serve `repository` until whoever called is interrupted, and start Triton again when it dies, on the ports that it had.

    `ready` is called with each new server, `notify` told each death and its cause. Raises what `start_server` raises if the first start
    fails or a published file was changed meanwhile, and ServerStartError when Triton dies once more after MOST_RESTARTS within WITHIN_S
    seconds. A start that fails, after a first one that did not, counts as a death.
    """
    deaths: deque[float] = deque(maxlen=MOST_RESTARTS + 1)
    while True:
        try:
            with start_server(repository, settings) as server:
                ready(server)
                # Clients know these addresses, also where a free port was asked for.
                ports = server.ports
                settings = replace(settings, http_port=ports.http, grpc_port=ports.grpc, metrics_port=ports.metrics)
                server.wait()
        except ServerStartError as error:
            if not deaths and not isinstance(error, TritonDied):
                raise
            deaths.append(time.monotonic())
            recent = sum(deaths[-1] - death < WITHIN_S for death in deaths)
            if recent > MOST_RESTARTS:
                raise ServerStartError(
                    f"Triton died {recent} times within {WITHIN_S / 60:g} minutes and is not started again. The last time: {error}"
                ) from None
            pause_s = FIRST_PAUSE_S * 2 ** (recent - 1)
            notify(
                f"{error}. It is started again in {pause_s:g} s ({recent} of at most {MOST_RESTARTS} times in {WITHIN_S / 60:g} minutes)"
            )
            time.sleep(pause_s)
