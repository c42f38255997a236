"""Whether a gif is cut off."""

from __future__ import annotations

from typing import BinaryIO

GIF = b"GIF8"
EXTENSION, IMAGE = b"\x21", b"\x2c"
TABLE = 0x80  # bit of the flags before a table of colors, whose size is in the last three


def is_cut(file: BinaryIO) -> bool:
    """Whether a gif ends within a block; between two, as where the mark of its end is left out, it
    does not say that anything is missing.

    Args:
        file: to be read; the blocks of images are skipped.
    """
    file.seek(10)  # past version, width and height
    flags = file.read(3)[:1]  # then background and aspect ratio
    _skip_table(file, flags)
    while mark := file.read(1):
        if mark == IMAGE:
            file.seek(8, 1)  # where it lies, and its size
            _skip_table(file, file.read(1))
        elif mark != EXTENSION:
            return False
        file.seek(1, 1)  # kind of the extension, or bits of the image's codes
        while (length := file.read(1)) != b"\0":
            if not length:
                return True
            file.seek(length[0], 1)
    return False


def _skip_table(file: BinaryIO, flags: bytes) -> None:
    bits = int.from_bytes(flags, "little")
    if bits & TABLE:
        file.seek(3 << ((bits & 7) + 1), 1)
