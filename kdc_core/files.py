"""Files written whole or not at all."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from kdc_core.errors import KdcError

LONGEST_NAME = 255  # bytes
Json = TypeVar("Json")


@contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Write to the yielded path; it becomes `path` only when the block ends without error.

    The content is on the disk before the name is: a power cut leaves the old or the new file.
    """
    path = Path(path)
    part = part_of(path)
    try:
        yield part
        with open(part, "rb") as file:
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        raise KdcError(f"cannot write '{path}': {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            part.unlink()


def part_of(path: Path) -> Path:
    """Where this process writes a file before it has its name: beside it, hidden, of the same
    suffix."""
    end = f".{os.getpid()}.part{path.suffix}"
    return path.with_name(f".{shortened(path.stem, f'.{end}')}{end}")


def shortened(stem: str, others: str) -> str:
    """A stem cut so that it and the rest of a name are no more than a file system takes."""
    room = LONGEST_NAME - len(os.fsencode(others))
    return os.fsdecode(os.fsencode(stem)[: max(1, room)])


def as_utf8(name: str) -> str:
    """A file's name as text that can be written everywhere: what is no UTF-8 in it as escapes."""
    return name.encode("utf-8", "backslashreplace").decode()


def crc32_of(path: str | os.PathLike[str]) -> str:
    """Eight hexadecimal digits by which a file's content is known again.

    Raises:
        KdcError: it cannot be read.
    """
    value = 0
    try:
        with open(path, "rb") as file:
            while part := file.read(1 << 24):
                value = zlib.crc32(part, value)
    except OSError as error:
        raise KdcError(f"cannot read '{path}': {error.strerror}") from error
    return f"{value:08x}"


def read_json(path: Path, otherwise: Json) -> Json:
    """What a JSON file holds; `otherwise` where it is absent, damaged or of another type."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return otherwise
    return content if isinstance(content, type(otherwise)) else otherwise


def write_json(path: str | os.PathLike[str], content: Any) -> None:
    """Write JSON, whole or not at all."""
    with whole_file(path) as part:
        part.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
