"""What an ONNX file says of itself, read without loading it and without any library."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

# Fields of ONNX's ModelProto, OperatorSetIdProto and StringStringEntryProto, and protobuf's kinds
# of values.
IR_VERSION, OPSET_IMPORT, METADATA = 1, 8, 14
OPSET_DOMAIN, OPSET_VERSION = 1, 2
ENTRY_KEY, ENTRY_VALUE = 1, 2
VARINT, EIGHT_BYTES, BYTES, FOUR_BYTES = 0, 1, 2, 5


def read_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """The metadata of an ONNX file; all else is skipped.

    Raises:
        OSError: it cannot be read.
        EOFError, ValueError: it is no whole ONNX file.
    """
    metadata = {}
    with open(path, "rb") as file:
        for field, kind, length in _fields(file, Path(path).stat().st_size):
            if field == METADATA and kind == BYTES:
                entry = {}
                for part, inner, size in _fields(file, file.tell() + length):
                    if inner != BYTES:
                        raise ValueError(f"byte {file.tell()} is no text of its metadata")
                    entry[part] = file.read(size).decode()
                metadata[entry.get(ENTRY_KEY, "")] = entry.get(ENTRY_VALUE, "")
    return metadata


def why_not_run(path: Path, library: str, error: Exception) -> str:
    """What to tell of a file that `read_metadata` could read and a library refuses.

    Args:
        path: the ONNX file.
        library: that refused it, with its version.
        error: what it raised; told whole, for the cause may stand at its end.
    """
    try:
        with open(path, "rb") as file:
            needed = _read_needed(file, path.stat().st_size)
    except (OSError, EOFError, ValueError):
        needed = "what cannot be read of it"
    return (
        f"'{path}' is not an ONNX file that can be run here. It needs {needed}; found {library}, "
        f"which says: {error}. If that is too old for the file, install a later one"
    )


def _read_needed(file: BinaryIO, end: int) -> str:
    """The versions of a ModelProto and of its operators."""
    ir_version, operators = 0, []
    for field, kind, number in _fields(file, end):
        if field == IR_VERSION:
            ir_version = number
        elif field == OPSET_IMPORT and kind == BYTES:
            domain, version = "ai.onnx", 0
            for part, inner, value in _fields(file, file.tell() + number):
                if part == OPSET_DOMAIN and inner == BYTES and value:
                    domain = file.read(value).decode()
                elif part == OPSET_VERSION:
                    version = value
            operators.append(f"{domain} {version}")
    return f"IR version {ir_version} and the operators of {', '.join(operators)}"


def _fields(file: BinaryIO, end: int) -> Iterator[tuple[int, int, int]]:
    """Number, kind, and value or length in bytes of each protobuf field from here to `end`.

    The bytes of a field may be read, or not, before the next is asked for.
    """
    while file.tell() < end:
        tag = _read_varint(file)
        field, kind = tag >> 3, tag & 7
        length = {EIGHT_BYTES: 8, FOUR_BYTES: 4}.get(kind)
        if kind in (VARINT, BYTES):
            length = _read_varint(file)
        if length is None or field == 0:
            raise ValueError(f"byte {file.tell()} is no field of it")
        stop = file.tell() + (0 if kind == VARINT else length)
        if stop > end:
            raise EOFError(f"it ends at byte {end}, in the middle")
        yield field, kind, length
        file.seek(stop)


def _read_varint(file: BinaryIO) -> int:
    value = 0
    for shift in range(0, 64, 7):
        byte = file.read(1)
        if not byte:
            raise EOFError("it ends in the middle")
        value |= (byte[0] & 127) << shift
        if byte[0] < 128:
            return value
    raise ValueError("a number in it has no end")
