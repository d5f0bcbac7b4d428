"""From a JPEG file to its answer, three ways over the same files: our client reformats, `<model>_image` reformats, or FastAPI does it with
torchvision's transforms, as teams write it.

wrk uploads the files to the two servers that reformat, so that their clients cost next to nothing; our client is a Python process that
reads the files, and shares the cores.
"""

import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Final

import click
import numpy as np
import psutil

from peers import results, wrk
from peers.contenders import CONTENDERS, OURS, SERVERS, Candidates, Contender, Launch, uvicorn
from peers.models import Model, Probabilities, draw_photos
from peers.process import running
from peers.race import FAILURES, Folders, Say, Settings, order, python_for
from peers.results import FileTurn
from peers.shapes import Shape
from peers.wire import BINARY_HEADER, Line, Request, WrongAnswerError
from sightline import Classifier
from sightline.errors import SightlineError

PHOTOS: Final = {"photos of 2 megapixels": (1600, 1200), "thumbnails, 320 × 240": (320, 240)}
"""What the files are called → width and height."""
FILES: Final = 24
MODEL: Final = "fruit"
CONCURRENCIES: Final = (1, 8, 32)
CLIENT, STREAM, IMAGE = "client reformats", "client reformats, `stream`", "`fruit_image` reformats"
TRANSFORMS: Final = {"FastAPI + torchvision, 1 worker": Shape(pool=2), "FastAPI + torchvision, 2 workers": Shape(workers=2, pool=1)}
WAYS: Final = (CLIENT, STREAM, IMAGE, *TRANSFORMS)
RESIZE, CROP = 256, 224
"""Of torchvision's IMAGENET1K_V1 weights, as the card has them too."""
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BOUNDARY: Final = "sightline-race-boundary"


@dataclass(frozen=True)
class Files:
    """Photos, and the answers of the published preprocessing and model to them."""

    name: str
    paths: Sequence[Path]
    answers: Probabilities


def run(model: Model, settings: Settings, folders: Folders, file: Path, say: Say) -> None:
    """Measure what `file` does not hold yet."""
    done = {(turn.photos, turn.way, turn.round) for turn in results.read(file)[1]}
    for name, size in PHOTOS.items():
        todo = [
            (number, way) for number in range(1, settings.rounds + 1) for way in order(WAYS, number - 1) if (name, way, number) not in done
        ]
        if not todo:
            continue
        paths = draw_photos(folders.build / "photos" / f"{size[0]}x{size[1]}", FILES, size)
        files = Files(name, paths, expected(model, paths))
        for number, way in todo:
            for turn in list(turns_of(way, files, model, settings, folders)):  # all of a way or none: a run may be stopped
                results.append(file, turn.model_copy(update={"round": number}))
                say(f"{name}, round {number}, {way}, {turn.concurrency}: {turn.failure or f'{turn.images_per_s:,.1f} images/s'}")


def expected(model: Model, paths: Sequence[Path]) -> Probabilities:
    """Answer each file with the published preprocessing and the published file, in this process."""
    import onnxruntime

    from sightline.reformatting import reformat
    from sightline.repository.read import model_named

    spec = model_named(model.repository, model.kind.name).card.preprocess
    session = onnxruntime.InferenceSession(model.onnx, providers=["CPUExecutionProvider"])
    return np.concatenate([session.run([model.output], {model.input: reformat(path, spec)[None]})[0] for path in paths])


def turns_of(way: str, files: Files, model: Model, settings: Settings, folders: Folders) -> Iterator[FileTurn]:
    """Measure one way at each concurrency; what goes wrong stands in a turn."""
    turn = FileTurn(photos=files.name, way=way, concurrency=0, round=0, window_s=settings.window_s)
    try:
        if way in TRANSFORMS:
            yield from _uploaded(turn, _transforms(), TRANSFORMS[way], replace(model, onnx=_float_model(model, folders)), files, folders)
        elif way == IMAGE:
            yield from _uploaded(turn, CONTENDERS[OURS], Shape(), model, files, folders)
        else:
            yield from _from_client(turn, model, files, folders)
    except (*FAILURES, SightlineError) as error:
        yield turn.model_copy(update={"failure": str(error) or type(error).__name__})


