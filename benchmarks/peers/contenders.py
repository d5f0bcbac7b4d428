"""Who takes part: for each server how it is started, what it is sent, and the settings that its documentation leaves to its user."""

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from peers.models import Kind, Model
from peers.shapes import Shape
from peers.wire import Wire
from sightline.host.cpu import usable_cores

SERVERS: Final = Path(__file__).parent / "servers"
OURS: Final = "sightline"


@dataclass(frozen=True)
class Launch:
    """What a server needs to be started."""

    python: Path
    model: Model
    shape: Shape
    port: int
    grpc_port: int
    folder: Path
    """Empty, for what it wants to be configured with."""


Command = Callable[[Launch], list[str]]
Candidates = Callable[[Kind], tuple[Shape, ...]]


@dataclass(frozen=True)
class Contender:
    """One server of the race."""

    name: str
    title: str
    wire: Wire
    command: Command
    candidates: Candidates
    """The shapes that are worth trying for a model, what is likely best first."""
    environment: str = ""
    """Its requirements file; none runs in this project's own environment."""
    packages: tuple[str, ...] = ()
    """Whose versions stand in the table."""
    variables: Mapping[str, str] = field(default_factory=dict)
    speaks_v2: bool = False


def cores() -> int:
    """Return how many processes compute at once at most."""
    return usable_cores()


def _program(python: Path, name: str) -> str:
    return str(python.parent / name)


def _script(name: str) -> Command:
    return lambda launch: [str(launch.python), str(SERVERS / name)]


def _uvicorn(launch: Launch) -> list[str]:
    return uvicorn(launch, "fastapi_server:app")


def uvicorn(launch: Launch, app: str) -> list[str]:
    """As FastAPI's page on workers starts it, without a line of log for each request."""
    command = [_program(launch.python, "uvicorn"), app, "--app-dir", str(SERVERS), "--host", "127.0.0.1", "--port", str(launch.port)]
    command += ["--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning"]
    return [*command, "--workers", str(launch.shape.workers)]


def _bentoml(launch: Launch) -> list[str]:
    command = [_program(launch.python, "bentoml"), "serve", "bentoml_server:Images", "--working-dir", str(SERVERS)]
    return [*command, "--host", "127.0.0.1", "--port", str(launch.port)]


