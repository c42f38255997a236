"""How many CPU threads a runtime may use."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

MOST = 4


def default_threads(root: Path = Path("/")) -> int:
    """CPU threads used unless told otherwise: the cores this process may use, at most MOST.

    They are limited by its affinity and, in a container, by the CPU time of its control groups:
    threads beyond that only wait for each other.

    Args:
        root: where /proc and /sys are.
    """
    cores = float(len(os.sched_getaffinity(0)))
    return max(1, min(MOST, math.ceil(min(cores, cpu_quota(root)))))


def cpu_quota(root: Path = Path("/")) -> float:
    """CPU seconds a second that this process's control groups allow; infinite without limit.

    Args:
        root: where /proc and /sys are.
    """
    return min(_quotas(root), default=math.inf)


def _quotas(root: Path) -> Iterator[float]:
    """The limit of every control group that the process is in, of version 1 and 2."""
    groups = root / "sys" / "fs" / "cgroup"
    for line in _read(root / "proc" / "self" / "cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        places = [groups] if not controllers else [groups / "cpu", groups / controllers]
        # A container may see the path of its host; its own limits are then at the top.
        inner = [Path(path).relative_to("/"), *Path(path).relative_to("/").parents]
        for folder in (place / part for place in places for part in inner):
            used, _, period = _read(folder / "cpu.max").strip().partition(" ")
            if not used:
                used = _read(folder / "cpu.cfs_quota_us").strip()
                period = _read(folder / "cpu.cfs_period_us").strip()
            if used.isdecimal() and period.isdecimal() and int(period):
                yield int(used) / int(period)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""
