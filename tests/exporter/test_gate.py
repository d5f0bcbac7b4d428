"""The gate refuses every model that is not the same model, each for its own reason, and lets the same model pass.

The refused models are real ones: the exported file, changed with the onnx library.
"""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch
from onnx import ModelProto, numpy_helper
from torch import nn

from sightline.card import CARD_KEY, ModelCard, seal
from sightline.errors import GateRefused, UsageError
from sightline_export.gate.checks import Verdict
from sightline_export.gate.compare import ComparedImages
from sightline_export.gate.thresholds import FP32
from sightline_export.graph.torch_to_onnx import export_onnx
from support.digits import DIGITS, Net, Trained
from support.precisions import images_of, verdict_on


def judged(
    model: bytes | ModelProto,
    trained: Trained,
    reported_accuracy: float | None = None,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Verdict:
    content = model if isinstance(model, bytes) else model.SerializeToString()
    return verdict_on(content, trained.network, trained.card, images_of(trained, reported_accuracy), progress=progress)


def refusal(model: bytes | ModelProto, trained: Trained) -> str:
    with pytest.raises(GateRefused) as refused:
        judged(model, trained).require("digits")
    text = str(refused.value)
    assert text.startswith("digits was refused by the gate (fp32, 360 images) and not published: ")
    assert "\n" not in text
    return text


def failed(verdict: Verdict) -> set[str]:
    return {check.name for check in verdict.failed}


def weights_times(factor: float, name: str, trained: Trained) -> ModelProto:
    model = onnx.load_from_string(trained.model)
    tensor = next(initializer for initializer in model.graph.initializer if initializer.name == name)
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(factor), name))
    return model


def after_the_output(trained: Trained, kind: str, add: Callable[[ModelProto], list[str]], **attributes: Any) -> ModelProto:
    """Insert a node between the last one and the output."""
    model = onnx.load_from_string(trained.model)
    last = next(node for node in model.graph.node if "probabilities" in node.output)
    last.output[0] = "before"
    model.graph.node.append(onnx.helper.make_node(kind, ["before", *add(model)], ["probabilities"], **attributes))
    return model


def initializer(values: object, dtype: type) -> Callable[[ModelProto], list[str]]:
    def add(model: ModelProto) -> list[str]:
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(values, dtype), "added"))
        return ["added"]

    return add


def test_the_same_model_passes_every_check(trained: Trained) -> None:
    verdict = judged(trained.model, trained)
    verdict.require("digits")
    assert verdict.failed == ()
    assert verdict.images == 360
    assert [check.name for check in verdict.checks] == [
        "valid ONNX",
        "weights outside of the file",
        "input",
        "output",
        "model card in the file",
        "torch's answers",
        "loads in ONNX Runtime",
        "ONNX Runtime's answers",
        "pictures with NaN or infinity",
        "pictures with NaN or infinity in torch",
        "max |Σp - 1|",
        "smallest p",
        "max |Δp|",
        "mean |Δp|",
        "max |Δ ln p|",
        "mean |Δ ln p|",
        "probability moved",
        "top-1 agreement",
        "accuracy",
        "accuracy of torch",
        "|Δ accuracy| to torch",
        "batches of 1: max |Δp|",
        *(
            name
            for size in (2, 3, 7, 16)
            for name in (f"batches of {size}: max |Δp|", f"batches of {size} against single pictures: max |Δp|")
        ),
    ]
    assert verdict.measured("top-1 agreement") == 1.0
    assert 0.85 < float(verdict.measured("accuracy")) < 1.0


def test_the_thresholds_lie_well_above_the_noise_of_float32(trained: Trained) -> None:
    verdict = judged(trained.model, trained)
    assert 0 < float(verdict.measured("max |Δp|")) < FP32.max_delta_p / 30
    assert 0 < float(verdict.measured("max |Δ ln p|")) < FP32.max_delta_log_p / 30


