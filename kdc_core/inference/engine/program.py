"""What must be known of an ONNX file before an engine is built from it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from kdc_core.inference.engine.messages import EngineError
from kdc_core.inference.manifest import Manifest, read_manifest


@dataclass(frozen=True)
class ProgramFile:
    """A program of ours.

    Attributes:
        path: of the ONNX file.
        sha256: of the whole file, weights and manifest included.
        manifest: what it says about itself.
    """

    path: Path
    sha256: str
    manifest: Manifest


def open_program(path: Path) -> ProgramFile:
    """Read an ONNX file of ours; whether its program is whole shows when it is built.

    Raises:
        EngineError: it cannot be read.
        ManifestError: not ours, cut short, or of another version.
    """
    manifest = read_manifest(path)
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise EngineError(f"cannot read '{path}': {error.strerror}") from error
    return ProgramFile(path, digest, manifest)
