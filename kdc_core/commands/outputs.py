"""What a command is asked to write is tried before its work, which may take hours."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

from kdc_core.errors import KdcError

PLOTS = (".png", ".svg")
IMAGES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")

Paths = Iterable[str | Path | None]


def check_outputs(
    files: Paths = (), plots: Paths = (), folders: Paths = (), inputs: Paths = ()
) -> None:
    """Refuse outputs that cannot be written, or that would overwrite an input.

    Nothing is left behind. None stands for what was not asked for.

    Args:
        files: to be written, each in a folder that is there.
        plots: files that must end in .png or .svg.
        folders: to be written into, and made where they are missing.
        inputs: files and folders that are read, however they are linked.

    Raises:
        KdcError: says which output, why, and what to do.
        ModuleNotFoundError: something is to be drawn, and matplotlib is not installed.
    """
    drawn, written, filled = (
        [Path(path) for path in paths if path is not None] for paths in (plots, files, folders)
    )
    for path in drawn:
        if path.suffix.lower() not in PLOTS:
            raise KdcError(f"cannot draw '{path}': expected a name ending in {' or '.join(PLOTS)}")
    if drawn:
        import matplotlib  # noqa: F401 -- better missed now than after the work
    for path in drawn + written:
        _try_file(path)
    for path in filled:
        _try_folder(path)
    read = {_identity(path): path for path in inputs if path is not None and os.path.exists(path)}
    for path in drawn + written + filled:
        # An image in a folder of inputs is an input; figures that an earlier run left are not.
        image = path.suffix.lower() in IMAGES and os.path.isfile(path)
        for place in (path, *Path(os.path.realpath(path)).parents) if image else (path,):
            if os.path.exists(place) and (source := read.get(_identity(place))) is not None:
                raise KdcError(
                    f"'{path}' would overwrite what is read from '{source}': choose another name"
                )
    names = [os.path.realpath(path) for path in drawn + written]
    for name in names:
        if names.count(name) > 1:
            raise KdcError(f"'{name}' is asked for twice: give each output a name of its own")


def check_suffix(output: Path, suffix: str) -> None:
    """Refuse a name by which what is written would not be known again."""
    if output.suffix != suffix:
        raise KdcError(f"cannot write '{output}': expected a name ending in {suffix}")


def _identity(path: str | Path) -> tuple[int, int]:
    """Of a file or folder, whatever links lead to it."""
    found = os.stat(path)
    return found.st_dev, found.st_ino


def _try_file(path: Path) -> None:
    # A link in /dev to an ordinary file would be replaced by a file.
    in_dev = path.absolute().parent == Path("/dev")
    if str(path) == "-":
        raise KdcError("cannot write '-': expected the name of a file; nothing goes to stdout")
    if in_dev or os.path.exists(path) and not os.path.isfile(path):
        raise KdcError(f"cannot write '{path}': expected a regular file")
    if not os.path.isdir(path.parent):
        raise KdcError(f"cannot write '{path}': there is no folder '{path.parent}', make it first")
    _try(path, path.parent, Path(path.name))


def _try_folder(path: Path) -> None:
    there = path.absolute()
    while not os.path.lexists(there):
        there = there.parent
    if not os.path.isdir(there):
        raise KdcError(f"cannot write into '{path}': '{there}' is not a folder")
    _try(path, there, path.absolute().relative_to(there) / "x")


def _try(output: Path, folder: Path, name: Path) -> None:
    """Write a file for a moment, of this name below a folder that is there."""
    try:
        with TemporaryDirectory(prefix=".kdc-", dir=folder) as place:
            (place / name.parent).mkdir(parents=True, exist_ok=True)
            (place / name).write_bytes(b"x")
    except (OSError, ValueError) as error:  # the latter: a NUL in the name
        reason = error.strerror if isinstance(error, OSError) else error
        raise KdcError(f"cannot write '{output}': {reason}") from error
