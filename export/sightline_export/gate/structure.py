"""What an ONNX file says of itself, held to the model card: one valid file, the right tensors, a free batch, the sealed card."""

from collections import Counter
from collections.abc import Iterator, Mapping
from math import prod
from typing import Final

import onnx
from onnx import ModelProto, TensorProto, ValueInfoProto

from sightline.card import CARD_KEY, ModelCard, seal, unseal
from sightline.errors import ContractError
from sightline_export.gate.checks import Check, Precision, at_least, holds, said

FREE: Final = "N"
"""How a dimension that has no number is written."""


LEAST_SHARE: Final[Mapping[Precision, tuple[str, float]]] = {"fp16": ("float16", 0.9), "int8": ("int8", 0.25)}
"""Of the layers' weights, how many must have the type that the precision is named after. What is left in float32 in INT8 may be
large: an MLP's first layer is."""

KINDS: Final[Mapping[int, str]] = {
    TensorProto.FLOAT: "float32",
    TensorProto.FLOAT16: "float16",
    TensorProto.INT8: "int8",
    TensorProto.UINT8: "uint8",
}


def check_structure(model: bytes, card: ModelCard, precision: Precision) -> Iterator[Check]:
    """Check the serialised ONNX `model` against `card`, without running it. The first check is whether it is ONNX at all."""
    try:
        proto = onnx.load_from_string(model)
        external = sorted({tensor.name for tensor in _initializers(proto) if tensor.data_location == TensorProto.EXTERNAL})
        if not external:
            onnx.checker.check_model(model, full_check=True)
    except Exception as error:  # noqa: BLE001 - protobuf's and the checker's errors share no narrower base
        yield holds("valid ONNX", said(error), "yes")
        return
    yield holds("valid ONNX", "yes", "yes")
    yield holds("weights outside of the file", ", ".join(external[:3]) or "none", "none")
    yield holds("input", _described(_real_inputs(proto)), f"{card.input} UINT8 [{FREE}, {', '.join(map(str, card.preprocess.shape))}]")
    yield holds("output", _described(list(proto.graph.output)), f"{card.output} FLOAT [{FREE}, {len(card.labels)}]")
    yield holds("model card in the file", _card_of(proto, card), "the model's card")
    if precision in LEAST_SHARE:
        # A file that is called FP16 and holds FP32 would pass every comparison of answers.
        kind, least = LEAST_SHARE[precision]
        yield at_least(f"share of the layers' weights in {kind}", shares(proto).get(kind, 0.0), least)


def shares(proto: ModelProto) -> dict[str, float]:
    """Of the numbers in matrices and kernels, the share of each type, by its name in numpy."""
    counted: Counter[str] = Counter()
    for tensor in proto.graph.initializer:
        if len(tensor.dims) > 1:
            counted[KINDS.get(tensor.data_type, "another type")] += prod(tensor.dims)
    total = counted.total()
    return {kind: count / total for kind, count in counted.items()} if total else {}


def _initializers(proto: ModelProto) -> Iterator[TensorProto]:
    yield from proto.graph.initializer
    for node in proto.graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t


def _real_inputs(proto: ModelProto) -> list[ValueInfoProto]:
    weights = {tensor.name for tensor in proto.graph.initializer}
    return [value for value in proto.graph.input if value.name not in weights]


def _described(values: list[ValueInfoProto]) -> str:
    return "; ".join(_tensor(value) for value in values)


def _tensor(value: ValueInfoProto) -> str:
    kind = value.type.tensor_type
    dims = [str(dim.dim_value) if dim.HasField("dim_value") else FREE for dim in kind.shape.dim]
    return f"{value.name} {TensorProto.DataType.Name(kind.elem_type)} [{', '.join(dims)}]"


def _card_of(proto: ModelProto, card: ModelCard) -> str:
    found = [entry.value for entry in proto.metadata_props if entry.key == CARD_KEY]
    if len(found) != 1:
        return "none" if not found else f"{len(found)} cards"
    if found[0] == seal(card):
        return "the model's card"
    try:
        other = unseal(found[0], "the ONNX file's metadata")
    except ContractError as error:
        return str(error)
    ours, theirs = card.model_dump(), other.model_dump()
    return f"another card (its {', '.join(field for field in ours if ours[field] != theirs[field])} differs)"