def _mlserver(launch: Launch) -> list[str]:
    kind, shape = launch.model.kind, launch.shape
    settings: dict[str, object] = {
        "debug": False,
        "host": "127.0.0.1",
        "http_port": launch.port,
        "grpc_port": launch.grpc_port,
        "metrics_endpoint": None,
        "gzip_enabled": False,
        "parallel_workers": shape.workers,
    }
    tensors = {
        "inputs": [{"name": launch.model.input, "datatype": "UINT8", "shape": [-1, *launch.model.pixels.shape[1:]]}],
        "outputs": [{"name": launch.model.output, "datatype": "FP32", "shape": [-1, launch.model.answers.shape[1]]}],
    }
    model: dict[str, object] = {"name": kind.name, "implementation": "mlserver_runtime.OnnxRuntime", **tensors}
    if shape.max_batch > 1:
        model |= {"max_batch_size": shape.max_batch, "max_batch_time": max(shape.batch_wait_ms, 0.1) / 1000}
    (launch.folder / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
    (launch.folder / "model-settings.json").write_text(json.dumps(model), encoding="utf-8")
    return [_program(launch.python, "mlserver"), "start", str(launch.folder)]


def _alone(*shapes: Shape) -> Candidates:
    return lambda _: shapes


def _by_weight(light: tuple[Shape, ...], heavy: tuple[Shape, ...], batching: tuple[Shape, ...] = ()) -> Candidates:
    """The shapes of a light network, those of `batching` among them with the largest batch of the model, or those of a heavy one.

    A network that keeps a core busy for a tenth of a second gains nothing from company, an event loop or threads beside it.
    """
    return lambda kind: (
        heavy if kind.heavy else (*light, *(shape.model_copy(update={"max_batch": kind.largest_batch}) for shape in batching))
    )


ONE: Final = Shape()
ONE_OF_ALL_CORES: Final = Shape(threads=cores())
ONE_WITH_POOL: Final = Shape(pool=cores())
EACH_CORE: Final = Shape(workers=cores())

HEAVY: Final = (ONE_OF_ALL_CORES, EACH_CORE)
"""One session with all cores, or a session for each."""

CONTENDERS: Final = {
    contender.name: contender
    for contender in (
        Contender(OURS, "Sightline", "v2", _script("sightline_server.py"), _alone(ONE), packages=("nvidia-pytriton",), speaks_v2=True),
        Contender(
            "fastapi-1",
            "FastAPI, 1 worker",
            "raw",
            _uvicorn,
            _by_weight((ONE, ONE_WITH_POOL, ONE_OF_ALL_CORES), (ONE_OF_ALL_CORES, ONE_WITH_POOL)),
            environment="fastapi",
            packages=("fastapi", "uvicorn"),
        ),
        Contender(
            "fastapi-2",
            "FastAPI, 2 workers",
            "raw",
            _uvicorn,
            _alone(Shape(workers=2), Shape(workers=2, pool=1)),
            environment="fastapi",
            packages=("fastapi", "uvicorn"),
        ),
        Contender(
            "litserve",
            "LitServe",
            "raw",
            _script("litserve_server.py"),
            _by_weight((EACH_CORE, ONE), HEAVY, batching=(ONE, Shape(batch_wait_ms=1))),
            environment="litserve",
            packages=("litserve",),
        ),
        Contender(
            "bentoml",
            "BentoML",
            "raw",
            _bentoml,
            _by_weight((EACH_CORE, ONE_WITH_POOL, ONE), HEAVY, batching=(ONE,)),
            environment="bentoml",
            packages=("bentoml",),
            variables={"BENTOML_DO_NOT_TRACK": "True"},
        ),
        Contender(
            "mlserver",
            "MLServer",
            "v2-base64",
            _mlserver,
            _by_weight(
                (Shape(workers=0), Shape(workers=0, pool=cores()), EACH_CORE),
                (Shape(workers=0, threads=cores()), EACH_CORE),
                batching=(Shape(workers=0, batch_wait_ms=1),),
            ),
            environment="mlserver",
            packages=("mlserver",),
            speaks_v2=True,
        ),
        Contender(
            "kserve",
            "KServe",
            "v2-base64",
            _script("kserve_server.py"),
            _by_weight((ONE, ONE_WITH_POOL, EACH_CORE), HEAVY),
            environment="kserve",
            packages=("kserve",),
            speaks_v2=True,
        ),
        Contender(
            "ray",
            "Ray Serve",
            "raw",
            _script("ray_server.py"),
            _by_weight(
                (Shape(proxy=True), Shape(workers=cores(), proxy=True), Shape(workers=cores())),
                (Shape(threads=cores(), proxy=True), Shape(workers=cores(), proxy=True)),
                batching=(Shape(batch_wait_ms=1, proxy=True),),
            ),
            environment="ray",
            packages=("ray",),
            variables={"RAY_USAGE_STATS_ENABLED": "0", "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1"},
        ),
    )
}


def variables_of(contender: Contender, launch: Launch) -> dict[str, str]:
    """Return the environment variables of a server: the race's own, and those of its documentation."""
    return {
        "RACE_MODEL": str(launch.model.onnx.resolve()),
        "RACE_NAME": launch.model.kind.name,
        "RACE_REPOSITORY": str(launch.model.repository.resolve()),
        "RACE_PORT": str(launch.port),
        "RACE_GRPC_PORT": str(launch.grpc_port),
        "PYTHONPATH": str(SERVERS),
        "RAY_SERVE_ENABLE_HA_PROXY": str(int(launch.shape.proxy)),
        **launch.shape.environment(),
        **contender.variables,
    }


def own_python() -> Path:
    """The interpreter of this project's environment."""
    return Path(sys.executable)
