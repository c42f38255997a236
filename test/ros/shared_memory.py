"""What processes have in /dev/shm, where Fast DDS keeps their ports and messages."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

# A file of shared memory and its inode: a port that is freed is soon another's, of the same name.
SharedFile = tuple[Path, int]


def files_of(pid: int) -> set[SharedFile]:
    """Files in /dev/shm that a process has mapped, with their inodes."""
    lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    fields = [line.split(maxsplit=5) for line in lines]
    return {
        (Path(parts[5]), int(parts[4]))
        for parts in fields
        if len(parts) == 6 and parts[5].startswith("/dev/shm/")
    }


def all_files() -> set[SharedFile]:
    """Files that /dev/shm holds, whoever made them."""
    with os.scandir("/dev/shm") as entries:
        return {(Path(entry.path), entry.inode()) for entry in entries}


def files_in_use() -> set[SharedFile]:
    """Files in /dev/shm that some process has mapped."""
    used: set[SharedFile] = set()
    for entry in Path("/proc").iterdir():
        # Processes end meanwhile, and another user's are not shown.
        with suppress(FileNotFoundError, ProcessLookupError, PermissionError):
            if entry.name.isdecimal():
                used |= files_of(int(entry.name))
    return used