@pytest.mark.parametrize("layer", ["body.1.weight", "body.4.weight"])
def test_one_layers_weights_times_one_point_oh_five_are_refused_with_the_figures(layer: str, trained: Trained) -> None:
    model = weights_times(1.05, layer, trained)
    verdict = judged(model, trained)
    assert {"max |Δp|", "mean |Δp|", "max |Δ ln p|", "batches of 1: max |Δp|", "batches of 16: max |Δp|"} <= failed(verdict)
    assert float(verdict.measured("max |Δp|")) > 30 * FP32.max_delta_p
    text = refusal(model, trained)
    assert f"max |Δp| is {verdict.measured('max |Δp|'):.6g} (allowed: at most 0.0001); mean |Δp| is " in text
    assert "batches of 1: max |Δp| is " in text
    assert " and 4 more of the kind" in text


def test_a_model_that_is_sure_of_everything_cannot_hide_scaled_weights(trained: Trained) -> None:
    sure = Net()
    sure.load_state_dict(trained.network.state_dict())
    with torch.no_grad():
        for parameter in sure.body[4].parameters():
            parameter.mul_(3)
    with torch.inference_mode():
        p = sure(torch.from_numpy(trained.pixels)).numpy()
    kept = p.max(axis=1) > 1 - 1e-6
    assert kept.sum() > 100
    certain = Trained(trained.card, sure.eval(), trained.pixels[kept], trained.labels[kept], export_onnx(sure, trained.card))
    judged(certain.model, certain).require("digits")
    verdict = judged(weights_times(1.05, "body.4.weight", certain), certain)
    assert failed(verdict) == {"max |Δ ln p|"}
    assert float(verdict.measured("max |Δp|")) < FP32.max_delta_p
    with pytest.raises(GateRefused, match=r"not published: max \|Δ ln p\| is [0-9.]+ \(allowed: at most 0\.005\)$"):
        verdict.require("digits")


def test_permuted_outputs_are_refused(trained: Trained) -> None:
    model = onnx.load_from_string(trained.model)
    for name in ("body.4.weight", "body.4.bias"):
        tensor = next(initializer for initializer in model.graph.initializer if initializer.name == name)
        tensor.CopyFrom(numpy_helper.from_array(np.roll(numpy_helper.to_array(tensor), 1, axis=0), name))
    verdict = judged(model, trained)
    assert verdict.measured("top-1 agreement") == 0.0
    text = refusal(model, trained)
    assert "top-1 agreement is 0 (allowed: at least 0.9999)" in text
    assert "|Δ accuracy| to torch is 0." in text


def test_two_swapped_outputs_are_refused(trained: Trained) -> None:
    order = [0, 1, 2, 3, 4, 5, 6, 7, 9, 8]
    model = after_the_output(trained, "Gather", initializer(order, np.int64), axis=1)
    assert {"max |Δp|", "top-1 agreement"} <= failed(judged(model, trained))


def test_a_batch_that_was_declared_frozen_is_refused(trained: Trained) -> None:
    model = onnx.load_from_string(trained.model)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 2
    del model.graph.value_info[:]
    text = refusal(model, trained)
    assert "input is pixels UINT8 [2, 8, 8, 1] (allowed: pixels UINT8 [N, 8, 8, 1])" in text
    assert "output is probabilities FLOAT [2, 10] (allowed: probabilities FLOAT [N, 10])" in text
    assert "batches of 1: max |Δp| is [ONNXRuntimeError] : 2 : INVALID_ARGUMENT : Got invalid dimensions for input: pixels" in text
    assert "batches of 2" not in text


