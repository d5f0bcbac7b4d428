"""Sightline: what `sightline serve` starts, over a repository as `sightline export` published it, with nothing changed."""

import os
import signal
import sys
from dataclasses import replace

from sightline_serving.server import start_server
from sightline_serving.settings import FREE_PORTS

if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    ports = {"http_port": int(os.environ["RACE_PORT"]), "grpc_port": int(os.environ["RACE_GRPC_PORT"])}
    with start_server(os.environ["RACE_REPOSITORY"], replace(FREE_PORTS, **ports)) as server:
        server.wait()
