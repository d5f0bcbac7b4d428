"""The base install needs nothing that only Linux has: its modules are imported, and used, where all of that is taken away."""

import json
import subprocess
import sys
from pathlib import Path

from PIL import Image

from support.readme import ROOT

# What macOS or Windows lack. The libraries below us are imported before: they have code of their own for each system.
WITHOUT_UNIX = """
import asyncio, concurrent.futures.thread, csv, ctypes, multiprocessing, shutil, subprocess, tempfile
import click, gevent, gevent.ssl, grpc, numpy, PIL.Image, pydantic, rich.console, rich.progress
import google.protobuf.text_format, tritonclient.grpc, tritonclient.http, tritonclient.grpc.model_config_pb2
import os, signal, sys

class Refused:
    def find_spec(self, name, path=None, target=None):
        if name in MODULES:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

MODULES = ("fcntl", "resource", "termios", "grp", "pwd", "_posixsubprocess")
for name in MODULES:
    sys.modules.pop(name, None)
sys.meta_path.insert(0, Refused())
for name in ("O_NONBLOCK", "O_NOFOLLOW", "O_DIRECTORY", "O_CLOEXEC", "sched_getaffinity", "fork", "killpg", "geteuid", "getuid"):
    delattr(os, name)
del signal.SIGKILL
"""

EVERY_MODULE = """
import importlib, json, pkgutil
import sightline
names = sorted(module.name for module in pkgutil.walk_packages(sightline.__path__, "sightline."))
for name in names:
    importlib.import_module(name)
print(json.dumps(names))
"""

AT_WORK = """
import json, pathlib, sys
from sightline import Classifier, ImageError, MachineError, reformat
from sightline.host import cache, cpu, files, gpu
from sightline.scoring import score
from sightline.testing import FakeTransport
from support.fake_network import brightest, card

folder = pathlib.Path(sys.argv[1])
with Classifier("colours", transport=FakeTransport(card(), brightest)) as classifier:
    labels = [guess.label for guess in classifier.classify([folder / "blue.png", (folder / "red.png").read_bytes()])]
    summary = score(classifier, folder, folder / "rows.csv")
refusal = None
try:
    reformat(folder / "text.png", card().preprocess)
except ImageError as error:
    refusal = str(error)
files.write_atomically(folder / "a.txt", "whole")
files.write_new(folder / "b.txt", b"new")
files.sync_folder(folder)
try:
    gpu.driver_version((folder / "none",))
except MachineError as error:
    driver = str(error)
print(json.dumps({
    "labels": labels, "rows": [summary.rows, summary.broken], "refusal": refusal, "driver": driver,
    "shape": reformat(folder / "red.png", card().preprocess).shape, "text": files.read_text(folder / "a.txt", 10),
    "instructions": cpu.integer_instructions(folder / "none"), "cores": cpu.usable_cores() > 0,
    "cache": str(cache.cache_folder("plans")),
}))
"""


def printed_by(code: str, *arguments: str) -> object:
    command = [sys.executable, "-W", "error::DeprecationWarning:sightline", "-c", WITHOUT_UNIX + code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, cwd=ROOT / "tests")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_every_module_of_sightline_is_imported_without_what_only_linux_has() -> None:
    names = printed_by(EVERY_MODULE)
    assert isinstance(names, list)
    assert {"sightline.in_triton", "sightline.host.gpu", "sightline.repository.publish", "sightline.commands.score"} <= set(names)
    sources = {path.stem for path in (ROOT / "clients" / "sightline").rglob("*.py")} - {"__init__"}
    assert {name.rpartition(".")[2] for name in names} >= sources


def test_the_sdk_reformats_classifies_and_scores_without_what_only_linux_has(tmp_path: Path) -> None:
    for colour in ("red", "blue"):
        Image.new("RGB", (9, 9), colour).save(tmp_path / f"{colour}.png")
    (tmp_path / "text.png").write_text("no image")
    assert printed_by(AT_WORK, str(tmp_path)) == {
        "labels": ["blue", "red"],
        "rows": [3, 1],
        "refusal": f"{tmp_path}/text.png: not an image in a format that is read here (JPEG, PNG, WEBP, GIF, BMP, TIFF, PPM, AVIF, HEIC)",
        "shape": [8, 6, 3],
        "text": "whole",
        "instructions": [],
        "cores": True,
        "cache": str(Path.home() / ".cache" / "sightline" / "plans"),
        "driver": f"the version of the NVIDIA driver stands in none of {tmp_path}/none",
    }
