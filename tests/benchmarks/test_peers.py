"""The parts of the race that need no peer: what is sent, read, compared and written."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from peers import in_process, markers, perf, process_tree, results, wire, wrk
from peers.contenders import CONTENDERS, OURS, SERVERS, Contender, Launch
from peers.environments import REQUIREMENTS, pins
from peers.models import KINDS, Model, drawn_pixels, tolerance_of
from peers.process import StartError, running
from peers.results import IN_PROCESS, FileTurn, Turn, Window
from peers.shapes import Shape, Tried, Tuned, read_tuned, write_tuned
from support.scripts import script


def model(tmp_path: Path) -> Model:
    pixels = drawn_pixels((4, 4, 3))
    answers = np.eye(8, dtype=np.float32)
    return Model(KINDS["mnist"], tmp_path, tmp_path / "model.onnx", "0" * 64, "pixels", "probabilities", pixels, answers, 1e-4)


def turn(contender: str, number: int, rates: dict[int, float], **more: object) -> Turn:
    windows = [{"concurrency": each, "per_s": rate, "p50_ms": 1.5, "p99_ms": 3.25, "cpu_ms": 0.4} for each, rate in rates.items()]
    return Turn.model_validate({"model": "mnist", "contender": contender, "round": number, "window_s": 1.0, "windows": windows} | more)


@pytest.mark.parametrize("file", sorted(REQUIREMENTS.glob("*.txt")), ids=lambda file: file.stem)
def test_a_requirements_file_holds_exact_versions_and_no_address(file: Path) -> None:
    assert pins(file)["onnxruntime"] == "1.31.1"


def test_a_requirement_that_pins_nothing_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "loose.txt"
    for line in ("fastapi", "fastapi>=1", "--index-url==there", "fastapi @ https://there/fastapi==1.whl"):
        file.write_text(f"# a comment\nnumpy==2.4.6\n{line}\n")
        with pytest.raises(ValueError, match="is no exact version of a package") as error:
            pins(file)
        assert str(error.value) == f"loose.txt: {line!r} is no exact version of a package"


def test_every_peer_has_its_requirements_and_its_server() -> None:
    assert {contender.environment for contender in CONTENDERS.values()} - {""} <= {file.stem for file in REQUIREMENTS.glob("*.txt")}
    assert {"fastapi", "litserve", "bentoml", "mlserver", "kserve", "ray", "sightline"} == {
        file.stem.partition("_")[0] for file in SERVERS.glob("*.py")
    } - {"setup", "transforms"}
    for contender in CONTENDERS.values():
        for kind in KINDS.values():
            assert len(set(contender.candidates(kind))) == len(contender.candidates(kind)) > 0


def test_each_wire_carries_the_image_and_its_answer(tmp_path: Path) -> None:
    subject, answer = model(tmp_path), np.array([0.25, 0.75], np.float32)
    raw = wire.request("raw", subject, subject.pixels[0])
    assert raw.body == subject.pixels[0].tobytes()
    assert wire.probabilities("raw", None, answer.tobytes()).tolist() == [0.25, 0.75]
    binary = wire.request("v2", subject, subject.pixels[0])
    head = int(binary.headers["Inference-Header-Content-Length"])
    assert json.loads(binary.body[:head])["inputs"][0]["shape"] == [1, 4, 4, 3]
    assert binary.body[head:] == subject.pixels[0].tobytes()
    assert wire.probabilities("v2", 3, b"{ }" + answer.tobytes()).tolist() == [0.25, 0.75]
    encoded = json.loads(wire.request("v2-base64", subject, subject.pixels[0]).body)
    assert encoded["inputs"][0]["datatype"] == "BYTES"
    assert wire.probabilities("v2-base64", None, b'{"outputs": [{"data": [0.25, 0.75]}]}').tolist() == [0.25, 0.75]


def test_an_answer_that_cannot_be_read_or_is_not_the_published_one_is_wrong() -> None:
    with pytest.raises(wire.WrongAnswerError, match="an answer that cannot be read: b'oops'"):
        wire.probabilities("v2", None, b"oops")
    expected = np.array([0.25, 0.75], np.float32)
    wire.demand(expected + 5e-5, expected, 1e-4)
    for answer, said in (
        (expected + np.float32(0.01), "|Δp| 1.0e-02 to the published answer, more than 1.0e-04"),
        (expected * np.float32("nan"), "|Δp| nan to the published answer, more than 1.0e-04"),
        (expected[:1], "1 probabilities where 2 were published"),
    ):
        with pytest.raises(wire.WrongAnswerError) as error:
            wire.demand(answer, expected, 1e-4)
        assert str(error.value) == said


def test_a_check_that_could_not_tell_two_images_apart_is_refused() -> None:
    answers = np.array([[0.5, 0.5], [0.5002, 0.4998]], np.float32)
    assert tolerance_of(answers, 1e-4) == pytest.approx(5e-5, rel=0.01)
    with pytest.raises(ValueError, match="two images get the same answer"):
        tolerance_of(np.array([[0.5, 0.5], [0.5, 0.5]], np.float32), 1e-4)


def test_wrk_is_read_and_a_failed_request_is_no_figure() -> None:
    figures = {"requests": 500, "duration": 2_000_000, "p50": 1500, "p95": 2500, "p99": 3000}
    fine = json.dumps(figures | dict.fromkeys(("connect", "read", "write", "status", "timeout"), 0))
    load = wrk.read(f"Running 2s test\nRACE {fine}\n")
    assert (load.per_s, load.p50_ms, load.p99_ms) == (250, 1.5, 3)
    with pytest.raises(wrk.LoadError) as error:
        wrk.read(f"RACE {fine}".replace('"status": 0', '"status": 7').replace('"timeout": 0', '"timeout": 1'))
    assert str(error.value) == "of 500 requests some failed: 7 × status, 1 × timeout"
    with pytest.raises(wrk.LoadError, match="wrk printed no figures: unable to connect"):
        wrk.read("", "unable to connect")


def test_perf_analyzer_is_read() -> None:
    said = (
        "  Client:\n\nInferences/Second vs. Client Average Batch Latency\nConcurrency: 8, throughput: 5899.2 infer/sec, latency 1320 usec\n"
    )
    assert perf.read(said) == Window(concurrency=8, per_s=5899.2, p50_ms=1.32)
    assert perf.read("error: failed to get model config") is None


def test_the_limit_has_no_more_images_under_way_than_the_server_could_have() -> None:
    shapes = in_process.shapes_for((1, 8, 32), 32, 2)
    assert len(shapes) == len(set(shapes))
    limits = in_process.limits({shape: 100.0 * shape.concurrency for shape in shapes}, (1, 8, 32))
    assert [limits[each].images_per_s for each in (1, 8, 32)] == [100, 800, 3200]
    assert limits[32].shape in ("1 × 2 threads, 32 images", "2 × 1 thread, 16 images")


def test_turns_are_kept_line_by_line_and_a_torn_one_is_measured_again(tmp_path: Path) -> None:
    file = tmp_path / "measured.jsonl"
    assert results.read(file) == ([], [])
    first, files = turn("ray", 1, {8: 10.0}), FileTurn(photos="small", way="client", concurrency=8, round=1, window_s=1.0)
    results.append(file, first)
    results.append(file, files)
    with file.open("a") as lines:
        lines.write('{"kind": "turn", "mod')
    assert results.read(file) == ([first], [files])
    results.append(file, turn("ray", 2, {}, failure="it was busy"))
    results.forget_failures(file)
    assert results.read(file) == ([first], [files])
    file.write_text('{"kind": "strange"}\n')
    with pytest.raises(ValueError, match="strange"):
        results.read(file)


def test_ratios_are_taken_round_by_round() -> None:
    turns = [turn(OURS, 1, {8: 100.0}), turn(OURS, 2, {8: 10.0}), turn("fastapi-1", 1, {8: 50.0}), turn("fastapi-1", 2, {8: 5.0})]
    turns += [turn("fastapi-2", 1, {8: 40.0}), turn("fastapi-2", 2, {8: 20.0}), turn("fastapi-2", 3, {8: 99.0}, failure="wrong answer")]
    best = results.best_of(results.rates(turns, "mnist", "fastapi-1", 8), results.rates(turns, "mnist", "fastapi-2", 8))
    assert best == {1: 50.0, 2: 20.0}
    measured = results.ratio(results.rates(turns, "mnist", OURS, 8), best)
    assert measured is not None
    assert (measured.lowest, measured.median, measured.highest, measured.n) == (0.5, 1.25, 2.0, 2)
    assert results.ratio({}, best) is None


def test_the_fastest_shape_that_is_still_a_candidate_is_taken(tmp_path: Path) -> None:
    slow, fast, gone = Shape(), Shape(workers=2), Shape(workers=2, max_batch=8, batch_wait_ms=1)
    tried = (Tried(shape=slow, rates={1: 10, 8: 10}), Tried(shape=fast, rates={1: 5, 8: 80}), Tried(shape=gone, rates={1: 99, 8: 99}))
    file = tmp_path / "shapes.json"
    assert read_tuned(file).best("mnist", "ray", (slow, fast)) == slow
    write_tuned(Tuned(machine="2 cores").with_tried("mnist", "ray", tried), file)
    assert read_tuned(file).best("mnist", "ray", (slow, fast)) == fast
    assert read_tuned(file).best("asl", "ray", (slow, fast)) == slow
    assert str(gone) == "2 workers, 1 thread, batches to 8, 1 ms"


def test_only_what_stands_between_the_markers_is_replaced() -> None:
    page = "before\n<!-- race: written by `make race`, do not edit -->\nold\n<!-- race: end -->\nafter\n"
    once = markers.replaced(page, "race", "make race", "new")
    assert once == "before\n<!-- race: written by `make race`, do not edit -->\n\nnew\n\n<!-- race: end -->\nafter\n"
    assert markers.replaced(once, "race", "make race", "new") == once
    with pytest.raises(ValueError, match="each once"):
        markers.replaced("no markers", "race", "make race", "new")


def test_a_tree_counts_what_left_it_too() -> None:
    code = "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(30)'], start_new_session=True)"
    environment = {**os.environ, "RACE_TEST": "7"}
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(30)"], env=environment) as server:
        subprocess.run([sys.executable, "-c", code], env=environment, check=True)
        members = process_tree.tree(server.pid, "RACE_TEST=7")
        try:
            assert len(members) == 2
            assert process_tree.pss_bytes(members) > 1_000_000
            assert set(process_tree.cpu_s(members)) == {member.pid for member in members}
        finally:
            for member in members:
                member.kill()


ANSWERS = """
import http.server, os, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200); self.end_headers(); self.wfile.write(bytes(32))
    def log_message(self, *_): pass
