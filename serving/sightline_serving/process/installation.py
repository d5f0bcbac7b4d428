"""Finds the tritonserver of this machine, and prepares what it needs to serve ONNX models: NVIDIA's container, else the PyPI wheel.

A `tritonserver` on PATH is taken to be a container's and is trusted with its own backends. The wheel's (nvidia-pytriton) has the
Python backend only: a backend folder is put together in which our `backend/` stands in for the C++ ONNX Runtime backend.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final

from sightline.errors import ServerStartError

CONTAINER: Final = "nvcr.io/nvidia/tritonserver:26.07-py3"
WHEEL: Final = "nvidia-pytriton"
STUB: Final = "triton_python_backend_stub"
OUR_BACKEND: Final = Path(__file__).resolve().parents[1] / "backend" / "model.py"
PYTHON: Final = f"{sys.version_info.major}.{sys.version_info.minor}"


@dataclass(frozen=True)
class Installation:
    """A tritonserver: its binary, its backends, and the folders of libraries that it needs besides the system's."""

    binary: Path
    backends: Path
    libraries: tuple[Path, ...]
    stub: Path
    """What runs Python-based backends, built for this Python."""
    bundled: bool
    """Whether it is the wheel's: Triton 2.51 (24.10), not for use beyond this machine."""

    @property
    def origin(self) -> str:
        """Its name in a sentence."""
        return f"the {WHEEL} wheel" if self.bundled else str(self.binary)

    def environment(self) -> dict[str, str]:
        """Return the environment variables that it runs with."""
        variables = dict(os.environ)
        folders = [*map(str, self.libraries), *filter(None, [variables.get("LD_LIBRARY_PATH")])]
        if folders:
            variables["LD_LIBRARY_PATH"] = os.pathsep.join(folders)
        # Triton's Python worker uses the site-packages of the first `python3` on PATH, whatever PYTHONPATH says.
        variables["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), variables.get("PATH", os.defpath)])
        return variables


def find_triton(repository: Path) -> Installation:
    """Return the tritonserver on PATH, else the one in the nvidia-pytriton wheel.

    Raises ServerStartError, which says how to serve `repository` with NVIDIA's container, if there is neither, or if the wheel's cannot
    work with what is installed beside it.
    """
    wheel = _wheel()
    on_path = shutil.which("tritonserver")
    if on_path:
        binary = Path(on_path).resolve()
        if wheel is None or binary != wheel.binary.resolve():
            backends = binary.parent.parent / "backends"
            return Installation(binary, backends, (), backends / "python" / STUB, bundled=False)
    if wheel is None:
        raise ServerStartError(
            "there is no tritonserver on PATH and none in this Python: pip install 'sightline[serve]', or run NVIDIA's container: "
            f"docker run --rm --init -p 127.0.0.1:8000:8000 -p 127.0.0.1:8001:8001 -v {repository.resolve()}:/models:ro {CONTAINER} "
            "tritonserver --model-repository=/models --disable-auto-complete-config"
        )
    numpy = version("numpy")
    if int(numpy.partition(".")[0]) > 1:
        # Seen with numpy 2.5.2: it starts, is ready, and answers every request with an array of no numbers.
        raise ServerStartError(f"the wheel's Triton was made for numpy 1, and answers nothing with numpy {numpy}: pip install 'numpy<2'")
    return wheel


def prepare_backends(triton: Installation, folder: Path) -> Path:
    """Return the folder of backends to start `triton` with: its own, or one put together in `folder` if it cannot serve ONNX by itself.

    Raises ServerStartError if our Python backend is needed and cannot run in this Python.
    """
    if (triton.backends / "onnxruntime").is_dir():
        return triton.backends
    _check_python(triton)
    for backend in triton.backends.iterdir():
        # Triton refuses a library that a link leads out of its backend's folder, so these few are copied.
        if backend.name == "python":
            shutil.copytree(backend, folder / backend.name)
        else:
            (folder / backend.name).symlink_to(backend)
    shutil.copy(triton.stub, folder / "python" / STUB)
    (folder / "onnxruntime").mkdir()
    for file in OUR_BACKEND.parent.glob("*.py"):
        shutil.copy(file, folder / "onnxruntime")
    return folder


def _wheel() -> Installation | None:
    module = importlib.util.find_spec("pytriton")
    if module is None or module.origin is None:
        return None
    package = Path(module.origin).parent
    triton = package / "tritonserver"
    if not (triton / "bin" / "tritonserver").is_file():
        return None
    libraries = (package.parent / "nvidia_pytriton.libs", *_python_libraries())
    stub = triton / "python_backend_stubs" / PYTHON / STUB
    return Installation(triton / "bin" / "tritonserver", triton / "backends", libraries, stub, bundled=True)


def _python_libraries() -> list[Path]:
    """Where this Python's shared library may lie. A relocated build's own record (LIBDIR) can be wrong, so its prefix counts too."""
    candidates = [Path(str(sysconfig.get_config_var("LIBDIR") or "")), Path(sys.base_prefix) / "lib"]
    return [folder for folder in dict.fromkeys(candidates) if any(folder.glob(f"libpython{PYTHON}*.so*"))]


def _check_python(triton: Installation) -> None:
    if not triton.stub.is_file():
        raise ServerStartError(
            f"{triton.origin} has no Python worker for Python {PYTHON} ({triton.stub} is missing): use Python 3.11 or 3.12, "
            f"or NVIDIA's container {CONTAINER}"
        )
    if not (Path(sys.executable).parent / "python3").exists():
        raise ServerStartError(
            f"beside {sys.executable} there is no `python3`, by which Triton's worker finds its packages: make a virtual environment "
            "(python3 -m venv .venv) and install sightline[serve] there"
        )
    if importlib.util.find_spec("onnxruntime") is None:
        raise ServerStartError("onnxruntime is not installed in this Python: pip install 'sightline[serve]'")
    for name in _missing_libraries(triton):
        if name.startswith("libpython"):
            raise ServerStartError(
                f"{name} is missing: this Python ({sys.executable}) was built without its shared library, which Triton's worker needs. "
                f"Install it (Debian: apt install libpython{PYTHON}) or use a Python built with --enable-shared, "
                f"or NVIDIA's container {CONTAINER}"
            )
        raise ServerStartError(f"the system library {name}, which {triton.origin} needs, is missing: install the package that holds it")


def _missing_libraries(triton: Installation) -> list[str]:
    """Libraries that the loader itself cannot find: LD_TRACE_LOADED_OBJECTS makes it list them instead of run (ld.so(8), as ldd does)."""
    missing = []
    for program in (triton.stub, triton.binary):
        environment = {**triton.environment(), "LD_TRACE_LOADED_OBJECTS": "1"}
        try:
            trace = subprocess.run([program], env=environment, capture_output=True, text=True, errors="replace", timeout=60, check=False)
        except OSError as error:
            raise ServerStartError(
                f"{program} does not run on this machine ({error.strerror}): it is built for Linux with glibc, on another processor perhaps"
            ) from None
        missing += [line.split()[0] for line in trace.stdout.splitlines() if line.rstrip().endswith("not found")]
    return missing
