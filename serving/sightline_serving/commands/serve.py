"""`sightline serve`: a Triton Inference Server over a model repository, until Ctrl-C."""

import signal
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Literal, NoReturn

import click

from sightline.commands.options import options_as
from sightline_serving.settings import ServeSettings

if TYPE_CHECKING:
    from sightline_serving.server import Server


class _Stop(BaseException):
    """Someone asked us to stop; that is no error."""


_serve_options = options_as(
    "settings",
    ServeSettings,
    click.option("--model", "models", multiple=True, metavar="NAME", help="Serve this model only (may be given several times)."),
    click.option("--address", default="127.0.0.1", show_default=True, help="IPv4 address to listen on."),
    click.option("--http-port", type=int, default=8000, show_default=True, help="0 picks a free one."),
    click.option("--grpc-port", type=int, default=8001, show_default=True, help="0 picks a free one."),
    click.option("--metrics-port", type=int, default=8002, show_default=True, help="0 picks a free one."),
    click.option(
        "--startup-timeout", "startup_timeout_s", type=click.FloatRange(min=0.1), default=120.0, show_default=True, help="Seconds."
    ),
    click.option("--log-file", type=click.Path(path_type=Path), help="Append Triton's log to this file."),
    click.option("--verbose", is_flag=True, help="Show Triton's log on stderr."),
    click.option(
        "--outdated-beyond-loopback", is_flag=True, help="Let the pip-installed Triton, which has known holes, listen on a network."
    ),
    click.option(
        "--allow-unreported",
        is_flag=True,
        help="Serve versions without report.json too: not made by `sightline export`, or it was lost.",
    ),
    click.option(
        "--require-signature",
        type=click.Path(path_type=Path, dir_okay=False),
        metavar="PUBLIC.pem",
        help="Serve models only as the owner of this key signed them (`sightline sign`).",
    ),
    click.option(
        "--fit-cores/--no-fit-cores",
        default=True,
        show_default=True,
        help="Where a model was exported on a machine with other cores, use instances and threads that fit this one.",
    ),
    click.option("--plans/--no-plans", default=True, show_default=True, help="Answer by TensorRT plans where they fit this machine."),
    click.option("--version-compatible", is_flag=True, help="Admit plans of another TensorRT, which bring code along."),
    click.option(
        "--tensorrt-provider",
        "engine_cache",
        type=click.Path(path_type=Path, file_okay=False),
        metavar="FOLDER",
        help="Let ONNX Runtime build TensorRT engines for models without a plan, and keep them in this folder.",
    ),
)


@click.command()
@click.option(
    "--repository", type=click.Path(path_type=Path), default=Path("model_repository"), show_default=True, help="Folder of models."
)
@click.option(
    "--restart",
    type=click.Choice(["on-failure", "never"]),
    default="on-failure",
    show_default=True,
    help="Start a Triton that died again, up to 5 times in 10 minutes, at the same addresses.",
)
@_serve_options
def serve(repository: Path, restart: Literal["on-failure", "never"], settings: ServeSettings) -> None:
    """Serve every model of a repository with Triton until Ctrl-C.

    Uses the tritonserver on PATH (NVIDIA's container), else the one installed with sightline[serve]. Ends with exit code 0 when
    it is stopped (Ctrl-C, SIGTERM, SIGHUP), with 8 if Triton does not start, or dies and is not started again. A second Ctrl-C kills it.
    """
    from sightline_serving.restarting import keep_serving
    from sightline_serving.server import start_server

    _stop_on(signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    announce = _Announcer()
    try:
        if restart == "on-failure":
            keep_serving(repository, settings, announce, lambda sentence: click.echo(sentence, err=True))
        with start_server(repository, settings) as server:
            announce(server)
            server.wait()
    except _Stop:
        click.echo("Triton has stopped", err=True)


class _Announcer:
    """Says where the server is, once; of a server that was started again, only that it is there again."""

    def __init__(self) -> None:
        self.announced = False

    def __call__(self, server: "Server") -> None:
        if self.announced:
            click.echo(f"Triton {server.triton} is ready again (process {server.pid})", err=True)
            return
        self.announced = True
        for notice in server.notices:
            click.echo(notice, err=True)
        click.echo(f"http    {server.http_url}")
        click.echo(f"grpc    {server.grpc_url}")
        click.echo(f"metrics {server.metrics_url}")
        for model in server.models:
            click.echo(f"model   {model.name} {','.join(map(str, model.versions))}")
        click.echo(f"try     sightline classify {server.models[0].name} image.png --url {server.grpc_url}")
        click.echo(f"Triton {server.triton} is ready; Ctrl-C stops it", err=True)


def _stop_on(*numbers: signal.Signals) -> None:
    def stop(_number: int, _frame: FrameType | None) -> NoReturn:
        # The next one finds Python's own handler: it interrupts the stopping, and Triton is killed.
        for number in numbers:
            signal.signal(number, signal.default_int_handler)
        raise _Stop

    for number in numbers:
        signal.signal(number, stop)