def _uploaded(turn: FileTurn, contender: Contender, shape: Shape, model: Model, files: Files, folders: Folders) -> Iterator[FileTurn]:
    """Let wrk upload the files as they are."""
    multipart = contender.name not in CONTENDERS
    asked = [_multipart(path.read_bytes()) if multipart else _encoded(model, path.read_bytes()) for path in files.paths]
    first = asked[0] if multipart else None
    with running(contender, python_for(contender, folders), model, shape, first) as server:
        line = Line(server.port, 60)
        answers = np.stack([line.ask("raw" if multipart else "v2", one) for one in asked])
        line.close()
        off = float(np.abs(answers - files.answers).max())
        if not multipart and not off <= model.tolerance:
            raise WrongAnswerError(f"|Δp| {off:.1e} to the published answer")
        wrk.load(server.port, asked, CONCURRENCIES[-1], 1.0)
        for concurrency in CONCURRENCIES:
            before = server.cpu_s()
            load = wrk.load(server.port, asked, concurrency, turn.window_s)
            spent_s = _spent_s(before, server.cpu_s())
            yield turn.model_copy(
                update={
                    "concurrency": concurrency,
                    "images_per_s": load.per_s,
                    "cpu_ms": spent_s * 1000 / load.requests,
                    "largest_difference": off,
                }
            )


def _from_client(turn: FileTurn, model: Model, files: Files, folders: Folders) -> Iterator[FileTurn]:
    """Our client in a process of its own, over gRPC."""
    contender = CONTENDERS[OURS]
    with running(contender, python_for(contender, folders), model, Shape()) as server, tempfile.TemporaryDirectory() as scratch:
        url = f"grpc://127.0.0.1:{server.grpc_port}"
        with Classifier(model.kind.name, url) as classifier:
            off = float(np.abs(classifier.probabilities(list(files.paths)) - files.answers).max())
        if not off <= model.tolerance:
            raise WrongAnswerError(f"|Δp| {off:.1e} to the published answer")
        listed = Path(scratch) / "files"
        listed.write_text("\n".join(map(str, files.paths)), encoding="utf-8")
        for concurrency in CONCURRENCIES if turn.way == CLIENT else CONCURRENCIES[-1:]:
            before = server.cpu_s()
            command = [sys.executable, "-m", "peers.end_to_end", url, model.kind.name, str(listed)]
            command += ["--threads", str(concurrency if turn.way == CLIENT else 0), "--seconds", str(turn.window_s)]
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=turn.window_s + 120, cwd=SERVERS.parents[1])
            if done.returncode:
                raise RuntimeError(f"the client: {' '.join(done.stderr.split())[-300:]}")
            images, seconds, client_s = json.loads(done.stdout)
            spent_s = _spent_s(before, server.cpu_s()) + client_s
            yield turn.model_copy(
                update={
                    "concurrency": concurrency,
                    "images_per_s": images / seconds,
                    "cpu_ms": spent_s * 1000 / images,
                    "largest_difference": off,
                }
            )


def _spent_s(before: dict[int, float], after: dict[int, float]) -> float:
    return sum(seconds - before.get(pid, 0.0) for pid, seconds in after.items())


def _transforms() -> Contender:
    """FastAPI with torchvision's transforms."""
    candidates: Candidates = lambda _: tuple(TRANSFORMS.values())  # noqa: E731

    def command(launch: Launch) -> list[str]:
        return uvicorn(launch, "transforms_server:app")

    variables = {"RACE_RESIZE": str(RESIZE), "RACE_CROP": str(CROP)}
    return Contender("transforms", "FastAPI + torchvision", "raw", command, candidates, environment="transforms", variables=variables)


