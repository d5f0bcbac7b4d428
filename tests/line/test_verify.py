"""`sightline verify`: says "same" when everything is, and names the hop when one thing, anywhere, is not."""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from sightline import Classifier, cli, seal, unseal
from sightline.card import CARD_KEY
from sightline.errors import DataError, HopDiffers, ModelNotFound, ServerUnavailable
from sightline.remarks import FLAT
from sightline.repository.read import read_version
from sightline_serving.server import Server, start_server
from sightline_serving.settings import FREE_PORTS
from sightline_training.datasets.mnist import open_mnist
from sightline_training.run.run import load_run
from support.line import Line, Prove, table
from support.present import present
from support.scripts import script

pytestmark = pytest.mark.triton

CARD_HOPS = [f"card: run → {copy}" for copy in ("model.onnx", "card.json", "config.pbtxt", "gRPC", "HTTP")]
HOPS = [
    *CARD_HOPS,
    "weights: run → version",
    "file: published → on disk",
    "pixels: training → gRPC client",
    "pixels: training → HTTP client",
    "answers: torch → ONNX",
    "answers: ONNX → gRPC",
    "answers: ONNX → HTTP",
    "answers: ONNX → gRPC, encoded",
    "answers: ONNX → HTTP, encoded",
    "labels: card → Triton, gRPC",
    "labels: card → Triton, HTTP",
]


def stale(text: str) -> str:
    """One digit of the mean changed, the hash left as it was."""
    assert text.count("0.1307") == 1
    return text.replace("0.1307", "0.1308")


def resealed(text: str) -> str:
    """One digit of the mean changed, and the hash made to fit: what a careful forger does."""
    card = unseal(text, "test")
    return seal(card.model_copy(update={"preprocess": card.preprocess.model_copy(update={"mean": (0.1308,)})}))


def in_card_file(folder: str) -> Callable[[Line, Callable[[str], str]], None]:
    def change(line: Line, alter: Callable[[str], str]) -> None:
        path = (line.run if folder == "run" else line.repository / "mnist") / "card.json"
        path.write_text(alter(path.read_text()))

    return change


def in_onnx(line: Line, alter: Callable[[str], str]) -> None:
    path = line.repository / "mnist" / "1" / "model.onnx"
    model = onnx.load(path)
    entry = next(entry for entry in model.metadata_props if entry.key == CARD_KEY)
    entry.value = alter(entry.value)
    onnx.save(model, path)


def in_config(line: Line, alter: Callable[[str], str]) -> None:
    path = line.repository / "mnist" / "config.pbtxt"
    config = text_format.Parse(path.read_text(), ModelConfig())
    config.parameters[CARD_KEY].string_value = alter(config.parameters[CARD_KEY].string_value)
    path.write_text(text_format.MessageToString(config))


def test_an_untouched_line_gives_the_same_answer_at_every_hop(
    line: Line, server: Server, prove: Prove, capsys: pytest.CaptureFixture[str]
) -> None:
    prove(line, server)
    printed = capsys.readouterr().out
    assert table(printed) == dict.fromkeys(HOPS, "same")
    assert printed.splitlines()[-1] == "mnist version 1: same picture, same answer, at every hop"
    counted = [row.split() for row in printed.splitlines() if row.startswith(("pixels:", "answers:"))]
    assert [row[-4:-2] for row in counted] == [["360", "360"]] * 7


