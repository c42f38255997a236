"""Kernels that TensorRT-RTX compiles when an engine first runs, kept beside the engine.

They are code for one GPU and driver, and come and go under the engine's lock. Without them an
engine takes longer to start, and that is all: what is wrong with their file is said and no error.
"""

from __future__ import annotations

import hashlib
import logging
import os
from pathlib import Path
from typing import Any

from kdc_core.inference.engine.folder import check_trusted, make_part, publish
from kdc_core.inference.engine.messages import EngineError

log = logging.getLogger(__name__)
CHECKSUM = hashlib.sha256().digest_size


class Kernels:
    """The kernels of one engine, from their file into TensorRT-RTX and back.

    The file is `<digest>.<digest of the driver>.kernels`: a SHA-256, then what TensorRT-RTX gave.

    Args:
        engine: file of the engine.
        driver: its versions; kernels of another are not looked at.
    """

    def __init__(self, engine: Path, driver: str):
        digest = hashlib.sha256(driver.encode()).hexdigest()[:16]
        self.path = engine.with_suffix(f".{digest}.kernels")
        self._kept = b""
        self._cache: Any = None

    def give_to(self, config: Any) -> None:
        """Let a runtime configuration begin with the kernels kept, and gather further ones."""
        cache = config.create_runtime_cache()
        if cache is None:
            return
        kept = self._read()
        if kept and not cache.deserialize(kept):
            self._set_aside("TensorRT-RTX does not take them")
        else:
            self._kept = kept
        if config.set_runtime_cache(cache):
            self._cache = cache

    def keep(self) -> None:
        """Write the kernels, once the engine has run, if there are any new ones."""
        blob = None if self._cache is None else self._cache.serialize()
        content = b"" if blob is None else bytes(memoryview(blob))
        if not content or content == self._kept:
            return
        try:
            part = make_part(self.path.parent, self.path.stem)
            try:
                part.write_bytes(hashlib.sha256(content).digest() + content)
                publish(part, self.path)
            finally:
                part.unlink(missing_ok=True)
        except (EngineError, OSError) as error:
            log.info(
                "kernels of TensorRT-RTX are not kept, and compiled again next time: %s", error
            )

    def _read(self) -> bytes:
        try:
            check_trusted(self.path)
            content = self.path.read_bytes()
        except FileNotFoundError:
            return b""
        except (EngineError, OSError) as error:
            log.warning("kernels of TensorRT-RTX are not read: %s", error)
            return b""
        if hashlib.sha256(content[CHECKSUM:]).digest() != content[:CHECKSUM]:
            self._set_aside("their content was changed after it was written")
            return b""
        return content[CHECKSUM:]

    def _set_aside(self, why: str) -> None:
        aside = self.path.with_name(f"{self.path.name}.bad")
        log.warning("kernels refused (%s), kept as '%s': compiling anew", why, aside)
        try:
            os.replace(self.path, aside)
        except OSError:
            return