http.server.HTTPServer(("127.0.0.1", int(os.environ["RACE_PORT"])), Handler).serve_forever()
"""


def contender(code: str) -> Contender:
    def command(launch: Launch) -> list[str]:
        return [str(launch.python), "-c", code]

    return Contender("made-up", "Made up", "raw", command, lambda _: (Shape(),))


def test_a_server_that_ends_by_itself_says_why(tmp_path: Path) -> None:
    with (
        pytest.raises(StartError) as error,
        running(contender("import sys; sys.exit('no such model')"), Path(sys.executable), model(tmp_path), Shape()),
    ):
        pass
    assert str(error.value) == "it ended with exit code 1: no such model"


def test_a_server_that_answers_wrongly_is_out(tmp_path: Path) -> None:
    with (
        pytest.raises(wire.WrongAnswerError, match=r"to the published answer, more than 1\.0e-04"),
        running(contender(ANSWERS), Path(sys.executable), model(tmp_path), Shape()),
    ):
        pass


def test_the_block_shows_every_server_and_why_one_was_not_measured() -> None:
    race = script("benchmarks/race.py")
    report = sys.modules["peers.report"]
    setting = race._setting(race.this_machine())
    turns = [
        turn(name, number, {1: 100.0 * number, 8: 400.0, 32: 800.0}, startup_s=2.5)
        for name in CONTENDERS
        for number in (1, 2)
        if name != "ray"
    ]
    turns += [turn(IN_PROCESS, number, {1: 1000.0, 8: 2000.0, 32: 4000.0}) for number in (1, 2)]
    turns.append(turn("ray", 1, {}, failure="it ended with exit code 1: no file /somewhere/else/ray.py"))
    files = [
        FileTurn(photos="small", way=way, concurrency=8, round=1, window_s=1.0, images_per_s=rate)
        for way, rate in (("client reformats", 60), ("FastAPI + torchvision, 2 workers", 20))
    ]
    block = report.block(report.Race(setting=setting, turns=tuple(turns), files=tuple(files)))
    assert "| **Sightline** | 150 ± 33 | 400 ± 0 | 800 ± 0 |" in block
    assert "| MLP (`mnist`) | 8 | 0.20 (0.20 to 0.20) | 1.00 (1.00 to 1.00) |" in block
    assert "- Ray Serve, `mnist`: it ended with exit code 1: no file ray.py" in block
    assert "| small | client reformats | 60.0 ± 0, **3.00 ×** |" in block
    assert "n = 2 rounds, windows of 1 s" in block
    assert "/somewhere" not in block


def test_the_race_names_its_options() -> None:
    race = script("benchmarks/race.py")
    said = CliRunner().invoke(race.main, ["run", "--help"])
    assert said.exit_code == 0
    assert {"--model", "--peer", "--rounds", "--window"} <= set(said.output.split())
