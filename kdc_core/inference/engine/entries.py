"""What lies in a cache of engines: for listing, looking at one, and cleaning up."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from kdc_core.inference.engine.cache import EngineFile, open_entry
from kdc_core.inference.engine.key import why_not_here
from kdc_core.inference.engine.library import MODULES, Library, find_library
from kdc_core.inference.engine.lock import locked
from kdc_core.inference.engine.messages import EngineError

# Every file of ours: the name it belongs to, and what it is.
FILE = re.compile(
    r"([0-9a-f]{32,64})\.(?:lock|timing|(?:engine|json|[0-9a-f]+\.kernels)(?:\.bad)?)"
    r"|\.([0-9a-f]{32,64})\..+\.part"
)
LEFT = (".bad", ".part")
Libraries = Mapping[str, Library]


@dataclass(frozen=True)
class Entry:
    """One engine in the cache, right or not.

    Attributes:
        digest: its name.
        engine: None where it has no readable description.
        fault: why it would be refused; None = whole and unchanged.
        why_not_here: why it cannot run on this machine; None = nothing speaks against it.
    """

    digest: str
    engine: EngineFile | None
    fault: str | None
    why_not_here: str | None


def list_entries(folder: Path) -> list[Entry]:
    """Every engine of a folder, the newest first; each is read and checked."""
    found = {path.stem for end in ("json", "engine") for path in folder.glob(f"*.{end}")}
    installed = _installed()
    entries = [_entry(folder, digest, installed) for digest in found]
    return sorted(entries, key=lambda entry: (_age(folder, entry), entry.digest), reverse=True)


def find_entry(folder: Path, beginning: str) -> Entry:
    """The engine whose name begins so.

    Raises:
        EngineError: none does, or several do.
    """
    found = [entry for entry in list_entries(folder) if entry.digest.startswith(beginning)]
    if len(found) != 1:
        known = ", ".join(entry.digest[:12] for entry in found) or "none"
        raise EngineError(
            f"expected the beginning of one engine's name, as `kdc engine list` shows it, got "
            f"'{beginning}', which fits: {known}"
        )
    return found[0]


def clean(folder: Path, everything: bool = False) -> tuple[list[Path], list[Path]]:
    """Remove what cannot be used: what was set aside or left behind, and broken engines.

    Engines made by another version of an installed TensorRT go too: since an update they only
    take room. Files that are none of ours stay.

    Args:
        folder: of the cache.
        everything: remove whole engines and kept timings as well.

    Returns:
        Files removed, and lock files held by processes at work, whose engines were left alone.

    Raises:
        EngineError: the folder cannot be written to.
    """
    files: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        found = FILE.fullmatch(path.name)
        if found is not None and not path.is_dir():
            files.setdefault(found[1] or found[2], []).append(path)
    installed = _installed()
    removed, busy = [], []
    for digest, paths in files.items():
        lock = folder / f"{digest}.lock"
        try:
            with locked(lock, timeout_s=0):
                wanted = not everything and _is_wanted(folder, digest, installed)
                for path in paths:
                    if not wanted or path.name.endswith(LEFT):
                        path.unlink(missing_ok=True)
                        removed.append(path)
                if not wanted:
                    lock.unlink(missing_ok=True)
        except EngineError:
            busy.append(lock)
        except OSError as error:
            raise EngineError(f"cannot clean '{folder}': {error.strerror}") from error
    return removed, busy


def _is_wanted(folder: Path, digest: str, installed: Libraries) -> bool:
    if (folder / f"{digest}.timing").exists():
        return True
    entry = _entry(folder, digest, installed)
    if entry.engine is None or entry.fault is not None:
        return False
    key = entry.engine.sidecar.key
    library = installed.get(key.family)
    return library is None or library.version == key.version


def _entry(folder: Path, digest: str, installed: Libraries) -> Entry:
    engine = None
    try:
        engine = open_entry(folder, digest)
        if engine is None:
            return Entry(digest, None, "it has no description", None)
        key = engine.sidecar.key
        if key.digest != digest:
            return Entry(digest, engine, "its description is of another engine", None)
        engine.read()
    except EngineError as error:
        return Entry(digest, engine, str(error), None)
    return Entry(digest, engine, None, why_not_here(key, installed.get(key.family)))


def _installed() -> Libraries:
    found: dict[str, Library] = {}
    for family in MODULES:
        try:
            found[family] = find_library(family)
        except EngineError:
            continue
    return found


def _age(folder: Path, entry: Entry) -> float:
    try:
        return (folder / f"{entry.digest}.engine").stat().st_mtime
    except OSError:
        return 0.0
