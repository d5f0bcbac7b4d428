"""`sightline bench` on a published model: the real perf_analyzer, the real Triton, the golden images with their published answers."""

import csv
import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from PIL import Image

from sightline import cli
from sightline_serving.server import Server
from support.line import Line


def test_bench_measures_both_protocols_and_batches_holds_every_row_to_the_answers_and_splits_the_way(
    line: Line, server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "result"
    urls = ["--grpc-url", server.grpc_url, "--http-url", server.http_url, "--repository", str(line.repository)]
    sizes = ["--concurrency", "4", "--batch", "1", "--batch", "4", "--window", "0.5", "--threads", "1", "--threads", "3"]
    cli.run(["bench", "mnist", *urls, *sizes, "--out", str(out)])
    printed = capsys.readouterr()
    document = json.loads((out / "bench.json").read_text())

    rows = document["rows"]
    assert [(row["protocol"], row["concurrency"], row["batch"]) for row in rows] == [
        *(("grpc", 4, 1), ("grpc", 4, 4), ("http", 4, 1), ("http", 4, 4))
    ]
    for row in rows:
        assert row["images_per_s"] > 10
        assert 0 < row["p50_ms"] <= row["p95_ms"] <= row["p99_ms"]
        assert 0 < row["compute_ms"] < row["mean_ms"]
        assert row["check"] in ("every answer", "under load")
        assert row["checked"] >= 8
    with (out / "rows.csv").open(newline="") as file_of_rows:
        assert [(row["protocol"], row["batch"]) for row in csv.DictReader(file_of_rows)] == [
            (row["protocol"], str(row["batch"])) for row in rows
        ]

    ways = document["end_to_end"]
    assert [(way["protocol"], way["concurrency"]) for way in ways] == [("grpc", 1), ("grpc", 3), ("http", 1), ("http", 3)]
    for way in ways:
        parts_ms = [way[f"{part}_ms"] for part in ("read", "decode", "reformat", "serialise", "network", "queue", "compute")]
        assert all(part_ms > 0 for part_ms in parts_ms)
        assert sum(parts_ms) == pytest.approx(way["wall_ms"], rel=0.1)
        assert way["requests_of_others"] == 0
        assert way["images_per_s"] * way["wall_ms"] / 1000 == pytest.approx(way["concurrency"], rel=0.2)

    with Image.open(out / "bench.png") as drawn:
        assert drawn.size == (960, 600)
    letters = [text.text or "" for text in ET.parse(out / "bench.svg").iter("{http://www.w3.org/2000/svg}text")]
    assert {"gRPC, batch 1", "gRPC, batch 4", "HTTP, batch 1", "HTTP, batch 4", "mnist version 1"} <= set(letters)

    machine, served = document["environment"]["machine"], document["environment"]["served"]
    assert machine["processor"]
    assert machine["cores"] >= 1
    assert document["environment"]["versions"]["perf_analyzer"] == "2.51.0"
    assert [each["server_version"] for each in served] == ["2.51.0", "2.51.0"]
    assert {(each["version"], each["precision"], each["backend"], each["on_this_machine"]) for each in served} == {
        ("1", "fp32", "onnxruntime", True)
    }
    assert served[0]["instances"] == "1 × KIND_CPU"
    assert served[0]["threads"] == "1"
    assert served[0]["batching"] == "up to 256, delay 0 µs"
    lines = printed.out.splitlines()
    assert [re.split(r"\s{2,}", text)[0] for text in lines if not text.startswith((" ", "client", "server"))] == [
        *("protocol", "grpc", "grpc", "http", "http"),
        "from image file to answer, an image a request, ms of each image",
        *("protocol", "grpc", "grpc", "http", "http"),
    ]

    # The same rows, measured again and held to these.
    again = [
        "--concurrency",
        "4",
        "--window",
        "0.5",
        "--http-url",
        "",
        "--no-files",
        "--compare",
        str(out),
        "--out",
        str(tmp_path / "b.json"),
    ]
    cli.run(["bench", "mnist", "--grpc-url", server.grpc_url, "--repository", str(line.repository), *again])
    printed = capsys.readouterr()
    side_by_side = printed.out.partition(f"against {out}")[2].splitlines()
    assert re.fullmatch(r"grpc +4 +1 +[\d,]+ +[\d,]+ +\d+\.\d\d +\d+ +(better|worse|within noise) +.*", side_by_side[2])
    assert re.fullmatch(r"[01] of 1 rows differ by more than noise", side_by_side[3])
    assert "note: 3 rows of the old result were not measured now, and 0 of the new one not then\n" in printed.err
    assert len(json.loads((tmp_path / "b.json").read_text())["rows"]) == 1
