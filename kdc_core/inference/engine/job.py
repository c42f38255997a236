"""What the process that builds is told, and what it answers: one JSON line each."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from kdc_core.inference.engine.key import Key, Sha256


class Job(BaseModel):
    """One engine to build.

    Attributes:
        program: the ONNX file.
        key: of the engine.
        gpu: number of the GPU; None where the key names a target.
        part: file to write the engine to.
        timing: file of kept timings; None where they make no difference.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    program: Path
    key: Key
    gpu: int | None
    part: Path
    timing: Path | None


class Built(BaseModel):
    """An engine was written.

    Attributes:
        engine_sha256, engine_bytes: of what TensorRT gave.
        header: its first bytes, hexadecimal.
        build_seconds: how long TensorRT took.
        workspace_mib: what it was given.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    engine_sha256: Sha256
    engine_bytes: int
    header: str
    build_seconds: float
    workspace_mib: int


class Answer(BaseModel):
    """One line from the process that builds; exactly one of these is set.

    Attributes:
        progress: phase, steps done, steps in all.
        failed: why there is no engine.
        cancelled: it was told to stop, and did.
        built: there is an engine.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    progress: tuple[str, int, int] | None = None
    failed: str | None = None
    cancelled: bool = False
    built: Built | None = None