class FrozenInside(Net):
    """Declares nothing, but reshapes to the two images of the example."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        normal = (pixels.to(torch.float32) / 255 - 0.3) / 0.4
        logits: torch.Tensor = self.body(normal.reshape(2, 64))
        return torch.softmax(logits, dim=1)


def test_a_batch_that_a_reshape_froze_inside_the_graph_is_refused(trained: Trained) -> None:
    model = onnx.load_from_string(trained.model)
    reshape = next(node for node in model.graph.node if node.op_type == "Reshape")
    model.graph.initializer.append(numpy_helper.from_array(np.array([2, 64], np.int64), "frozen"))
    reshape.input[1] = "frozen"
    del model.graph.value_info[:]
    verdict = judged(model, trained)
    assert {"ONNX Runtime's answers", "batches of 1: max |Δp|", "batches of 3: max |Δp|", "batches of 16: max |Δp|"} <= failed(verdict)
    assert "batches of 2: max |Δp|" not in failed(verdict)
    assert "Reshape" in refusal(model, trained)


def test_a_network_that_freezes_the_batch_itself_is_refused(trained: Trained) -> None:
    network = FrozenInside()
    network.load_state_dict(trained.network.state_dict())
    # torch's exporter does not object: it declares the two images of the example, though a free batch was asked for.
    model = export_onnx(network, trained.card)
    with pytest.raises(GateRefused) as refused:
        verdict_on(model, network, trained.card, images_of(trained)).require("digits")
    assert "input is pixels UINT8 [2, 8, 8, 1] (allowed: pixels UINT8 [N, 8, 8, 1])" in str(refused.value)
    assert "torch's answers is shape '[2, 64]' is invalid for input of size 4096 (allowed: float32 [360, 10])" in str(refused.value)


def test_an_answer_that_depends_on_its_neighbours_in_the_batch_is_refused(trained: Trained) -> None:
    """Batch normalisation left in training mode, as a graph: every image's answer is moved by its batch's mean."""
    model = onnx.load_from_string(trained.model)
    first = next(node for node in model.graph.node if node.op_type == "Gemm" or node.op_type == "MatMul")
    source = first.input[0]
    model.graph.initializer.append(numpy_helper.from_array(np.array([0], np.int64), "batch_axis"))
    added = [
        onnx.helper.make_node("ReduceMean", [source, "batch_axis"], ["batch_mean"]),
        onnx.helper.make_node("Sub", [source, "batch_mean"], ["moved"]),
    ]
    first.input[0] = "moved"
    at = list(model.graph.node).index(first)
    for node in reversed(added):
        model.graph.node.insert(at, node)
    onnx.checker.check_model(model, full_check=True)
    assert {"batches of 2 against single pictures: max |Δp|", "batches of 16 against single pictures: max |Δp|"} <= failed(
        judged(model, trained)
    )


@pytest.mark.parametrize("images", ["all", "one"])
def test_nan_is_refused_even_if_only_one_image_gets_it(images: str, trained: Trained) -> None:
    if images == "all":
        model = after_the_output(trained, "Mul", initializer(np.nan, np.float32))
        count = 360
    else:
        # 0 / 0 where a probability is exactly the one of image 5; all others are divided by themselves and multiplied again.
        with torch.inference_mode():
            answer = gate_answer(trained)
        chosen = answer[5].max()
        model = onnx.load_from_string(trained.model)
        last = next(node for node in model.graph.node if "probabilities" in node.output)
        last.output[0] = "before"
        model.graph.initializer.extend(
            [numpy_helper.from_array(np.array(chosen, np.float32), "chosen"), numpy_helper.from_array(np.array(np.nan, np.float32), "nan")]
        )
        model.graph.node.extend(
            [
                onnx.helper.make_node("Equal", ["before", "chosen"], ["hit"]),
                onnx.helper.make_node("Where", ["hit", "nan", "before"], ["probabilities"]),
            ]
        )
        count = int((answer == chosen).any(axis=1).sum())
        assert count < 5
    if images == "all":
        verdict = judged(model, trained)
        assert (verdict.measured("top-1 agreement"), verdict.measured("accuracy")) == (0, 0)
    text = refusal(model, trained)
    assert f"pictures with NaN or infinity is {count} (allowed: at most 0)" in text
    assert "max |Δp| is nan (allowed: at most 0.0001)" in text
    assert "max |Δ ln p| is nan" in text


def gate_answer(trained: Trained) -> npt.NDArray[np.float32]:
    from sightline_export.graph.runtimes import in_onnx_runtime

    ask = in_onnx_runtime(trained.model, trained.card)
    return np.concatenate([ask(trained.pixels[at : at + 16]) for at in range(0, 360, 16)])


def test_a_network_that_answers_nan_itself_is_refused_though_both_agree(trained: Trained) -> None:
    network = Net()
    network.load_state_dict(trained.network.state_dict())
    with torch.no_grad():
        last = network.body[4]
        assert isinstance(last, nn.Linear)
        last.bias[3] = float("nan")
    broken = Trained(trained.card, network.eval(), trained.pixels, trained.labels, export_onnx(network, trained.card))
    text = refusal(broken.model, broken)
    assert (
        "pictures with NaN or infinity is 360 (allowed: at most 0); pictures with NaN or infinity in torch is 360 (allowed: at most 0)"
        in text
    )
    assert "top-1 agreement is 0 (allowed: at least 0.9999)" in text


def test_logits_instead_of_probabilities_are_refused(trained: Trained) -> None:
    model = onnx.load_from_string(trained.model)
    last = next(node for node in model.graph.node if "probabilities" in node.output)
    assert last.op_type == "Softmax"
    last.op_type = "Identity"
    del last.attribute[:]
    verdict = judged(model, trained)
    assert {"max |Σp - 1|", "smallest p", "max |Δp|"} <= failed(verdict)
    assert verdict.measured("top-1 agreement") == 1.0


def test_a_missing_card_is_refused(trained: Trained) -> None:
    model = onnx.load_from_string(trained.model)
    del model.metadata_props[:]
    assert refusal(model, trained).endswith("not published: model card in the file is none (allowed: the model's card)")


def test_another_card_is_refused_and_the_field_is_named(trained: Trained) -> None:
    model = onnx.load_from_string(trained.model)
    spec = DIGITS.preprocess.model_copy(update={"mean": (0.31,)})
    model.metadata_props[0].value = seal(DIGITS.model_copy(update={"preprocess": spec}))
    assert refusal(model, trained).endswith("model card in the file is another card (its preprocess differs) (allowed: the model's card)")


def test_one_changed_digit_of_a_mean_in_the_card_is_refused(trained: Trained) -> None:
    model = onnx.load_from_string(trained.model)
    model.metadata_props[0].value = model.metadata_props[0].value.replace('"mean":[0.3]', '"mean":[0.4]')
    assert "it was changed after it was written" in refusal(model, trained)


def test_two_cards_are_refused(trained: Trained) -> None:
    model = onnx.load_from_string(trained.model)
    again = model.metadata_props.add()
    again.key, again.value = CARD_KEY, seal(DIGITS)
    # onnx's own checker finds it first: keys must be unique.
    assert "valid ONNX is Your model has duplicate keys in metadata_props" in refusal(model, trained)


def test_a_float_input_is_refused(trained: Trained) -> None:
    model = onnx.load_from_string(trained.model)
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    text = refusal(model, trained)
    assert "input is pixels FLOAT [N, 8, 8, 1] (allowed: pixels UINT8 [N, 8, 8, 1])" in text


def test_an_output_of_another_name_is_refused(trained: Trained) -> None:
    model = onnx.load_from_string(trained.model)
    next(node for node in model.graph.node if "probabilities" in node.output).output[0] = "p"
    model.graph.output[0].name = "p"
    assert "output is p FLOAT [N, 10] (allowed: probabilities FLOAT [N, 10])" in refusal(model, trained)


def test_one_class_too_few_is_refused(trained: Trained) -> None:
    card = DIGITS.model_copy(update={"labels": (*"0123456789", "ten")})
    verdict = verdict_on(export_onnx(trained.network, card), trained.network, card, images_of(trained))
    assert {"output", "torch's answers"} <= failed(verdict)


def test_half_precision_answers_are_refused(trained: Trained) -> None:
    model = after_the_output(trained, "Cast", lambda _model: [], to=onnx.TensorProto.FLOAT16)
    model.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    text = refusal(model, trained)
    assert "output is probabilities FLOAT16 [N, 10] (allowed: probabilities FLOAT [N, 10])" in text
    assert "ONNX Runtime's answers is float16 [360, 10] (allowed: float32 [360, 10])" in text


def test_weights_outside_of_the_file_are_refused(trained: Trained) -> None:
    model = onnx.load_from_string(trained.model)
    tensor = model.graph.initializer[0]
    tensor.data_location = onnx.TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../../../../etc/passwd"
    assert f"weights outside of the file is {tensor.name} (allowed: none)" in refusal(model, trained)


@pytest.mark.parametrize("content", [b"", b"no model at all", b"\xff" * 1000])
def test_what_is_no_onnx_is_refused(content: bytes, trained: Trained) -> None:
    verdict = judged(content, trained)
    assert failed(verdict) == {"valid ONNX"}
    assert len(verdict.checks) == 1


def test_a_truncated_file_is_refused(trained: Trained) -> None:
    assert "valid ONNX" in failed(judged(trained.model[: len(trained.model) // 2], trained))


def test_a_run_whose_report_claims_another_accuracy_is_refused(trained: Trained) -> None:
    accuracy = float(judged(trained.model, trained).measured("accuracy of torch"))
    assert failed(judged(trained.model, trained, reported_accuracy=accuracy)) == set()
    assert failed(judged(trained.model, trained, reported_accuracy=accuracy + 1 / 360)) == set()
    assert failed(judged(trained.model, trained, reported_accuracy=accuracy - 2 / 360)) == {"|Δ accuracy| of torch to the run's report"}
    assert failed(judged(trained.model, trained, reported_accuracy=float("nan"))) == {"|Δ accuracy| of torch to the run's report"}


def test_fewer_images_than_the_largest_batch_are_repeated_to_fill_it(trained: Trained) -> None:
    few = Trained(trained.card, trained.network, trained.pixels[:5], trained.labels[:5], trained.model)
    verdict = judged(trained.model, few)
    assert verdict.failed == ()
    assert "batches of 16 against single pictures: max |Δp|" in {check.name for check in verdict.checks}


def test_a_largest_batch_of_one_is_tried_with_single_images_only(trained: Trained) -> None:
    card: ModelCard = DIGITS.model_copy(update={"max_batch_size": 1})
    verdict = verdict_on(
        export_onnx(trained.network, card), trained.network, card, ComparedImages(trained.pixels[:20], trained.labels[:20])
    )
    assert [check.name for check in verdict.checks if check.name.startswith("batches")] == ["batches of 1: max |Δp|"]
    assert verdict.failed == ()


def test_images_of_another_shape_are_a_mistake_of_the_caller(trained: Trained) -> None:
    with pytest.raises(UsageError, match=r"the gate compares uint8 images of shape \(8, 8, 1\), one label each, not uint8 \(360, 8, 8\)"):
        verdict_on(trained.model, trained.network, trained.card, ComparedImages(trained.pixels[..., 0], trained.labels))


def test_the_verdict_is_kept_as_json_with_every_threshold(trained: Trained) -> None:
    model = after_the_output(trained, "Mul", initializer(np.nan, np.float32))
    kept = json.loads(json.dumps(judged(model, trained).as_json(), allow_nan=False))
    assert (kept["precision"], kept["pictures"], kept["passed"]) == ("fp32", 360, False)
    assert {"name": "max |Δp|", "measured": "nan", "relation": "at most", "threshold": 1e-4, "passed": False} in kept["checks"]


def test_progress_counts_the_answers_of_both(trained: Trained) -> None:
    seen: list[tuple[int, int]] = []
    judged(trained.model, trained, progress=lambda done, total: seen.append((done, total)))
    assert seen[0] == (64, 720)
    assert seen[-1] == (720, 720)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_a_network_that_raises_is_refused_with_its_words(trained: Trained) -> None:
    class Raising(nn.Module):
        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("the weights are\nnot loaded")

    verdict = verdict_on(trained.model, Raising(), trained.card, images_of(trained))
    assert failed(verdict) == {"torch's answers"}
    assert verdict.measured("torch's answers") == "the weights are not loaded"
