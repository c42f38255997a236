"""Timings of kernels, kept between builds of full TensorRT: the next build measures less."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from kdc_core.inference.engine.folder import make_part, publish
from kdc_core.inference.engine.key import Key
from kdc_core.inference.engine.lock import locked

TIMEOUT_S = 60


def timing_path(folder: Path, key: Key) -> Path:
    """The cache of timings for this TensorRT and GPU."""
    text = "\n".join((key.family, key.version, str(key.gpu), str(key.capability)))
    return folder / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.timing"


def start_timing(config: Any, path: Path) -> None:
    """Let a build begin with the timings kept; those that are refused count as none."""
    cache = config.create_timing_cache(_read(path))
    if cache is None or not config.set_timing_cache(cache, False):
        config.set_timing_cache(config.create_timing_cache(b""), False)


def keep_timing(config: Any, path: Path) -> None:
    """Add the timings of a build to those kept, which another build may have changed since."""
    cache = config.get_timing_cache()
    if cache is None:
        return
    with locked(path.with_suffix(".lock"), TIMEOUT_S):
        kept = config.create_timing_cache(_read(path))
        if kept is not None:
            cache.combine(kept, False)
        part = make_part(path.parent, path.stem)
        try:
            part.write_bytes(cache.serialize())
            publish(part, path)
        finally:
            part.unlink(missing_ok=True)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # timings only save time: none is better than no engine
        return b""
