"""How many cores this process may use: its affinity, and the quotas of the control groups around it."""

import os
from pathlib import Path

import pytest

from sightline.host.cpu import usable_cores


@pytest.fixture(autouse=True)
def sixteen_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(16)), raising=False)


def cores_in(folder: Path, own: str, files: dict[str, str]) -> int:
    """Cores where /proc/self/cgroup says `own`, and /sys/fs/cgroup holds `files`."""
    for name, content in files.items():
        (folder / "cgroup" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "cgroup" / name).write_text(content)
    (folder / "self").write_text(own)
    return usable_cores(folder / "cgroup", folder / "self")


@pytest.mark.parametrize(
    ("own", "files", "cores"),
    [
        ("0::/\n", {"cpu.max": "400000 100000\n"}, 4),
        ("0::/\n", {"cpu.max": "max 100000\n"}, 16),
        ("0::/\n", {"cpu.max": "3200000 100000\n"}, 16),
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "50000 100000\n"}, 1),
        # The bound of a slice holds for what is in it; a container sees its own group as the root.
        ("0::/app.slice/job\n", {"app.slice/cpu.max": "200000 100000\n", "app.slice/job/cpu.max": "800000 100000\n"}, 2),
        ("0::/docker/4f2a\n", {"cpu.max": "300000 100000\n"}, 3),
        ("4:memory:/x\n3:cpu,cpuacct:/\n", {"cpu,cpuacct/cpu.cfs_quota_us": "200000\n", "cpu,cpuacct/cpu.cfs_period_us": "100000\n"}, 2),
        ("3:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 16),
        ("4:memory:/\n", {"memory/cpu.max": "100000 100000\n"}, 16),
        ("0::/../..\n", {"cpu.max": "what 100000\n"}, 16),
        ("nonsense", {"cpu.max": "0 0\n"}, 16),
        ("", {"cpu.max": "100000 100000\n"}, 16),
    ],
)
def test_a_quota_bounds_the_cores(tmp_path: Path, own: str, files: dict[str, str], cores: int) -> None:
    assert cores_in(tmp_path, own, files) == cores


def test_without_control_groups_the_affinity_counts(tmp_path: Path) -> None:
    assert usable_cores(tmp_path / "none", tmp_path / "missing") == 16
