"""What Triton says of its models, as JSON of either protocol, checked as it is read: an answer is a stranger's.

Over gRPC it is the message as protobuf's JSON, which writes 64-bit integers as text and leaves out what has its default.
"""

import re
from typing import Final

from pydantic import BaseModel, TypeAdapter, ValidationError

from sightline.card import CARD_KEY, PICTURES_OF, SAMPLE_KEY
from sightline.host.text import first_problem
from sightline.transport import ServedConfig, ServedVersion, TensorSpec

SAMPLE: Final = re.compile(re.escape(SAMPLE_KEY) + r"([1-9][0-9]{0,17})")
"""The key of a version's golden sample."""


class _Statistics(BaseModel):
    name: str
    version: str
    inference_count: int = 0


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


class _Config(BaseModel):
    name: str
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
    )
