"""The folder of engines. An engine is code that will run, so nobody else may write to it."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

from kdc_core.inference.engine.messages import EngineError

OTHERS = stat.S_IWGRP | stat.S_IWOTH


def default_folder() -> Path:
    """Where engines are kept unless told otherwise: in the user's cache folder.

    Raises:
        EngineError: this user has none.
    """
    from platformdirs import user_cache_path

    path = user_cache_path("kdc") / "engines"
    if not path.is_absolute():  # a user without a home
        raise EngineError("this user has no cache folder: name a folder for the engines")
    return path


def open_folder(path: Path, create: bool) -> Path:
    """The folder, to be trusted.

    Args:
        path: it.
        create: make it if it is absent, for this user alone.

    Raises:
        EngineError: it cannot be made, or others may write to it.
    """
    path = path.expanduser().absolute()
    try:
        if create:
            for part in (*reversed(path.parents), path):  # a mode is for the last made alone
                part.mkdir(mode=0o700, exist_ok=True)
        path = Path(os.path.realpath(path, strict=True))  # of links in a circle an OSError
        if not path.is_dir():
            raise EngineError(f"'{path}' is no folder: name a folder for the engines")
    except FileExistsError as error:
        raise EngineError(
            f"'{error.filename}' is no folder: name a folder for the engines"
        ) from error
    except FileNotFoundError as error:
        raise EngineError(f"there is no folder of engines '{path}'") from error
    except OSError as error:
        raise EngineError(
            f"cannot use the folder of engines '{path}': {error.strerror}"
        ) from error
    check_trusted(path)
    for parent in path.parents:
        mode = parent.stat().st_mode
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            raise EngineError(
                f"everybody may write to '{parent}', and so exchange the folder of engines "
                f"'{path}': name another folder"
            )
    return path


def check_trusted(path: Path) -> None:
    """Refuse what another user may write to.

    Raises:
        EngineError: it belongs to another user, or its mode lets others write.
    """
    status = path.stat()
    if status.st_uid not in (0, os.getuid()):
        raise EngineError(
            f"'{path}' belongs to user {status.st_uid}, who could exchange an engine, which is "
            f"code that runs here as user {os.getuid()}: name a folder of your own"
        )
    if status.st_mode & OTHERS:
        raise EngineError(
            f"others may write to '{path}', and an engine is code that runs here: name a folder "
            f"of your own, or take their right away (chmod go-w '{path}')"
        )


def make_part(folder: Path, name: str) -> Path:
    """An empty file of its own in the folder, to be filled and then published.

    Raises:
        EngineError: the folder cannot be written to.
    """
    try:
        file, part = tempfile.mkstemp(prefix=f".{name}.", suffix=".part", dir=folder)
    except OSError as error:
        raise EngineError(f"cannot write to '{folder}': {error.strerror}") from error
    os.close(file)
    return Path(part)


def publish(part: Path, path: Path) -> None:
    """Give a part its name, after its content is on the disk."""
    os.chmod(part, 0o644)
    sync(part)
    os.replace(part, path)
    sync(path.parent)


def sync(path: Path) -> None:
    """Let a file's content, or a folder's names, outlive a power cut."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)
