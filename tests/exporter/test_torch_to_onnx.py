"""The exported file: one, checked, with a free batch and the card, the same every time, and without a trace of this machine."""

import getpass
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from sightline.card import CARD_KEY, unseal
from sightline.errors import GateRefused
from sightline_export.graph.runtimes import in_onnx_runtime
from sightline_export.graph.torch_to_onnx import OPSET, export_onnx
from support.digits import DIGITS, Net, Trained


def test_the_file_is_valid_onnx_of_the_opset_and_ir_that_the_oldest_triton_reads(trained: Trained) -> None:
    onnx.checker.check_model(trained.model, full_check=True)
    model = onnx.load_from_string(trained.model)
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", OPSET)]
    assert model.ir_version <= 10
    assert not any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in model.graph.initializer)


def test_input_and_output_are_the_cards_and_the_batch_is_free(trained: Trained) -> None:
    graph = onnx.load_from_string(trained.model).graph
    assert [tensor.name for tensor in graph.input] == ["pixels"]
    assert [tensor.name for tensor in graph.output] == ["probabilities"]
    input_type, output_type = graph.input[0].type.tensor_type, graph.output[0].type.tensor_type
    assert (input_type.elem_type, output_type.elem_type) == (onnx.TensorProto.UINT8, onnx.TensorProto.FLOAT)
    assert [dim.dim_value for dim in input_type.shape.dim] == [0, 8, 8, 1]
    assert [dim.dim_value for dim in output_type.shape.dim] == [0, 10]
    assert input_type.shape.dim[0].dim_param == output_type.shape.dim[0].dim_param != ""


def test_tensor_names_are_taken_from_the_card(trained: Trained) -> None:
    card = DIGITS.model_copy(update={"input": "image_in", "output": "scores_out"})
    actual = in_onnx_runtime(export_onnx(trained.network, card), card)(trained.pixels[:3])
    assert actual.shape == (3, 10)


def test_the_sealed_card_is_the_files_only_metadata(trained: Trained) -> None:
    entries = {entry.key: entry.value for entry in onnx.load_from_string(trained.model).metadata_props}
    assert set(entries) == {CARD_KEY}
    assert unseal(entries[CARD_KEY], "the file") == trained.card


def test_the_same_network_gives_the_same_bytes(trained: Trained) -> None:
    assert export_onnx(trained.network, trained.card) == trained.model


def test_nothing_of_this_machine_is_in_the_file(trained: Trained) -> None:
    without_card = trained.model.replace(b"max_batch_size", b"")
    assert not re.findall(rb"(?:/[A-Za-z0-9_.-]{2,}){2,}", without_card)
    for trace in (str(Path.cwd()), str(Path.home()), socket.gethostname(), "site-packages", "conftest", "stack_trace", "Traceback", ".py"):
        assert trace.encode() not in trained.model, trace
    if len(getpass.getuser()) > 4:
        assert getpass.getuser().encode() not in trained.model
    model = onnx.load_from_string(trained.model)
    assert not any(node.doc_string or node.metadata_props for node in model.graph.node)


def test_a_network_in_training_mode_is_exported_as_it_answers(trained: Trained) -> None:
    network = Net()
    network.load_state_dict(trained.network.state_dict())
    network.train()
    assert export_onnx(network, trained.card) == trained.model


def test_a_largest_batch_of_one_leaves_the_batch_free(trained: Trained) -> None:
    card = DIGITS.model_copy(update={"max_batch_size": 1})
    assert in_onnx_runtime(export_onnx(trained.network, card), card)(trained.pixels[:5]).shape == (5, 10)


def test_exporting_is_silent(trained: Trained, capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder) -> None:
    export_onnx(trained.network, trained.card)
    captured = capfd.readouterr()
    assert (captured.out, captured.err, len(recwarn)) == ("", "", 0)


class Unexportable(Net):
    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        if pixels.float().mean() > 100:
            return super().forward(pixels)
        return super().forward(255 - pixels)


class Failing(Net):
    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")


@pytest.mark.parametrize(
    ("network", "reason"),
    [(Unexportable(), "Could not guard on data-dependent expression"), (Failing(), "mat1 and mat2 shapes cannot be multiplied")],
)
def test_a_network_that_torch_cannot_export_is_refused_with_torchs_reason(
    network: nn.Module, reason: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(GateRefused) as refused:
        export_onnx(network, DIGITS)
    assert str(refused.value).startswith(f"digits was not exported: torch cannot write this network as ONNX with a free batch: {reason}")
    assert "\n" not in str(refused.value)
    assert capfd.readouterr().err == ""


def test_weights_that_do_not_fit_in_one_file_are_refused_before_the_work() -> None:
    class Huge(Net):
        def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]:
            # A meta tensor is as large as it says, without the memory.
            return iter([torch.nn.Parameter(torch.empty(2**30, device="meta"))])

    with pytest.raises(
        GateRefused, match=r"digits was not exported: its weights are 4,294,967,296 bytes, more than the 2,147,483,647 of one ONNX file"
    ):
        export_onnx(Huge(), DIGITS)


def test_onnx_runtime_gives_torchs_answers(trained: Trained) -> None:
    actual = in_onnx_runtime(trained.model, trained.card)(trained.pixels)
    with torch.inference_mode():
        expected = trained.network(torch.from_numpy(trained.pixels)).numpy()
    assert np.abs(actual - expected).max() < 1e-6
