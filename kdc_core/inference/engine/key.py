"""What an engine was made of and for: its name in the cache, and the file beside it."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kdc_core.inference.engine.driver import Gpu, find_gpu, find_gpus, in_words
from kdc_core.inference.engine.library import Family, Library
from kdc_core.inference.engine.messages import BrokenEngine, EngineError
from kdc_core.inference.engine.program import ProgramFile
from kdc_core.inference.engine.shapes import Shapes
from kdc_core.inference.manifest import Precision

SCHEMA = 1
LEVEL = 3  # builder_optimization_level, TensorRT's own default
WORKSPACE_MIB = 1024
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Capability = Annotated[str, Field(pattern=r"^\d+\.\d$")]


@dataclass(frozen=True)
class Target:
    """What an engine is built for: the GPU at hand, or only a compute capability.

    Attributes:
        capability: such as `8.9`.
        gpu: None where the capability alone was named, with no GPU at hand.
    """

    capability: str
    gpu: Gpu | None = None

    @classmethod
    def named(cls, capability: str) -> Target:
        """A compute capability with no GPU at hand.

        Raises:
            EngineError: it is not written as one.
        """
        if not re.fullmatch(r"\d+\.\d", capability):
            raise EngineError(f"expected a compute capability such as 8.9, got '{capability}'")
        return cls(capability)

    @classmethod
    def at_hand(cls, index: int = 0) -> Target:
        """The GPU of this number in this machine.

        Raises:
            EngineError: as `find_gpu`.
        """
        gpu = find_gpu(index)
        return cls(gpu.capability, gpu)


class Key(BaseModel):
    """Everything that decides whether an engine is the wanted one.

    Attributes:
        schema_number: of this class.
        onnx_sha256: of the program's file.
        family, version: of the TensorRT that builds and runs it.
        gpu, memory_gib: name and memory of the GPU; None with `target`.
        capability: of the GPU; None with `target`.
        target: compute capability named instead of a GPU; None with `gpu`.
        precision: of the program's network.
        shapes: frames it takes.
        level: of the builder's search for fast kernels.
        workspace_mib: most GPU memory the builder may lend one layer.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_number: int = Field(SCHEMA, ge=SCHEMA, le=SCHEMA)
    onnx_sha256: Sha256
    family: Family
    version: str
    gpu: str | None = None
    memory_gib: int | None = None
    capability: Capability | None = None
    target: Capability | None = None
    precision: Precision
    shapes: Shapes
    level: int = LEVEL
    workspace_mib: int = WORKSPACE_MIB

    @classmethod
    def of(cls, program: ProgramFile, shapes: Shapes, target: Target, library: Library) -> Key:
        """The key of the engine these make."""
        gpu = target.gpu
        where: dict[str, Any] = (
            {"target": target.capability}
            if gpu is None
            else {
                "gpu": gpu.name,
                "memory_gib": gpu.memory_gib,
                "capability": gpu.capability,
            }
        )
        return cls(
            onnx_sha256=program.sha256,
            family=library.family,
            version=library.version,
            precision=program.manifest.precision,
            shapes=shapes,
            **where,
        )

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON: the engine's name in the cache."""
        return _digest(self.model_dump(mode="json", exclude_none=True))

    @property
    def place(self) -> str:
        """The GPU or target in words."""
        if self.gpu is None or self.capability is None or self.memory_gib is None:
            return f"target {self.target}"
        return in_words(self.gpu, self.capability, self.memory_gib)

    def differences(self, other: Key) -> list[str]:
        """Names of the fields that differ."""
        mine, theirs = self.model_dump(), other.model_dump()
        return [name for name in mine if mine[name] != theirs[name]]


class Sidecar(BaseModel):
    """What lies beside an engine, as `<digest>.json`.

    Attributes:
        key: of the engine, in clear.
        model: name of the program's file, for people.
        engine_sha256, engine_bytes: of the engine's file.
        header: its first bytes, hexadecimal.
        build_seconds: how long the build took.
        workspace_mib: what the builder was given, after a look at free memory.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    key: Key
    model: str
    engine_sha256: Sha256
    engine_bytes: int = Field(ge=1)
    header: str
    build_seconds: float = Field(ge=0)
    workspace_mib: int

    def to_json(self) -> str:
        """With a checksum of its own content."""
        content = self.model_dump(mode="json", exclude_none=True)
        return json.dumps({**content, "sha256": _digest(content)}, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> Sidecar:
        """Read what `to_json` wrote.

        Raises:
            BrokenEngine: it is not that, or was changed since.
        """
        try:
            content = json.loads(text)
            written = content.pop("sha256")
            whole = written == _digest(content)
            sidecar = cls.model_validate(content)
        except (
            *(ValidationError, ValueError, KeyError, AttributeError, TypeError),
            RecursionError,  # brackets in brackets
        ) as error:
            raise BrokenEngine(
                f"its description is not one that this version writes: {str(error)[:200]}"
            ) from error
        if not whole:
            raise BrokenEngine("its description was changed after it was written")
        return sidecar


def why_not_here(key: Key, library: Library | None = None) -> str | None:
    """Why an engine cannot run on this machine; None = nothing speaks against it.

    Args:
        key: of the engine.
        library: the TensorRT here of its family, if there is one.
    """
    if library is None or library.family != key.family:
        return f"{key.family} is not usable here"
    if library.version != key.version:
        return f"made by {key.family} {key.version}, installed is {library.version}"
    try:
        here = [gpu.place for gpu in find_gpus()]
    except EngineError as error:
        return str(error)
    if key.target is not None:
        return (
            f"made for target {key.target} without a GPU: on this {here[0]} build it anew, "
            "without --target"
        )
    if key.place not in here:
        return f"made for {key.place}, here is {' and '.join(dict.fromkeys(here))}"
    return None


def _digest(content: object) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
