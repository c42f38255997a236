"""A lock between processes that says when it is waited for."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from kdc_core.inference.engine.messages import CANCELLED, BuildCancelled, EngineError

WAITING = "waiting for another build"
POLL_S = 0.1
READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)
# Told what a build does: phase, steps done, steps in all (0 = unknown).
BuildProgress = Callable[[str, int, int], None]


def ignore(phase: str, done: int, total: int) -> None:
    """No progress is wanted."""


def never() -> bool:
    """Nobody cancels."""
    return False


@contextlib.contextmanager
def locked(
    path: Path,
    timeout_s: float,
    progress: BuildProgress = ignore,
    cancelled: Callable[[], bool] = never,
) -> Iterator[None]:
    """Hold a lock file; the kernel frees it when its holder dies, however it dies.

    In a folder that this user can only read, nobody of this user writes: where there is no lock
    file, none is needed.

    Args:
        path: the lock file, made if absent.
        timeout_s: how long to wait for another holder; 0 = not at all.
        progress: told WAITING while another holds it.
        cancelled: asked while waiting.

    Raises:
        EngineError: another process still holds it, or the folder cannot be used.
        BuildCancelled: cancelled.
    """
    deadline = time.monotonic() + timeout_s
    while (file := _open(path)) is not None:
        try:
            _wait(file, path, deadline, progress, cancelled)
            # Whoever cleans the cache removes lock files that it holds: the name must still
            # mean the file that was locked.
            if _is_at(file, path):
                yield
                return
        finally:
            os.close(file)
    yield


def _open(path: Path) -> int | None:
    flags = os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        return os.open(path, flags | os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        if error.errno not in READ_ONLY:
            raise EngineError(f"cannot lock '{path}': {error.strerror}") from error
    try:
        return os.open(path, flags | os.O_RDONLY)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise EngineError(f"cannot lock '{path}': {error.strerror}") from error


def _wait(
    file: int, path: Path, deadline: float, progress: BuildProgress, cancelled: Callable[[], bool]
) -> None:
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            pass
        except OSError as error:
            raise EngineError(f"cannot lock '{path}': {error.strerror}") from error
        if cancelled():
            raise BuildCancelled(CANCELLED)
        if time.monotonic() >= deadline:
            raise EngineError(f"another process still holds '{path}': {WAITING} took too long")
        progress(WAITING, 0, 0)
        time.sleep(POLL_S)


def _is_at(file: int, path: Path) -> bool:
    try:
        named = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(os.fstat(file), named)
