"""The parts of the benchmark that need neither server nor perf_analyzer: what is read, what is written, what is said of a difference."""

import base64
import builtins
import csv
import json
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from sightline.bench import BenchDocument, BenchSettings, EndToEnd, Environment, Load, Measurement, compare, demand_writable, read, write
from sightline.bench.end_to_end import _Clock, split
from sightline.bench.environment import Machine, Served, this_machine
from sightline.bench.expected import expected_answers, hold_under_load, published_answers
from sightline.bench.perf_analyzer import PerfAnalyzer, input_data, measurement, perf_analyzer_version
from sightline.bench.settings import MOST_IMAGES
from sightline.commands.bench_tables import described
from sightline.errors import MissingExtra, ModelError, ServerError, UsageError
from sightline.golden_sample import GoldenSample
from sightline.repository.golden import GoldenSet
from sightline.served_model import ServedModel, open_served
from sightline.testing import FakeTransport
from sightline.transport import ModelStatistics, Tls, parse_url
from sightline.transport.answers import model_statistics, served_config
from support.fake_network import brightest, card

ROW = Measurement("grpc", 4, 1, 1000.0, 4.0, 3.8, 5.0, 9.0, 1.0, 2.0, 3.0, 2.0, "every answer", 6000)

WAY = EndToEnd("grpc", 1, 300, 150.0, 2.0, 6.5, 0.1, 2.5, 1.5, 0.2, 0.3, 0.1, 1.7, 0.1)

MACHINE = Machine("AMD EPYC", "x86_64", ("avx2", "avx512_vnni"), 2, 8.0, "Linux-6", 0.1)

SERVED = Served(
    *("grpc://localhost:8001", True, "triton", "2.51.0", "colours", "3", "ab" * 32, "fp32", "onnxruntime", "2 × KIND_CPU", "1"),
    *("up to 8, delay 0 µs", True),
)

DOCUMENT = BenchDocument(
    schema=1,
    measured_at="2026-11-28T08:00:00+00:00",
    images=8,
    source="photos",
    window_s=2.0,
    environment=Environment(MACHINE, {"python": "3.11.7", "numpy": "1.26.4"}, (SERVED,)),
    rows=(ROW, replace(ROW, concurrency=16, images_per_s=3000.0, p50_ms=5.0, p95_ms=8.0), replace(ROW, protocol="http", batch=4)),
    end_to_end=(WAY,),
)

PRINTED = """  Pass [1] throughput: 1100 infer/sec. Avg latency: 900 usec (std 10 usec).
  Pass [2] throughput: 900 infer/sec. Avg latency: 1000 usec (std 10 usec).
  Pass [3] throughput: 1000 infer/sec. Avg latency: 1100 usec (std 10 usec).
  Client:
    Request count: 1500
  Server:
    Successful request count: 1501
"""


def test_a_row_of_perf_analyzer_becomes_a_measurement() -> None:
    names = (
        "Client Send",
        "Network+Server Send/Recv",
        "Server Queue",
        "Server Compute Input",
        "Server Compute Infer",
        "Server Compute Output",
    )
    row = {
        "Concurrency": "4",
        "Inferences/Second": "2000.5",
        "Client Recv": "2",
        **dict(zip(names, ("7", "600", "280", "25", "350", "160"), strict=True)),
        "p50 latency": "1100",
        "p90 latency": "2000",
        "p95 latency": "2800",
        "p99 latency": "6300",
    }
    measured = measurement(row, PRINTED, "http", 2)
    assert (measured.protocol, measured.concurrency, measured.batch, measured.images_per_s) == ("http", 4, 2, 2000.5)
    assert (measured.p50_ms, measured.p95_ms, measured.p99_ms, measured.queue_ms) == (1.1, 2.8, 6.3, 0.28)
    assert measured.mean_ms == pytest.approx(1.424)
    assert measured.compute_ms == pytest.approx(0.535)
    assert measured.spread_percent == pytest.approx(10)
    assert measured.latency_spread_percent == pytest.approx(10)
    assert measured.checked == 3000  # images, not requests


