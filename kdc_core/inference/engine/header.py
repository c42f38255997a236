"""The first bytes of an engine, for a good message; the guard is the checksum.

TensorRT-RTX 1.7.1 writes: 0-3 magic, 16-23 size of the file, 24-27 version. Full TensorRT is said
to write the same with another magic, which nobody here has seen: so a file's header is held
against the one recorded when the engine was made, and its meaning only says what differs.
"""

from __future__ import annotations

from kdc_core.inference.engine.messages import BrokenEngine

LENGTH = 28
MAGIC = {b"ftrt": "TensorRT", b"vtrt": "TensorRT-RTX"}


def check_header(plan: bytes, header: str, length: int) -> None:
    """Compare an engine with what was recorded of it.

    Args:
        plan: the whole file.
        header: its first LENGTH bytes when it was made, hexadecimal.
        length: bytes it had.

    Raises:
        BrokenEngine: says what it is instead.
    """
    try:
        recorded = bytes.fromhex(header)
    except ValueError as error:
        raise BrokenEngine("its description has a header that is not hexadecimal") from error
    if plan[:4] != recorded[:4]:
        if plan[:4] in MAGIC:
            raise BrokenEngine(f"engine made by {MAGIC[plan[:4]]}, another kind of TensorRT")
        raise BrokenEngine(
            "not a TensorRT engine, or another tool put data in front of it: it begins with "
            f"{plan[:8]!r}"
        )
    if len(plan) != length:
        raise BrokenEngine(f"engine of {len(plan)} bytes, {length} were written")
    if plan[24:LENGTH] != recorded[24:LENGTH]:
        raise BrokenEngine(
            f"engine made by version {_version(plan)}, expected {_version(recorded)}"
        )


def _version(plan: bytes) -> str:
    return ".".join(map(str, plan[24:LENGTH]))
