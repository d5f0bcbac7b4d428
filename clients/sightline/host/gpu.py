"""What this machine's NVIDIA driver and TensorRT library say of themselves: asked of the libraries, in a process that ends with the answer.

A CUDA context does not survive a fork, and TensorRT's library is half a gigabyte: neither belongs into the process that asks.
"""

import json
import mmap
import platform
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypedDict, cast

from sightline.errors import MachineError

TIMEOUT_S: Final = 120.0
MOST_GPUS: Final = 64
DRIVER_FILES: Final = (Path("/sys/module/nvidia/version"), Path("/proc/driver/nvidia/version"))
"""Where Linux's kernel module tells its version; containers see the same files."""

ASK_DRIVER: Final = """
import ctypes, json, sys
try:
    cuda = ctypes.CDLL("libcuda.so.1")
except OSError:
    sys.exit("there is no NVIDIA driver on this machine (libcuda.so.1 is missing)")
def ask(name, *arguments):
    failed = getattr(cuda, name)(*arguments)
    if failed:
        text = ctypes.c_char_p()
        cuda.cuGetErrorName(failed, ctypes.byref(text))
        sys.exit(f"the NVIDIA driver shows no GPU ({name}: {(text.value or b'').decode() or failed})")
number, name, gpus = ctypes.c_int(), ctypes.create_string_buffer(256), []
def asked(function, *more):
    ask(function, ctypes.byref(number), *more)
    return number.value
ask("cuInit", 0)
version = asked("cuDriverGetVersion")
for index in range(asked("cuDeviceGetCount")):
    device = asked("cuDeviceGet", index)
    ask("cuDeviceGetName", name, 256, device)
    # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR (cuda.h)
    gpus.append([name.value.decode(), f"{asked('cuDeviceGetAttribute', 75, device)}.{asked('cuDeviceGetAttribute', 76, device)}"])
print(json.dumps({"cuda": f"{version // 1000}.{version % 1000 // 10}", "gpus": gpus}))
"""

ASK_LIBRARY: Final = """
import ctypes, json, sys
try:
    library = ctypes.CDLL(sys.argv[1])
    print(json.dumps(".".join(str(getattr(library, f"getInferLib{part}Version")()) for part in ("Major", "Minor", "Patch", "Build"))))
except (OSError, AttributeError) as error:
    sys.exit(f"the TensorRT library {sys.argv[1]} does not tell its version ({error})")
"""


@dataclass(frozen=True)
class Gpu:
    """One GPU: its name, and its compute capability such as `9.0`."""

    name: str
    compute_capability: str


@dataclass(frozen=True)
class Machine:
    """The part of a fingerprint that all GPUs and libraries of a machine share, and its GPUs."""

    system: str
    driver: str
    cuda: str
    gpus: tuple[Gpu, ...]
    """Those that CUDA_VISIBLE_DEVICES shows, in CUDA's order; one at least."""


class _DriverAnswer(TypedDict):
    """What ASK_DRIVER prints."""

    cuda: str
    gpus: list[tuple[str, str]]


def machine(environment: Mapping[str, str] | None = None) -> Machine:
    """Ask the NVIDIA driver, as a program with these environment variables sees it. Raises MachineError if there is no driver or no GPU."""
    answer = cast("_DriverAnswer", _ask(ASK_DRIVER, environment))
    gpus = tuple(Gpu(*gpu) for gpu in answer["gpus"][:MOST_GPUS])
    if not gpus:
        raise MachineError("the NVIDIA driver shows no GPU")
    return Machine(f"{platform.system()} {platform.machine()}", driver_version(), answer["cuda"], gpus)


def driver_version(files: tuple[Path, ...] = DRIVER_FILES) -> str:
    """Return the version of the kernel's NVIDIA driver, `590.48.01`. Raises MachineError if no file tells it."""
    for file in files:
        try:
            with file.open(encoding="utf-8", errors="replace") as text:
                version = re.search(r"(?<![\d.])\d{3,4}\.\d{1,4}(\.\d{1,4})?(?![\d.])", text.read(4096))
        except OSError:
            continue
        if version:
            return version[0]
    raise MachineError(f"the version of the NVIDIA driver stands in none of {', '.join(map(str, files))}")


def tensorrt_version(library: str, environment: Mapping[str, str] | None = None) -> str:
    """Return all four numbers of the TensorRT library `library`, a name or path. Raises MachineError if it does not load or tell them."""
    return str(_ask(ASK_LIBRARY, environment, library))


def needed_library(file: Path, stem: str) -> str | None:
    """Return the library called `stem`.so.<number> that the ELF file names as needed, such as `libnvinfer.so.11`. Raises OSError."""
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content:
        name = re.search(rb"\0(" + re.escape(stem).encode() + rb"\.so\.\d{1,4})\0", content)
        return name[1].decode() if name else None


def _ask(code: str, environment: Mapping[str, str] | None, *arguments: str) -> object:
    """Run our own `code` in a Python of its own, and read the JSON that it prints."""
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", code, *arguments],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIMEOUT_S,
            check=False,
            env=None if environment is None else dict(environment),
        )
        if done.returncode == 0:
            return json.loads(done.stdout)
    except (subprocess.TimeoutExpired, ValueError):
        raise MachineError("the NVIDIA libraries of this machine did not answer: does nvidia-smi work?") from None
    lines = done.stderr.strip().splitlines()
    raise MachineError(lines[-1][:300] if lines else f"asking the NVIDIA libraries ended with exit code {done.returncode}")


def main(arguments: list[str]) -> None:
    """Print the version of the TensorRT that the ELF file `arguments[0]` would load: what docker/Dockerfile.finalize asks."""
    try:
        name = needed_library(Path(arguments[0]), "libnvinfer")
        version = None if name is None else tensorrt_version(name)
    except (MachineError, OSError) as error:
        sys.exit(f"error: {error}")
    if version is None:
        sys.exit(f"error: {arguments[0]} needs no TensorRT")
    print(version)


if __name__ == "__main__":
    main(sys.argv[1:])
