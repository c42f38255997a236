"""A node in a process of its own, as on a robot."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest

STOP_TIMEOUT_S = 20.0


class NodeProcess:
    """The process of a node, and what it writes.

    Args:
        process: runs already.
        log_file: takes its output.
    """

    def __init__(self, process: subprocess.Popen[str], log_file: Path):
        self.process, self._log_file = process, log_file

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def runs(self) -> bool:
        return self.process.poll() is None

    @property
    def log(self) -> str:
        """All that it has written so far."""
        return self._log_file.read_text()

    def assert_ends_well(self, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """Within a time in which nothing can hang, with exit code 0 and nothing to complain of."""
        try:
            code = self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            pytest.fail(f"still there {timeout_s} s after the signal")
        assert code == 0, self.log
        assert "Traceback" not in self.log


Start: TypeAlias = Callable[..., NodeProcess]  # of what follows --ros-args, and `command`