def _float_model(model: Model, folders: Folders) -> Path:
    """Cut the published graph behind its normalisation: float32 [N, 3, H, W] in, as a network of torch has it.

    Raises RuntimeError if what is left does not give the published answers.
    """
    import onnx
    import onnxruntime
    from onnx.utils import extract_model

    file = folders.build / "float" / f"{model.kind.name}-{model.sha256[:12]}.onnx"
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        whole = onnx.load(model.onnx)
        weights = {tensor.name for tensor in whole.graph.initializer}
        first = next(node for node in whole.graph.node if node.op_type == "Conv")
        tensor = next(name for name in first.input if name not in weights)
        for node in whole.graph.node:
            if node.op_type == "Shape" and list(node.input) == [model.input]:
                node.input[0] = tensor  # how many images there are, which both say first
        prepared = file.with_suffix(".whole")
        onnx.save(whole, prepared)
        extract_model(str(prepared), str(file), [tensor], [model.output], check_model=False)
        prepared.unlink()
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    normalised = ((model.pixels / 255 - np.array(MEAN)) / np.array(STD)).transpose(0, 3, 1, 2).astype(np.float32)
    off = float(np.abs(session.run(None, {session.get_inputs()[0].name: normalised})[0] - model.answers).max())
    if not off <= model.tolerance:
        raise RuntimeError(f"the network behind its normalisation is another one: |Δp| {off:.1e}")
    return file


def _multipart(content: bytes) -> Request:
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="photo.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'
    body = head.encode() + content + f"\r\n--{BOUNDARY}--\r\n".encode()
    return Request("/predict", {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}, body)


def _encoded(model: Model, content: bytes) -> Request:
    """Ask `<model>_image` about one file, in V2's binary extension: a BYTES element has its length before it.

    The JSON is filled up with spaces: wrk sends one header for all files.
    """
    element = len(content).to_bytes(4, "little") + content
    tensor = {"name": "pictures", "datatype": "BYTES", "shape": [1, 1], "parameters": {"binary_data_size": len(element)}}
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode().ljust(192)
    headers = {"Content-Type": "application/octet-stream", BINARY_HEADER: str(len(head))}
    return Request(f"/v2/models/{model.kind.name}_image/infer", headers, head + element)


@click.command()
@click.argument("url")
@click.argument("model")
@click.argument("listed", type=click.Path(exists=True, path_type=Path))
@click.option("--threads", type=click.IntRange(0), help="That ask about one file each; 0 streams all files.")
@click.option("--seconds", type=float)
def main(url: str, model: str, listed: Path, threads: int, seconds: float) -> None:
    """Label files again and again; print images, seconds, and CPU seconds."""
    paths = [Path(line) for line in listed.read_text(encoding="utf-8").splitlines()]
    with Classifier(model, url) as classifier:
        ask = _streaming(classifier, paths) if not threads else _one_by_one(classifier, paths, threads)
        ask(min(1.0, seconds))
        process = psutil.Process()
        before, began_s = process.cpu_times(), time.perf_counter()
        images = ask(seconds)
        spent_s, after = time.perf_counter() - began_s, process.cpu_times()
    click.echo(json.dumps([images, spent_s, after.user + after.system - before.user - before.system]))


def _one_by_one(classifier: Classifier, paths: Sequence[Path], threads: int) -> Callable[[float], int]:
    def ask(seconds: float) -> int:
        until_s, numbers, counts = time.monotonic() + seconds, count(), [0] * threads

        def work(place: int) -> None:
            while time.monotonic() < until_s:
                classifier.classify(paths[next(numbers) % len(paths)])
                counts[place] += 1

        workers = [threading.Thread(target=work, args=(place,)) for place in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        return sum(counts)

    return ask


def _streaming(classifier: Classifier, paths: Sequence[Path]) -> Callable[[float], int]:
    def ask(seconds: float) -> int:
        until_s = time.monotonic() + seconds

        def endless() -> Iterator[Path]:
            for number in count():
                if time.monotonic() > until_s:
                    return
                yield paths[number % len(paths)]

        return sum(1 for _ in classifier.stream(endless()))

    return ask


if __name__ == "__main__":
    main()
