"""The model card: what a model takes, what it answers, and how an image becomes its input. It travels with the weights.

The card is written as one *sealed* text, canonical JSON `{"card": {…}, "sha256": "…"}`, in three places: beside the model
(`card.json`), in Triton's `config.pbtxt` (`parameters["model_card"]`) and in the ONNX file's metadata. `seal` is the only
function that writes it, `unseal` the only one that reads it, and a text whose hash does not fit its card is refused.
"""

import ast
import hashlib
import inspect
import json
import math
import textwrap
import unicodedata
from itertools import pairwise
from typing import Annotated, Final, NoReturn, Self

from pydantic import BaseModel, FailFast, Field, StrictInt, ValidationError, model_validator
from pydantic.json_schema import JsonSchemaValue

from sightline.errors import ContractError
from sightline.host.text import printable
from sightline.preprocess import VERSIONS, AnyPreprocess, StrictModel

CARD_KEY: Final = "model_card"
"""The key of the sealed card in `config.pbtxt`'s parameters and in the ONNX metadata."""

PICTURES_OF: Final = "pictures_of"
"""The key of the sealed card in the parameters of the models that take encoded images for the card's own (`sightline.in_triton`)."""

SAMPLE_KEY: Final = "golden_sample_"
"""What the keys of golden samples in a model's parameters begin with; the version follows (`sightline.golden_sample`)."""

MAX_SEALED_BYTES: Final = 16 * 1024 * 1024
"""A longer text is refused unread; 100,000 labels of 100 bytes still fit."""

MAX_MEMBERS: Final = 100
"""Of one object in the text: every unknown member costs an error of its own, and a hostile text could hold a million."""

TensorName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$")]
ModelName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]


