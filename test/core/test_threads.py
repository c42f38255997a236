"""How many threads a runtime gets: quotas of control groups, and cores."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest

from kdc_core.inference.runtimes.threads import cpu_quota, default_threads


def _machine(root: Path, group: str, files: dict[str, str]) -> Path:
    for path, text in {"proc/self/cgroup": group, **files}.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    return root


@pytest.mark.parametrize(
    ("group", "files", "quota"),
    [
        ("0::/\n", {}, math.inf),
        ("0::/\n", {"sys/fs/cgroup/cpu.max": "max 100000\n"}, math.inf),
        ("0::/\n", {"sys/fs/cgroup/cpu.max": "150000 100000\n"}, 1.5),
        ("0::/a/b\n", {"sys/fs/cgroup/a/cpu.max": "50000 100000\n"}, 0.5),
        ("0::/../x\n", {"sys/fs/cgroup/cpu.max": "50000 100000\n"}, 0.5),
        (
            "0::/a/b\n",
            {
                "sys/fs/cgroup/a/cpu.max": "300000 100000\n",
                "sys/fs/cgroup/a/b/cpu.max": "max 100000\n",
            },
            3.0,
        ),
        (
            "5:memory:/m\n4:cpu,cpuacct:/docker/1\n",
            {
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "200000\n",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
            },
            2.0,
        ),
        (
            "4:cpu:/\n",
            {
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            math.inf,
        ),
    ],
)
def test_the_quota_of_control_groups(
    group: str, files: dict[str, str], quota: float, tmp_path: Path
) -> None:
    assert cpu_quota(_machine(tmp_path, group, files)) == quota


@pytest.mark.parametrize(("quota", "cores", "threads"), [(150, 8, 2), (50, 8, 1), (900, 8, 4)])
def test_threads_are_limited_by_quota_and_cores(
    quota: int, cores: int, threads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = _machine(tmp_path, "0::/\n", {"sys/fs/cgroup/cpu.max": f"{quota}000 100000\n"})
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(cores)))
    assert default_threads(root) == threads
    assert cpu_quota(tmp_path / "nothing") == math.inf
