"""How the C library's allocator treats large buffers, Python's collector many objects, and how
much untrusted data may take."""

from __future__ import annotations

import ctypes
import gc
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Parameters of mallopt, from glibc's malloc.h.
M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3
MIB = 1 << 20


def keep_freed_memory(limit_mib: int = 256) -> bool:
    """Let glibc keep freed image and tensor buffers for the next frame or step.

    Otherwise each large buffer goes back to the kernel when it is freed, and fetching it again
    costs more than filling it.

    Args:
        limit_mib: how much may be kept; below 2048.

    Returns:
        Whether it took effect; False where there is no glibc.
    """
    try:
        libc = ctypes.CDLL(None)
        libc.gnu_get_libc_version  # noqa: B018 -- other C libraries may have an empty mallopt
        kept = libc.mallopt(M_MMAP_THRESHOLD, 32 * MIB)
        return bool(libc.mallopt(M_TRIM_THRESHOLD, limit_mib * MIB) and kept)
    except (AttributeError, OSError, TypeError):
        return False


@contextmanager
def without_collection() -> Iterator[None]:
    """Keep the garbage collector from looking, again and again, through what a file is read into.

    None of them is garbage, and its share of the time grows with their number.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@contextmanager
def limited_growth(most: int) -> Iterator[None]:
    """Have what takes much more memory than there is now fail, also within a library.

    For libraries that unpack untrusted data without a bound. It holds for all threads.

    Args:
        most: bytes of address space that may be taken.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = _address_space() + most
    if soft != resource.RLIM_INFINITY:
        limit = min(limit, soft)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _address_space() -> int:
    """Bytes that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
