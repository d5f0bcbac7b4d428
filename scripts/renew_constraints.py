"""Renews constraints.txt: the exact versions of everything that the tests run with.

    python scripts/renew_constraints.py [--keep]

One file for Python 3.11 and 3.12, for CPUs and for GPUs, and for the base install on Python 3.13. `--keep` resolves what is new and
leaves every other version as it is. It holds no address of an index.
"""

import subprocess
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
UV: Final = Path(sys.executable).with_name("uv")
OPENING: Final = (
    "# The exact versions that the tests ran with: everything on Python 3.11 and 3.12, the base install on 3.13 too."
    " Renew with: make constraints"
)
BOUND_TO_NUMPY_1: Final = "numpy"
"""Triton's wheel wants numpy 1 and is for Python before 3.13; from 3.13 on there is only numpy 2."""


def main(*, keep: bool) -> None:
    """Resolve for each Python and extra, one after the other, each within what the ones before it gave."""
    target, scratch = ROOT / "constraints.txt", ROOT / ".venv" / "constraints.txt"
    before = target.read_text(encoding="utf-8").splitlines()
    versions = dict(_pairs([line for line in before if ";" not in line])) if keep else {}
    uv = [line for line in before if line.startswith("uv==")]
    for python, extra in (("3.11", "all"), ("3.11", "all-gpu"), ("3.12", "all"), ("3.12", "all-gpu")):
        scratch.write_text("".join(f"{name}=={version}\n" for name, version in versions.items()), encoding="utf-8")
        versions |= _resolved(
            python, ["--extra", extra, "--extra", "s3", "--extra", "gs", "--group", f"{ROOT / 'pyproject.toml'}:dev"], scratch
        )
    others = {name: version for name, version in versions.items() if name != BOUND_TO_NUMPY_1}
    scratch.write_text("".join(f"{name}=={version}\n" for name, version in others.items()), encoding="utf-8")
    newest = _resolved("3.13", [], scratch)
    lines = [f"{name}=={version}" for name, version in versions.items() if name not in (BOUND_TO_NUMPY_1, "uv")]
    lines += [f"{BOUND_TO_NUMPY_1}=={versions[BOUND_TO_NUMPY_1]} ; python_version < '3.13'"]
    lines += [f"{BOUND_TO_NUMPY_1}=={newest[BOUND_TO_NUMPY_1]} ; python_version >= '3.13'"]
    lines += [f"{name}=={version}" for name, version in newest.items() if name not in versions]
    target.write_text("\n".join([OPENING, *sorted({*lines, *uv})]) + "\n", encoding="utf-8")


def _resolved(python: str, more: list[str], constraints: Path) -> dict[str, str]:
    command: list[str | Path] = [UV, "pip", "compile", "--quiet", "--no-header", "--no-annotate", "--python-version", python]
    done = subprocess.run(
        [*command, "--constraints", constraints, *more, ROOT / "pyproject.toml"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"error: nothing fits together for Python {python} {' '.join(more)}:\n{done.stderr}")
    return dict(_pairs(done.stdout.splitlines()))


def _pairs(lines: list[str]) -> list[tuple[str, str]]:
    return [(name.strip(), version.split(";")[0].strip()) for name, _, version in (line.partition("==") for line in lines) if version]


if __name__ == "__main__":
    main(keep="--keep" in sys.argv[1:])
