"""Whether a publisher and this node can share memory.

Fast DDS keeps memory and ports of a process as files in /dev/shm that its own user alone may
write. Between two users images come late, in part, or never, without an error on either side.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

PORT_FILE = re.compile(r"fast(?:dds|rtps)_port(\d+)")
# RTPS: a domain's ports begin here, so many a domain.
FIRST_PORT, PORTS_PER_DOMAIN = 7400, 250
# In the identity that Fast DDS gives a process: its host, and the lower half of its number.
HOST, PID = slice(2, 4), slice(4, 6)


def other_users(
    publishers: list[bytes],
    own: bytes,
    domain: int,
    shm: Path = Path("/dev/shm"),
    proc: Path = Path("/proc"),
) -> list[int]:
    """Users with whom this process shares no memory, and one of whom publishes.

    Args:
        publishers: identity (gid) of each.
        own: identity of an endpoint of this process.
        domain: ROS_DOMAIN_ID.
        shm: folder of Fast DDS's files.
        proc: folder of the processes that are seen from here.

    Returns:
        Their numbers; empty where the publishers are ours or on other machines, where they or
        this process use no shared memory, and where it cannot be known.
    """
    ports = list(_ports(domain, shm))
    owners = _owners(ports)
    here = [gid for gid in publishers if gid[HOST] == own[HOST]]
    seen = [_owners(_processes(gid, proc)) for gid in here]
    ours = all(os.getuid() in users for users in seen)
    if ours or os.getuid() not in owners:
        return []
    # A publisher in another container has a number that says nothing here: it may be any process
    # that listens, also another of this user.
    if not all(seen) and _others_of_this_user(ports):
        return []
    return sorted(owners - {os.getuid()})


def _ports(domain: int, shm: Path) -> Iterator[Path]:
    """Files of the domain's ports that a process has open; a killed one leaves its files."""
    first = FIRST_PORT + PORTS_PER_DOMAIN * domain
    for path in shm.glob("fast*_port*"):
        found = PORT_FILE.fullmatch(path.name)
        if found and 0 <= int(found[1]) - first < PORTS_PER_DOMAIN:
            if _is_locked(path.with_name(f"{path.name}_el")):
                yield path


def _others_of_this_user(ports: Iterable[Path]) -> bool:
    """Whether another process of this user has a port; this one has the files of its own open."""
    opened = set()
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # gone meanwhile
            opened.add(os.readlink(descriptor))
    return any(
        os.getuid() in _owners([path]) and str(path.with_name(f"{path.name}_el")) not in opened
        for path in ports
    )


def _is_locked(path: Path) -> bool:
    try:
        with open(path) as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:  # locked, or not ours to look at
        return True
    return False


def _processes(gid: bytes, proc: Path) -> Iterator[Path]:
    """Those whose number ends as the identity says."""
    wanted = int.from_bytes(gid[PID], "little")
    for path in proc.glob("[0-9]*"):
        if int(path.name) % (1 << 16) == wanted:
            yield path


def _owners(paths: Iterable[Path]) -> set[int]:
    owners = set()
    for path in paths:
        with suppress(FileNotFoundError):  # gone meanwhile
            owners.add(path.stat().st_uid)
    return owners
