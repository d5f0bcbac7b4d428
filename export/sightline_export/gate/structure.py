"""What an ONNX file says of itself, held to the model card: one valid file, the right tensors, a free batch, the sealed card."""

from collections import Counter
from collections.abc import Iterator, Mapping
from math import prod
from typing import Final

import onnx
from onnx import ModelProto, TensorProto, ValueInfoProto

from sightline.card import CARD_KEY, ModelCard, seal, unseal
from sightline.errors import ContractError
from sightline.host.text import one_line
from sightline_export.gate.checks import Check, at_least, exactly
from sightline_export.gate.thresholds import DtypeShare

FREE: Final = "N"
"""How a dimension that has no number is written."""

DTYPES: Final[Mapping[int, str]] = {
    TensorProto.FLOAT: "float32",
    TensorProto.FLOAT16: "float16",
    TensorProto.INT8: "int8",
    TensorProto.UINT8: "uint8",
}


def check_structure(model: bytes, card: ModelCard, weights: DtypeShare | None = None) -> Iterator[Check]:
    """Check the serialised ONNX `model` against `card` and `weights`, without running it. The first check is whether it is ONNX at all."""
    try:
        proto = onnx.load_from_string(model)
        external = sorted({tensor.name for tensor in _initializers(proto) if tensor.data_location == TensorProto.EXTERNAL})
        if not external:
            onnx.checker.check_model(model, full_check=True)
    except Exception as error:  # noqa: BLE001 - protobuf's and the checker's errors share no narrower base
        yield exactly("valid ONNX", one_line(error), "yes")
        return
    yield exactly("valid ONNX", "yes", "yes")
    yield exactly("weights outside of the file", ", ".join(external[:3]) or "none", "none")
    yield exactly("input", _described(_fed_inputs(proto)), f"{card.input} UINT8 [{FREE}, {', '.join(map(str, card.preprocess.shape))}]")
    yield exactly("output", _described(list(proto.graph.output)), f"{card.output} FLOAT [{FREE}, {len(card.labels)}]")
    yield exactly("model card in the file", _card_of(proto, card), "the model's card")
    if weights is not None:
        # A file that is called FP16 and holds FP32 would pass every comparison of answers.
        share = weight_shares(proto).get(weights.dtype, 0.0)
        yield at_least(f"share of the layers' weights in {weights.dtype}", share, weights.least)


def weight_shares(proto: ModelProto) -> dict[str, float]:
    """Return the share of each type among the numbers in matrices and kernels, by the type's name in NumPy."""
    counted: Counter[str] = Counter()
    for tensor in proto.graph.initializer:
        if len(tensor.dims) > 1:
            counted[DTYPES.get(tensor.data_type, "another type")] += prod(tensor.dims)
    total = counted.total()
    return {dtype: count / total for dtype, count in counted.items()} if total else {}


def _initializers(proto: ModelProto) -> Iterator[TensorProto]:
    yield from proto.graph.initializer
    for node in proto.graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t


def _fed_inputs(proto: ModelProto) -> list[ValueInfoProto]:
    weights = {tensor.name for tensor in proto.graph.initializer}
    return [value for value in proto.graph.input if value.name not in weights]


def _described(values: list[ValueInfoProto]) -> str:
    return "; ".join(_tensor(value) for value in values)


def _tensor(value: ValueInfoProto) -> str:
    tensor = value.type.tensor_type
    dims = [str(dim.dim_value) if dim.HasField("dim_value") else FREE for dim in tensor.shape.dim]
    return f"{value.name} {TensorProto.DataType.Name(tensor.elem_type)} [{', '.join(dims)}]"


def _card_of(proto: ModelProto, card: ModelCard) -> str:
    sealed_cards = [entry.value for entry in proto.metadata_props if entry.key == CARD_KEY]
    if len(sealed_cards) != 1:
        return "none" if not sealed_cards else f"{len(sealed_cards)} cards"
    if sealed_cards[0] == seal(card):
        return "the model's card"
    try:
        other = unseal(sealed_cards[0], "the ONNX file's metadata")
    except ContractError as error:
        return str(error)
    fields, other_fields = card.model_dump(), other.model_dump()
    return f"another card (its {', '.join(name for name in fields if fields[name] != other_fields[name])} differs)"
