"""The client that somebody writes in an afternoon, with tritonclient and Pillow alone: what `scripts/bench_clients.py` is held against.

    python scripts/afternoon_loop.py MODEL FOLDER OUT.csv --mode L --size 28 28 --batch 32 --threads 1 [--url localhost:8001] [--http]

Its preprocessing is written a second time, as everybody's is, and it takes every file for an image. It imports nothing of Sightline.
"""

import argparse
import csv
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image


def main() -> None:
    """Label every file of the folder."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--mode", default="RGB")
    parser.add_argument("--size", type=int, nargs=2, default=(224, 224), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--url", default="localhost:8001")
    parser.add_argument("--http", action="store_true")
    options = parser.parse_args()

    if options.http:
        import tritonclient.http as triton

        client = triton.InferenceServerClient(options.url, concurrency=options.threads)
    else:
        import tritonclient.grpc as triton

        client = triton.InferenceServerClient(options.url)

    def read(path: Path) -> "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]":
        image = Image.open(path).convert(options.mode)
        pixels = np.asarray(image.resize((options.size[1], options.size[0]), Image.Resampling.BILINEAR))
        return pixels[..., None] if options.mode == "L" else pixels

    def label(paths: list[Path]) -> list[tuple[str, int, float]]:
        pixels = np.stack([read(path) for path in paths])
        tensor = triton.InferInput("pixels", list(pixels.shape), "UINT8")
        tensor.set_data_from_numpy(pixels)
        answer = client.infer(options.model, [tensor]).as_numpy("probabilities")
        return [(path.name, int(row.argmax()), float(row.max())) for path, row in zip(paths, answer, strict=True)]

    paths = sorted(options.folder.iterdir())
    batches = [paths[start : start + options.batch] for start in range(0, len(paths), options.batch)]
    with options.out.open("w", newline="") as file:
        writer = csv.writer(file)
        if options.threads == 1:
            for batch in batches:
                writer.writerows(label(batch))
        else:
            with ThreadPoolExecutor(options.threads) as pool:
                for rows in pool.map(label, batches):
                    writer.writerows(rows)


if __name__ == "__main__":
    main()