def test_perf_analyzer_gets_images_and_answers_to_the_bit() -> None:
    pixels = np.arange(2 * 12 * 9 * 3, dtype=np.uint8).reshape(2, 12, 9, 3)
    answers = np.array([[0.1, 0.2, 0.7], [1, 0, 1e-30]], np.float32)
    document = json.loads(input_data(card(), pixels, answers))
    (name,) = document["validation_data"][1]
    assert name == card().output
    tensor = document["validation_data"][1][name]
    assert tensor["shape"] == [3]
    assert base64.b64decode(tensor["content"]["b64"]) == answers[1].tobytes()
    assert base64.b64decode(document["data"][0][card().input]["content"]["b64"]) == pixels[0].tobytes()
    assert "validation_data" not in json.loads(input_data(card(), pixels, None))


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("grpc://host:1", ["-i", "grpc", "-u", "host:1"]),
        ("http://host/a/b", ["-i", "http", "-u", "host:8000/a/b"]),
        (
            "grpcs://host",
            [
                *("-i", "grpc", "-u", "host:443", "--ssl-grpc-use-ssl", "true", "--ssl-grpc-root-certifications-file", "ca.pem"),
                *("--ssl-grpc-certificate-chain-file", "me.pem", "--ssl-grpc-private-key-file", "me.key"),
            ],
        ),
        (
            "https://host:8443/a",
            [
                *("-i", "http", "-u", "https://host:8443/a", "--ssl-https-ca-certificates-file", "ca.pem"),
                *("--ssl-https-client-certificate-file", "me.pem", "--ssl-https-private-key-file", "me.key"),
            ],
        ),
    ],
)
def test_perf_analyzer_is_told_the_address_the_certificates_and_the_headers(url: str, expected: list[str]) -> None:
    settings = BenchSettings(window_s=0.5, tls=Tls(Path("ca.pem"), Path("me.pem"), Path("me.key")), headers={"x-tenant": "7"})
    analyzer = PerfAnalyzer(Path("perf_analyzer"), card(), "3", parse_url(url), settings)
    command = analyzer.command(Load(8, 2), Path("images.json"), Path("report.csv"))
    where = [part for part in command if part in expected]
    assert where == expected
    rest = [part for part in command if part not in expected]
    assert rest == [
        *("perf_analyzer", "-m", "colours", "-x", "3", "-b", "2", "--concurrency-range", "8", "--input-data", "images.json"),
        *("-f", "report.csv", "--measurement-interval", "500", "--stability-percentage", "999", "-v", "-H", "x-tenant:7"),
    ]


def test_a_program_that_says_no_version_has_none(tmp_path: Path) -> None:
    program = tmp_path / "perf_analyzer"
    assert perf_analyzer_version(program) == "unknown"
    program.write_text("#!/bin/sh\necho Perf Analyzer Version 2.60.1 '(commit abc)' >&2\n")
    program.chmod(0o755)
    assert perf_analyzer_version(program) == "2.60.1"


Network = Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]]


def served(network: Network, sample: GoldenSample | None = None) -> tuple[FakeTransport, ServedModel]:
    transport = FakeTransport(card(), network, sample=sample)
    return transport, replace(open_served(transport.config("colours"), "", transport.url, 10**6), version="1")


def some_pixels(count: int = 5) -> list[npt.NDArray[np.uint8]]:
    return list(np.random.default_rng(0).integers(0, 256, (count, *card().preprocess.shape), dtype=np.uint8))


