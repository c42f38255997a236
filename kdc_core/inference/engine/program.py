"""What must be known of an ONNX file before an engine is built from it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from kdc_core.inference.engine.messages import EngineError
from kdc_core.inference.manifest import OUTPUTS, Manifest, read_manifest


@dataclass(frozen=True)
class ProgramFile:
    """A program of ours, read and checked.

    Attributes:
        path: of the ONNX file.
        sha256: of the whole file, weights and manifest included.
        manifest: what it says about itself.
        frame: height and width written into it; None = free.
    """

    path: Path
    sha256: str
    manifest: Manifest
    frame: tuple[int | None, int | None]

    @property
    def precision(self) -> str:
        """Of its network: it lives in the file, not in the builder."""
        return str(getattr(self.manifest, "precision", "fp32"))


def open_program(path: Path) -> ProgramFile:
    """Read an ONNX file of ours.

    Raises:
        EngineError: no such file, or no ONNX.
        ManifestError: not ours, or of another version.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise EngineError(f"cannot read '{path}': {error.strerror}") from error
    session = _session(content, path)
    manifest = read_manifest(session.get_modelmeta().custom_metadata_map, str(path))
    inputs = [(i.name, i.type, i.shape) for i in session.get_inputs()]
    outputs = tuple(o.name for o in session.get_outputs())
    if [i[:2] for i in inputs] != [("frame", "tensor(uint8)")] or outputs != OUTPUTS:
        raise EngineError(
            f"'{path}': expected the input 'frame' (uint8) and the outputs {OUTPUTS}, got "
            f"{[i[0] for i in inputs]} and {outputs}: export it again"
        )
    height, width = (side if isinstance(side, int) else None for side in inputs[0][2][:2])
    return ProgramFile(path, hashlib.sha256(content).hexdigest(), manifest, (height, width))


def _session(content: bytes, path: Path):  # type: ignore[no-untyped-def]  # untyped library
    """An ONNX Runtime session, only to be asked; nothing is optimized."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises classes of its own for every cause
        raise EngineError(
            f"'{path}' is not an ONNX file, or was cut short: {str(error)[:200]}"
        ) from error