BIDIRECTIONAL: Final = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Letters that steer the direction of text (Unicode's Bidi_Control): with them a label can be shown as another one."""


def visible(label: str) -> str:
    """Return a label without the letters that nobody sees, such as joiners (Unicode's category Cf)."""
    return label if label.isascii() else "".join(letter for letter in label if unicodedata.category(letter) != "Cf")


class ModelCard(StrictModel):
    """Everything that a client must know to ask a model about an image and to read the answer."""

    name: ModelName
    """The model's name on the server and in the repository."""
    description: Annotated[str, Field(max_length=4000)]
    """For people: what the model was made for, in a sentence or two. No control characters but line ends and tabs, since it is printed."""
    labels: Annotated[tuple[Annotated[str, Field(min_length=1, max_length=256)], ...], Field(min_length=2, max_length=100_000), FailFast()]
    """Class names in the order of the output."""
    preprocess: AnyPreprocess
    """How an image becomes the input."""
    input: TensorName = "pixels"
    """Name of the input tensor: UINT8, [N, height, width, channels]."""
    output: TensorName = "probabilities"
    """Name of the output tensor: FP32, [N, classes]; each row sums to 1."""
    max_batch_size: Annotated[StrictInt, Field(ge=1, le=4096)]
    """The most images that one request may hold."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if any(unicodedata.category(letter) == "Cc" and letter not in "\n\t" for letter in self.description):
            raise ValueError("description holds a control character, which could change what a terminal shows")
        if self.input == self.output:
            raise ValueError(f"input and output need two names, not {self.input} twice")
        seen: dict[str, int] = {}
        for at, label in enumerate(self.labels):
            if label != label.strip() or any(unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") for letter in label):
                raise ValueError(f"labels[{at}] must be one line of text without spaces around it, since labels.txt holds a line a label")
            directed = next((letter for letter in label if letter in BIDIRECTIONAL), None)
            if directed is not None:
                raise ValueError(f"labels[{at}] holds the letter U+{ord(directed):04X}, which changes the order in which text is shown")
            seen_as = visible(label)
            if seen_as in seen:
                differ = "repeats" if self.labels[seen[seen_as]] == label else "looks the same as"
                raise ValueError(f"labels[{at}] {differ} labels[{seen[seen_as]}]: two classes cannot share a name")
            if not seen_as:
                raise ValueError(f"labels[{at}] holds nothing but letters that nobody sees")
            seen[seen_as] = at
        return self

    @property
    def sha256(self) -> str:
        """Hexadecimal sha256 of the card's canonical JSON: the card's identity."""
        return _sha256(self.model_dump(mode="json"))


def seal(card: ModelCard) -> str:
    """Return the one text in which a card travels: canonical JSON of the card and its sha256."""
    content = card.model_dump(mode="json")
    return _canonical({"card": content, "sha256": _sha256(content)})


def unseal(text: str | bytes, where: str) -> ModelCard:
    """Return the card of a sealed text. `where` names the copy ("config.pbtxt of model mnist") and opens every error message.

    Raises ContractError if the text is not a sealed card, if a field is unknown, missing or out of range (the message names
    it), or if the sha256 does not fit.
    """
    size = len(text.encode("utf-8", "surrogatepass")) if isinstance(text, str) else len(text)
    if size > MAX_SEALED_BYTES:
        _refuse(where, f"the text is {size:,} bytes long, more than the {MAX_SEALED_BYTES:,} that a card may have")
    try:
        envelope = json.loads(text, object_pairs_hook=_members, parse_int=_bounded_int)
    except RecursionError:
        _refuse(where, "not JSON that a card may have (nested too deeply)")
    except ValueError as error:
        _refuse(where, f"not JSON ({_printable(str(error))})")
    if not isinstance(envelope, dict) or set(envelope) != {"card", "sha256"}:
        _refuse(where, 'expected an object with exactly the members "card" and "sha256"')
    try:
        card = ModelCard.model_validate(envelope["card"])
    except ValidationError as error:
        _refuse(where, _first_problem(error))
    # A default is for who writes a card in Python; what `seal` wrote leaves nothing out.
    for name in ModelCard.model_fields:
        if name not in card.model_fields_set:
            _refuse(where, f"card.{name}: Field required")
    if envelope["sha256"] != card.sha256:
        written = envelope["sha256"]
        beside = f"{_printable(written[:12])}…" if isinstance(written, str) else f"a {type(written).__name__}"
        _refuse(where, f"it was changed after it was written: the sha256 beside it is {beside}, the card's own is {card.sha256[:12]}…")
    return card


def json_schema() -> JsonSchemaValue:
    """Return the JSON schema of the member `card` of a sealed text, generated from the classes above."""
    schema = ModelCard.model_json_schema(mode="serialization")
    models: tuple[type[BaseModel], ...] = (ModelCard, *VERSIONS.values())
    for model in models:
        members = (schema if model is ModelCard else schema["$defs"][model.__name__])["properties"]
        for name, description in _descriptions(model).items():
            members[name] = {"description": description, **members[name]}
    return schema


def _descriptions(model: type[BaseModel]) -> dict[str, str]:
    """Return the docstring under each field. pydantic could read them itself, but would each time that a program starts."""
    described: dict[str, str] = {}
    for base in reversed(model.__mro__):
        if not issubclass(base, BaseModel) or not base.__module__.startswith(__package__ or ""):
            continue
        [definition] = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        body = definition.body if isinstance(definition, ast.ClassDef) else []
        for field, text in pairwise(body):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(text, ast.Expr):
                described[field.target.id] = inspect.cleandoc(ast.literal_eval(text.value))
    return described


def _canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _sha256(content: object) -> str:
    return hashlib.sha256(_canonical(content).encode()).hexdigest()


def _members(pairs: list[tuple[str, object]]) -> dict[str, object]:
    if len(pairs) > MAX_MEMBERS:
        raise ValueError(f"an object of {len(pairs):,} members, more than the {MAX_MEMBERS} that one in a card may have")
    members: dict[str, object] = {}
    for name, value in pairs:
        if name in members:
            raise ValueError(f'the member "{name}" of an object is given twice')
        members[name] = tuple(value) if isinstance(value, list) else value
    return members


def _bounded_int(digits: str) -> int | float:
    # No field takes infinity, so the refusal names the field; int() of a million digits would take its time.
    return int(digits) if len(digits) <= 20 else math.inf


def _first_problem(error: ValidationError) -> str:
    problems = error.errors(include_url=False, include_input=False)
    # Of another version, anything may differ: the version is what the reader must hear of.
    first = next((problem for problem in problems if problem["loc"] == ("preprocess", "version")), problems[0])
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"])
    reason = first["msg"].removeprefix("Value error, ").replace("tuple", "list").replace("Tuple", "List")
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return f"card{_printable(place)}: {_printable(reason)}{more}"


def _printable(text: str) -> str:
    """At most 200 characters of a stranger's text, without what would steer a terminal or cannot be printed."""
    return printable(text[:200])


def _refuse(where: str, reason: str) -> NoReturn:
    advice = "Export the model again, or restore the copy that was published."
    raise ContractError(f"{where}: no valid model card: {reason}. {advice}") from None