def rolled(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    return np.roll(brightest(pixels), 1, axis=1)


def test_a_server_is_held_to_the_published_answers_before_anything_is_measured() -> None:
    pixels = some_pixels()
    golden = GoldenSet(np.stack(pixels), np.full(5, -1), brightest(np.stack(pixels)), 1e-3)
    transport, model = served(brightest)
    assert np.array_equal(expected_answers(transport, model, pixels, golden).answers, golden.probabilities)
    transport, model = served(rolled)
    with pytest.raises(ModelError) as refusal:
        expected_answers(transport, model, pixels, golden)
    delta = float(np.abs(rolled(pixels[0][None]) - brightest(pixels[0][None])).max())
    assert str(refusal.value) == (
        "the model colours version 1 on fake:// answers wrongly, so its speed means nothing: its answer to golden image 1 of 5 differs "
        f"from the published one by |Δp| {delta:.3g}, and 0.001 is allowed. Was its file replaced?"
    )


def test_the_sample_on_the_server_counts_where_the_repository_at_hand_is_another_ones() -> None:
    pixels = some_pixels()
    sample = GoldenSample("colours", 1, card().sha256, pixels[0], brightest(pixels[0][None])[0], 1e-4)
    _, model = served(brightest, sample)
    own = GoldenSet(np.stack(pixels), np.full(5, -1), brightest(np.stack(pixels)), 1e-4)
    others = replace(own, probabilities=rolled(np.stack(pixels)))
    assert published_answers(model, own) is own
    for golden in (others, None):
        published = published_answers(model, golden)
        assert published is not None
        assert np.array_equal(published.probabilities, sample.probabilities[None])
    _, without = served(brightest)
    assert published_answers(without, own) is own
    assert published_answers(without, None) is None


def test_answers_under_load_are_held_to_those_of_each_image_alone() -> None:
    pixels = some_pixels()
    transport, model = served(brightest)
    expected = expected_answers(transport, model, pixels, None)
    transport.requests.clear()
    assert hold_under_load(transport, model, expected, Load(3, 4)) == sum(map(len, transport.requests))
    assert {len(request) for request in transport.requests} == {4}

    def wrong_in_company(batch: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        answers = brightest(batch)
        answers[1:2] = rolled(batch[1:2])
        return answers

    transport, model = served(wrong_in_company)
    with pytest.raises(ModelError) as refusal:
        hold_under_load(transport, model, expected, Load(3, 4))
    words = str(refusal.value)
    assert words.startswith(
        "the model colours version 1 on fake:// answers wrongly under load, so its speed means nothing: with 3 requests of 4 images under "
        "way its answer to image "
    )
    assert words.endswith(", and 0.0001 is allowed")


def test_last_bits_are_no_wrong_answer_and_numbers_that_are_none_are() -> None:
    pixels = some_pixels()
    transport, model = served(brightest)
    expected = expected_answers(transport, model, pixels, None)
    transport, model = served(lambda batch: np.nextafter(brightest(batch), np.float32(0)))
    assert hold_under_load(transport, model, expected, Load(2, 2)) >= 8
    transport, model = served(lambda batch: np.full((len(batch), 3), np.nan, np.float32))
    with pytest.raises(ModelError, match="numbers that are not finite"):
        hold_under_load(transport, model, expected, Load(2, 2))


def test_a_slow_model_is_measured_with_the_images_that_it_answers_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sightline.bench.expected.ALONE_S", 0.0)
    transport, model = served(brightest)
    assert len(expected_answers(transport, model, some_pixels(MOST_IMAGES), None).pixels) == 8


def test_parts_of_the_way_are_means_of_each_image_and_what_is_missing_is_told() -> None:
    clock = _Clock(images=100, wall=1.0, read=0.1, decode=0.2, reformat=0.1, serialise=0.05, call=0.5)
    did = ModelStatistics(100, 0.4, 0.1, 0.05, 0.2, 0.04)
    way = split(clock, did, [90.0, 110.0, 100.0], "grpc", 2)
    assert (way.images_per_s, way.wall_ms, way.read_ms, way.decode_ms) == pytest.approx((100, 10, 1, 2))
    assert (way.network_ms, way.queue_ms, way.compute_ms, way.other_ms) == pytest.approx((1, 1, 2.9, 0.6))
    assert way.spread_percent == pytest.approx(10)
    assert way.doubts() == []
    astray = split(replace(clock, decode=0.02), replace(did, requests=150), [100.0], "grpc", 2)
    where = "grpc, 2 requests of 1 image under way"
    assert astray.doubts() == [
        f"{where}: 24 % of the time from file to answer lies in no part or in two, which is more than 10 %: do not rely on the split",
        f"{where}: the model answered 50 requests of somebody else meanwhile, whose queue and compute are in the means too",
    ]


def test_tritons_statistics_are_read_in_the_form_of_either_protocol() -> None:
    def answer(number: Callable[[int], Any]) -> dict[str, Any]:
        spent = {
            name: {"count": number(4), "ns": number(ns)} for name, ns in (("success", 9_000), ("queue", 1_000), ("compute_infer", 5_000))
        }
        return {"model_stats": [{"name": "a", "version": "1"}, {"name": "a", "version": "2", "inference_stats": spent}]}

    for number in (int, str):
        did = model_statistics(answer(number), "a", "2")
        assert (did.requests, did.server_s, did.queue_s, did.compute_s) == pytest.approx((4, 9e-6, 1e-6, 5e-6))
    assert did.since(did) == ModelStatistics(0, 0, 0, 0, 0, 0)
    with pytest.raises(ValueError, match="statistics without the model a version 3"):
        model_statistics(answer(int), "a", "3")
    with pytest.raises(ValueError, match="model_stats"):
        model_statistics({"model_stats": [{"name": "a"}]}, "a", "1")


def test_instances_and_batching_are_read_in_the_form_of_either_protocol() -> None:
    tensors = {
        "input": [{"name": "a", "data_type": "TYPE_UINT8", "dims": ["1"]}],
        "output": [{"name": "b", "data_type": "TYPE_FP32", "dims": [1]}],
    }
    shared = {"name": "m", "backend": "onnxruntime", "parameters": {"threads": {"string_value": "2"}}, **tensors}
    config = served_config({**shared, "instance_group": [{"kind": "KIND_CPU", "count": 3}], "dynamic_batching": {}})
    assert ([(group.kind, group.count) for group in config.instance_groups], config.batches) == ([("KIND_CPU", 3)], True)
    assert (config.queue_delay_us, config.parameters) == (0, {"threads": "2"})
    assert served_config({"config": {**shared, "dynamic_batching": {"max_queue_delay_microseconds": "250"}}}).queue_delay_us == 250
    assert not served_config(shared).batches


def test_the_instruction_set_is_what_the_system_lists_of_the_first_core(tmp_path: Path) -> None:
    listed = tmp_path / "cpuinfo"
    listed.write_text("processor\t: 0\nmodel name\t: A Processor\nflags\t\t: fpu avx512_vnni sse4_2 avx2\n\nmodel name\t: Another\n")
    machine = this_machine(listed)
    assert (machine.processor, machine.instructions) == ("A Processor", ("sse4_2", "avx2", "avx512_vnni"))
    assert this_machine(tmp_path / "missing").instructions == ()


def test_the_environment_is_told_in_a_few_lines() -> None:
    assert DOCUMENT.environment is not None
    assert described(DOCUMENT.environment) == [
        "client   AMD EPYC, 2 cores, 8 GiB, Linux-6, load 0.1",
        "         avx2 avx512_vnni",
        "         python 3.11.7, numpy 1.26.4",
        (
            "server   grpc://localhost:8001: Triton 2.51.0, colours version 3, fp32, onnxruntime, 2 × KIND_CPU of 1 thread, "
            f"batching up to 8, delay 0 µs, card {'ab' * 6}"
        ),
    ]


def test_a_folder_gets_the_document_its_rows_and_the_plot_and_is_read_again(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    out = tmp_path / "result"
    demand_writable(out)
    write(DOCUMENT, out)
    assert sorted(file.name for file in out.iterdir()) == ["bench.json", "bench.png", "bench.svg", "end_to_end.csv", "rows.csv"]
    assert read(out) == read(out / "bench.json") == DOCUMENT
    with (out / "rows.csv").open(newline="") as rows, (out / "end_to_end.csv").open(newline="") as ways:
        assert [row["images_per_s"] for row in csv.DictReader(rows)] == ["1000.0000", "3000.0000", "1000.0000"]
        assert [way["decode_ms"] for way in csv.DictReader(ways)] == ["2.5000"]
    assert (out / "bench.png").read_bytes().startswith(b"\x89PNG")
    letters = {text.text for text in ET.parse(out / "bench.svg").iter("{http://www.w3.org/2000/svg}text")}
    assert {"colours version 3", "gRPC, batch 1", "HTTP, batch 4", "latency of a request in ms (full: p50, dashed: p95)"} <= letters
    drawn = (out / "bench.svg").read_bytes()
    write(DOCUMENT, out)
    assert (out / "bench.svg").read_bytes() == drawn


def test_a_file_gets_the_document_or_the_rows_and_needs_no_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = builtins.__import__

    def without_matplotlib(name: str, *arguments: Any, **more: Any) -> Any:
        if name.partition(".")[0] == "matplotlib":
            raise ModuleNotFoundError(name)
        return honest(name, *arguments, **more)

    monkeypatch.setattr(builtins, "__import__", without_matplotlib)
    for name in ("a.json", "a.csv"):
        demand_writable(tmp_path / name)
        write(DOCUMENT, tmp_path / name)
    assert read(tmp_path / "a.json") == DOCUMENT
    assert (tmp_path / "a.csv").read_text().count("\n") == 4
    with pytest.raises(MissingExtra) as refusal:
        demand_writable(tmp_path / "folder")
    assert str(refusal.value) == (
        "the plot of a benchmark needs matplotlib: pip install 'sightline[score]', or name a .json or .csv file with --out"
    )
    assert not (tmp_path / "folder").exists()


def test_the_list_of_rows_of_earlier_versions_is_read(tmp_path: Path) -> None:
    row = {"protocol": "grpc", "concurrency": 4, "batch": 1, "images_per_s": 1000, "mean_ms": 4, "p50_ms": 3.8, "p95_ms": 5, "p99_ms": 9}
    (tmp_path / "old.json").write_text(json.dumps([{**row, "queue_ms": 1, "compute_ms": 2, "spread_percent": 3.0}]))
    (read_row,) = read(tmp_path / "old.json").rows
    assert read_row == replace(ROW, latency_spread_percent=0.0, check="", checked=0)


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"schema": 2}', '{"schema": 1, "rows": "a"}', "[" * 100_000, "NaN"])
def test_what_is_no_result_is_refused_in_a_sentence(text: str, tmp_path: Path) -> None:
    file = tmp_path / "old.json"
    file.write_text(text)
    with pytest.raises(UsageError) as refusal:
        read(file)
    assert str(refusal.value).startswith(f"{file}: this is no result of `sightline bench --out`: ")
    assert "\n" not in str(refusal.value)


def changed(**changes: Any) -> BenchDocument:
    return replace(DOCUMENT, rows=(replace(ROW, **changes), *DOCUMENT.rows[1:]))


@pytest.mark.parametrize(
    ("changes", "rate", "p95"),
    [
        ({}, "within noise", "within noise"),
        ({"images_per_s": 1055.0}, "within noise", "within noise"),  # spreads of 3 % each
        ({"images_per_s": 1070.0}, "better", "within noise"),
        ({"images_per_s": 930.0}, "worse", "within noise"),
        ({"images_per_s": 1070.0, "spread_percent": 20.0}, "within noise", "within noise"),
        ({"p95_ms": 5.4}, "within noise", "within noise"),
        ({"p95_ms": 5.6}, "within noise", "worse"),
        ({"p95_ms": 4.5}, "within noise", "better"),
        ({"p95_ms": 5.6, "latency_spread_percent": 15.0}, "within noise", "within noise"),
    ],
)
def test_a_difference_counts_if_it_exceeds_what_the_windows_of_both_lay_apart(changes: dict[str, Any], rate: str, p95: str) -> None:
    difference = compare(DOCUMENT, changed(**changes)).differences[0]
    assert (difference.rate_verdict, difference.p95_verdict) == (rate, p95)


def test_a_comparison_tells_rows_without_a_partner_and_what_of_the_environment_is_another_one() -> None:
    assert DOCUMENT.environment is not None
    environment = replace(
        DOCUMENT.environment,
        machine=replace(MACHINE, instructions=("avx2",), load=1.9),
        versions={"python": "3.12.1", "numpy": "1.26.4"},
        served=(replace(SERVED, url="grpc://other:1", server_name="another", instances="1 × KIND_CPU"),),
    )
    new = replace(DOCUMENT, environment=environment, rows=(DOCUMENT.rows[1], replace(ROW, concurrency=99)))
    comparison = compare(DOCUMENT, new)
    assert [each.new.concurrency for each in comparison.differences] == [16]
    assert (comparison.only_old, comparison.only_new) == (2, 1)
    assert comparison.environment == (
        "instructions: avx2, avx512_vnni → avx2",
        "python: 3.11.7 → 3.12.1",
        "instances: 2 × KIND_CPU → 1 × KIND_CPU",
    )
    assert not comparison.old_was_busy
    assert compare(new, DOCUMENT).old_was_busy
    assert compare(replace(DOCUMENT, environment=None), new).environment == ()


@pytest.mark.parametrize("words", ["Output doesn't match expected output", "Output size doesn't match expected size"])
def test_other_bits_than_expected_are_no_failure_yet(words: str, tmp_path: Path) -> None:
    program = tmp_path / "perf_analyzer"
    program.write_text(f'#!/bin/sh\necho "Thread [0] had error: {words}" >&2\nexit 99\n')
    program.chmod(0o755)
    analyzer = PerfAnalyzer(program, card(), "1", parse_url("http://host"), BenchSettings())
    assert analyzer.measure(Load(1, 4), tmp_path / "images.json", tmp_path / "report.csv") is None


def test_another_model_than_the_cards_can_be_asked_and_the_server_may_choose_its_version() -> None:
    analyzer = PerfAnalyzer(Path("pa"), card(), "", parse_url("grpc://host:8001"), BenchSettings(), model="other_image")
    command = analyzer.command(Load(1, 1), Path("images.json"), Path("report.csv"))
    assert command[:5] == ["pa", "-m", "other_image", "-i", "grpc"]
    assert "-x" not in command


def test_the_words_of_perf_analyzer_reach_the_user_without_the_token(tmp_path: Path) -> None:
    program = tmp_path / "perf_analyzer"
    program.write_text("#!/bin/sh\necho 'error: refused with Bearer a-secret-of-mine'\nexit 1\n")
    program.chmod(0o755)
    settings = BenchSettings(headers={"authorization": "Bearer a-secret-of-mine"})
    analyzer = PerfAnalyzer(program, card(), "1", parse_url("http://host"), settings)
    with pytest.raises(ServerError) as refusal:
        analyzer.measure(Load(1, 1), tmp_path / "images.json", tmp_path / "report.csv")
    assert str(refusal.value) == "perf_analyzer could not measure http://host: error: refused with …"