def test_the_proof_is_a_document_for_scripts_too(line: Line, other_line: Line, server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    urls = ["--grpc-url", server.grpc_url, "--http-url", server.http_url]
    arguments = ["verify", "mnist", "--repository", str(line.repository), *urls, "--images", "20", "--json"]
    cli.run([*arguments, "--run", str(line.run)])
    proof = json.loads(capsys.readouterr().out)
    assert (proof["model"], proof["version"], len(proof["hops"])) == ("mnist", 1, len(HOPS))
    assert [f"{hop['kind']}: {hop['source']} → {hop['target']}" for hop in proof["hops"]] == HOPS
    assert {hop["verdict"] for hop in proof["hops"]} == {"same"}
    answers = next(hop for hop in proof["hops"] if hop["kind"] == "answers")
    assert (answers["source"], answers["target"], answers["images"], answers["agreeing"], answers["reason"]) == (
        "torch",
        "ONNX",
        20,
        20,
        "",
    )
    with pytest.raises(HopDiffers, match="the hop “weights: run → version”"):
        cli.run([*arguments, "--run", str(other_line.run)])
    proof = json.loads(capsys.readouterr().out)
    assert next(hop for hop in proof["hops"] if hop["kind"] == "weights")["verdict"] == "differs"


@pytest.mark.parametrize("alter", [stale, resealed])
@pytest.mark.parametrize(
    ("change", "hop"),
    [
        (in_card_file("run"), "card: run"),
        (in_card_file("repository"), "card: run → card.json"),
        (in_onnx, "card: run → model.onnx"),
        (in_config, "card: run → config.pbtxt"),
    ],
)
def test_one_digit_of_a_mean_in_any_copy_on_disk_is_found_and_the_copy_named(
    spoiled: Line,
    server: Server,
    prove: Prove,
    capsys: pytest.CaptureFixture[str],
    change: Callable[[Line, Callable[[str], str]], None],
    alter: Callable[[str], str],
    hop: str,
) -> None:
    change(spoiled, alter)
    with pytest.raises(HopDiffers) as difference:
        prove(spoiled, server)
    sentence, parted = str(difference.value), "mnist version 1: the answers part at the hop “"
    if hop == "card: run" and alter is resealed:
        # The copies cannot say who is right, but all the others agree with one another.
        assert sentence.startswith(f"{parted}card: run → model.onnx”: preprocess.mean is [0.1308] before and [0.1307] after")
        assert "all the other copies agree, so the run's is the one that changed" in sentence
        return
    assert sentence.startswith(f"{parted}{hop}”: ")
    reasons: dict[Callable[[str], str], str] = {
        stale: "it was changed after it was written",
        resealed: "preprocess.mean is [0.1307] before and [0.1308] after",
    }
    assert reasons[alter] in sentence
    verdicts = table(capsys.readouterr().out)
    assert [name for name in verdicts if name.startswith("card:") and verdicts[name] == "DIFFERS"] == [hop]


@pytest.mark.parametrize("alter", [stale, resealed])
def test_one_digit_of_a_mean_in_the_served_copy_is_found_over_both_protocols(
    line: Line, spoiled: Line, prove: Prove, capsys: pytest.CaptureFixture[str], alter: Callable[[str], str]
) -> None:
    in_config(spoiled, alter)
    with (
        start_server(spoiled.repository, replace(FREE_PORTS, verify_hashes=False)) as server,
        pytest.raises(HopDiffers, match="the answers part at the hop “card: run → gRPC”: "),
    ):
        prove(line, server)
    verdicts = table(capsys.readouterr().out)
    assert (verdicts["card: run → gRPC"], verdicts["card: run → HTTP"]) == ("DIFFERS", "DIFFERS")
    assert verdicts["answers: torch → ONNX"] == "same"
    # The mean is applied in the graph, so this network still answers as before; a client that believes a wrong hash does not exist.
    assert verdicts["answers: ONNX → gRPC"] == ("not reached" if alter is stale else "same")


def test_another_model_of_the_same_shape_on_the_server_is_found(
    line: Line, other_line: Line, prove: Prove, capsys: pytest.CaptureFixture[str]
) -> None:
    with start_server(other_line.repository, FREE_PORTS) as server, pytest.raises(HopDiffers) as difference:
        prove(line, server)
    assert re.match(
        r"mnist version 1: the answers part at the hop “answers: ONNX → gRPC”: of image \d+, ONNX says \d \([01]\.\d{4}\) and gRPC says "
        r"\d \([01]\.\d{4}\): \|Δp\| [0-9.e-]+, allowed 1e-04$",
        str(difference.value),
    )
    assert table(capsys.readouterr().out) == {
        **dict.fromkeys(HOPS, "same"),
        **dict.fromkeys(HOPS[-6:-2], "DIFFERS"),
    }


def test_a_file_that_was_swapped_after_it_was_published_is_found(
    spoiled: Line, other_line: Line, server: Server, prove: Prove, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copyfile(other_line.repository / "mnist" / "1" / "model.onnx", spoiled.repository / "mnist" / "1" / "model.onnx")
    with pytest.raises(
        HopDiffers, match=r"the hop “file: published → on disk”: version 1 of model mnist .* model.onnx was changed after it was published"
    ):
        prove(spoiled, server)
    verdicts = table(capsys.readouterr().out)
    assert verdicts["answers: torch → ONNX"] == "DIFFERS"


def test_a_run_that_was_trained_again_is_told_from_the_one_that_was_exported(
    line: Line, other_line: Line, server: Server, prove: Prove, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(
        HopDiffers,
        match=r"the hop “weights: run → version”: .* holds other weights .* export the run again, or name the right one",
    ):
        prove(Line(other_line.run, line.repository), server)
    assert table(capsys.readouterr().out)["answers: torch → ONNX"] == "DIFFERS"


def test_weights_that_are_not_the_reports_are_found(spoiled: Line, other_line: Line, server: Server, prove: Prove) -> None:
    shutil.copyfile(other_line.run / "weights.safetensors", spoiled.run / "weights.safetensors")
    with pytest.raises(HopDiffers, match=r"the hop “weights: run → version”: .*the weights are not those that report.json describes"):
        prove(spoiled, server)


def test_what_cannot_be_compared_is_said_with_its_own_exit_code(line: Line, server: Server, prove: Prove, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no run folder"):
        prove(Line(tmp_path / "nowhere", line.repository), server)
    with pytest.raises(ModelNotFound, match="has no model fruit"):
        cli.run(["verify", "fruit", "--run", str(line.run), "--grpc-url", server.grpc_url, "--http-url", server.http_url])
    with pytest.raises(ServerUnavailable, match=r"no Triton server answers at grpc://127\.0\.0\.1:1"):
        cli.run(["verify", "mnist", "--run", str(line.run), "--grpc-url", "grpc://127.0.0.1:1", "--http-url", server.http_url])


@pytest.mark.realdata
@pytest.mark.timeout(900)
@pytest.mark.parametrize("at_every_hop", [1_000, pytest.param(10_000, marks=pytest.mark.slow)])
def test_of_the_real_mnist_all_10_000_test_images_are_judged_and_compared_at_export_and_so_many_are_answered_alike_at_every_hop(
    at_every_hop: int, data_folder: Path, tmp_path: Path, prove: Prove, capsys: pytest.CaptureFixture[str]
) -> None:
    line = Line(tmp_path / "run", tmp_path / "models")
    cli.run(["train", "mnist", "--data", str(data_folder), "--epochs", "1", "--run", str(line.run)])
    cli.run(["export", str(line.run), "--repository", str(line.repository), "--data", str(data_folder)])
    capsys.readouterr()
    with start_server(line.repository, FREE_PORTS) as server:
        prove(line, server, "--images", str(at_every_hop))
        printed = capsys.readouterr().out
        drawn_digits = script("scripts/drawn_digits.py")
        test = open_mnist(data_folder)["test"]
        with Classifier("mnist", server.grpc_url) as digits:
            for scene in ("paper", "sheet", "tight crop", "form", "black canvas", "coloured canvas", "shadow"):
                drawings, truth = drawn_digits.drawn(scene, test, 40)
                right = sum(guess.label == digit for guess, digit in zip(digits.classify(drawings), truth, strict=True))
                # Of one epoch; what a whole training reads stands in docs/benchmarks.md.
                assert right >= 34, scene
            sheets = digits.classify([drawn_digits.empty_sheet(np.random.default_rng(number)) for number in range(20)])
            assert [guess.remark for guess in sheets] == [FLAT] * 20
            cases = sorted((data_folder / "cases").glob("digit7_*.png"))
            assert [guess.label for guess in digits.classify(cases)] == ["7"] * len(cases)
    assert table(printed) == dict.fromkeys(HOPS, "same")
    counted = [row.split() for row in printed.splitlines() if row.startswith(("pixels:", "answers:"))]
    assert [row[-4:-2] for row in counted] == [[f"{at_every_hop:,}"] * 2] * 7
    assert max(float(row[-2]) for row in counted) <= 1e-4
    report = load_run(line.run).report
    accuracy = present(report.accuracy["test"])
    assert (accuracy.n, accuracy.accuracy > 0.95) == (10_000, True)
    assert report.target.accuracy == 0.986
    assert report.target.reached == (accuracy.accuracy >= 0.986)
    # Known of MNIST: no test image is, pixel for pixel, also a training image.
    assert report.duplicates.seen == 0
    gate = present(read_version(line.repository / "mnist" / "1").report.gate)
    assert gate.images == 10_000
    assert gate.measured("accuracy") == accuracy.accuracy
    assert gate.measured("top-1 agreement") == 1.0
    largest = gate.measured("max |Δp|")
    assert isinstance(largest, float)
    assert largest < 1e-5
