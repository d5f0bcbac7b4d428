"""The precision that was really built is read from the inspector's text, in each form that TensorRT is known to write."""

import json

import pytest

from sightline_export.engine.inspector import check_inspected, inspected_precisions
from sightline_export.precisions import PRECISIONS
from support.engine_layers import fused, new, old


@pytest.mark.parametrize(
    ("text", "shares"),
    [
        (old("FP32", "FP32"), {"float32": 1.0}),
        (old("FP16", "FP16"), {"float16": 1.0}),
        (old("FP32", "Int8", "Int8", "Int8"), {"float32": 0.25, "int8": 0.75}),
        (new("Float"), {"float32": 1.0}),
        (new("Half", "Half", "Half", "Float"), {"float16": 0.75, "float32": 0.25}),
        (new("BFloat16"), {"bfloat16": 1.0}),
        (new("FP8"), {"float8": 1.0}),
        (new("Something"), {"unknown": 1.0}),
        (old("FP32", tactic="sm80_xmma_fprop_implicit_gemm_f32f32_tf32f32_f32_nhwckrsc_nhwc"), {"tf32": 1.0}),
        (new("Half", tactic="sm80_xmma_gemm_f16f16_tf32"), {"float16": 1.0}),
        (old("Int8", parameter=""), {"int8": 1.0}),
    ],
)
def test_the_share_of_each_type_is_read(text: str, shares: dict[str, float]) -> None:
    assert inspected_precisions(text) == shares


def test_a_generated_kernel_counts_if_it_holds_one_of_the_files_layers() -> None:
    text = fused("Half", "node_linear")
    assert inspected_precisions(text, ["node_linear"]) == {"float16": 1.0}
    assert inspected_precisions(text, ["node_linear_1"]) == {}
    assert inspected_precisions(text) == {}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        '{"Layers": 3}',
        '{"Layers": ["Conv_0 + Relu_1", "/neck/Resize"]}',
        '{"Layers": [{"LayerType": 3}, null]}',
        "[" * 100_000,
    ],
)
def test_a_text_that_tells_nothing_of_layers_is_no_proof(text: str) -> None:
    assert inspected_precisions(text) == {}
    check = check_inspected(PRECISIONS["fp32"].plan_layers, {})
    assert (check.passed, str(check)) == (False, "computing layers that the engine inspector tells of is none (allowed: some)")


@pytest.mark.parametrize(
    ("precision", "text", "passed"),
    [
        ("fp32", new("Float", "Float"), True),
        ("fp32", new("Float", "Half"), False),
        ("fp32", old("FP32", tactic="ampere_scudnn_128x64_relu_medium_nn_v1"), True),
        ("fp32", old("FP32", tactic="sm80_xmma_fprop_implicit_gemm_f32f32_tf32f32_f32"), False),
        ("fp16", new(*["Half"] * 9, "Float"), True),
        ("fp16", new(*["Half"] * 8, "Float", "Float"), False),
        ("fp16", old("FP32", "FP32"), False),
        ("int8", old("FP32", "Int8", "FP32"), True),
        ("int8", old("FP16", "FP16"), False),
    ],
)
def test_a_plan_that_is_not_of_the_claimed_precision_is_refused(precision: str, text: str, passed: bool) -> None:
    assert check_inspected(PRECISIONS[precision].plan_layers, inspected_precisions(text)).passed is passed


def test_the_refusal_names_the_type_and_its_share() -> None:
    assert (
        str(check_inspected(PRECISIONS["fp16"].plan_layers, inspected_precisions(new("Float", "Float"))))
        == "share of the computing layers in float16 is 0 (allowed: at least 0.9)"
    )


def test_layers_that_only_move_data_do_not_count() -> None:
    text = json.dumps({"Layers": [layer for layer in json.loads(old("FP16"))["Layers"] if layer["LayerType"] == "Reformat"]})
    assert inspected_precisions(text) == {}
