"""What Triton says of its models, as JSON of either protocol, checked as it is read: an answer is a stranger's.

Over gRPC it is the message as protobuf's JSON, which writes 64-bit integers as text and leaves out what has its default.
"""

import re
from typing import Final

from pydantic import BaseModel, TypeAdapter, ValidationError

from sightline.card import CARD_KEY, PICTURES_OF, SAMPLE_KEY
from sightline.host.text import first_problem
from sightline.transport import InstanceGroup, ModelStatistics, ServedConfig, ServedVersion, ServerMetadata, TensorSpec

SAMPLE: Final = re.compile(re.escape(SAMPLE_KEY) + r"([1-9][0-9]{0,17})")
"""The key of a version's golden sample."""


class _Duration(BaseModel):
    count: int = 0
    ns: int = 0

    @property
    def seconds(self) -> float:
        return self.ns * 1e-9


class _Durations(BaseModel):
    success: _Duration = _Duration()
    queue: _Duration = _Duration()
    compute_input: _Duration = _Duration()
    compute_infer: _Duration = _Duration()
    compute_output: _Duration = _Duration()


class _Statistics(BaseModel):
    name: str
    version: str
    inference_count: int = 0
    inference_stats: _Durations = _Durations()


class _AllStatistics(BaseModel):
    model_stats: tuple[_Statistics, ...] = ()


class _Tensor(BaseModel):
    name: str
    data_type: str
    dims: tuple[int, ...]

    def spec(self) -> TensorSpec:
        return TensorSpec(self.name, self.data_type, self.dims)


class _Parameter(BaseModel):
    string_value: str = ""


class _InstanceGroup(BaseModel):
    kind: str = "KIND_AUTO"
    count: int = 1


class _Batching(BaseModel):
    max_queue_delay_microseconds: int = 0


class _Server(BaseModel):
    name: str
    version: str


class _Config(BaseModel):
    name: str
    backend: str = ""
    instance_group: tuple[_InstanceGroup, ...] = ()
    dynamic_batching: _Batching | None = None
    max_batch_size: int = 0
    input: tuple[_Tensor, ...]
    output: tuple[_Tensor, ...]
    parameters: dict[str, _Parameter] = {}

    def text_of(self, key: str) -> str | None:
        return self.parameters[key].string_value if key in self.parameters else None


class _Enclosed(BaseModel):
    """As gRPC sends it."""

    config: _Config


CONFIG: Final[TypeAdapter[_Enclosed | _Config]] = TypeAdapter(_Enclosed | _Config)


def served_versions(statistics: object) -> list[ServedVersion]:
    """Read the statistics of all models. Raises ValueError."""
    try:
        read = _AllStatistics.model_validate(statistics)
    except ValidationError as error:
        raise ValueError(first_problem(error)) from None
    return [ServedVersion(model.name, model.version, model.inference_count) for model in read.model_stats]


def server_metadata(answer: object) -> ServerMetadata:
    """Read what a server says of itself. Raises ValueError."""
    try:
        read = _Server.model_validate(answer)
    except ValidationError as error:
        raise ValueError(first_problem(error)) from None
    return ServerMetadata(read.name, read.version)


def model_statistics(answer: object, model: str, version: str) -> ModelStatistics:
    """Read the statistics of one version of a model. Raises ValueError."""
    try:
        read = _AllStatistics.model_validate(answer)
    except ValidationError as error:
        raise ValueError(first_problem(error)) from None
    for each in read.model_stats:
        if (each.name, each.version) == (model, version):
            spent = each.inference_stats
            return ModelStatistics(
                spent.success.count,
                spent.success.seconds,
                spent.queue.seconds,
                spent.compute_input.seconds,
                spent.compute_infer.seconds,
                spent.compute_output.seconds,
            )
    raise ValueError(f"statistics without the model {model} version {version}")


def served_config(answer: object) -> ServedConfig:
    """Read the configuration of a model. Raises ValueError."""
    try:
        read = CONFIG.validate_python(answer)
    except ValidationError as error:
        raise ValueError(first_problem(error)) from None
    config = read.config if isinstance(read, _Enclosed) else read
    return ServedConfig(
        name=config.name,
        max_batch_size=config.max_batch_size,
        inputs=tuple(tensor.spec() for tensor in config.input),
        outputs=tuple(tensor.spec() for tensor in config.output),
        sealed_card=config.text_of(CARD_KEY),
        pictures_of=config.text_of(PICTURES_OF),
        samples={match[1]: text.string_value for key, text in config.parameters.items() if (match := SAMPLE.fullmatch(key))},
        backend=config.backend,
        instance_groups=tuple(InstanceGroup(group.kind, group.count) for group in config.instance_group),
        batches=config.dynamic_batching is not None,
        queue_delay_us=config.dynamic_batching.max_queue_delay_microseconds if config.dynamic_batching is not None else 0,
        parameters={
            key: text.string_value
            for key, text in config.parameters.items()
            if key not in (CARD_KEY, PICTURES_OF) and not key.startswith(SAMPLE_KEY)
        },
    )
