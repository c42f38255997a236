"""ONNX Runtime on the CPU: the default, needs no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from kdc_core.inference.assembly import Raw
from kdc_core.inference.manifest import OUTPUTS, read_manifest
from kdc_core.inference.runtimes.protocol import UnusableRuntime

SPIN_US = 100
BOUNDED_SPIN_SINCE = (1, 26)


def make_session(model: str | bytes, threads: int) -> Any:
    """Open an ONNX file or its bytes with the options used everywhere.

    Threads spin for SPIN_US at most: the next of hundreds of operators mostly comes within that
    time, and waking a thread takes longer than it runs. On a robot whose cores are busy, threads
    that spin on take them from others and slow the program itself.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    version = tuple(int(part) for part in onnxruntime.__version__.split(".")[:2])
    spin = version >= BOUNDED_SPIN_SINCE  # older versions would spin without end
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spin)))
    options.add_session_config_entry("session.intra_op.spin_duration_us", str(SPIN_US))
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


class OnnxRuntime:
    """A program in ONNX Runtime's CPU provider."""

    name = "onnxruntime"

    def __init__(self, path: Path, device: str, threads: int):
        if device not in ("auto", "cpu"):
            raise UnusableRuntime(
                f"onnxruntime runs on the CPU here; got device '{device}': use cpu, or "
                "runtime 'torch' for CUDA"
            )
        if path.suffix != ".onnx":
            raise UnusableRuntime(f"onnxruntime needs an .onnx file, got '{path}'")
        try:
            self._session = make_session(str(path), threads)
        except Exception as error:  # onnxruntime raises classes of its own for every cause
            raise UnusableRuntime(
                f"'{path}' is not an ONNX file that can be run: {str(error)[:300]}"
            ) from error
        metadata = self._session.get_modelmeta().custom_metadata_map
        self.manifest = read_manifest(metadata, str(path))
        self._threads = threads
        got = (
            [(i.name, i.type) for i in self._session.get_inputs()],
            [o.name for o in self._session.get_outputs()],
        )
        if got != ([("frame", "tensor(uint8)")], list(OUTPUTS)):
            raise UnusableRuntime(
                f"'{path}': expected the input 'frame' (uint8) and the outputs {OUTPUTS}, "
                f"got {got}: export it again"
            )

    def describe(self) -> dict[str, str]:
        import onnxruntime

        return {
            "runtime": self.name,
            "runtime_version": onnxruntime.__version__,
            "device": "cpu",
            "precision": "fp32",
            "threads": str(self._threads),
        }

    def run(self, frame: np.ndarray) -> Raw:
        return Raw(*self._session.run(list(OUTPUTS), {"frame": frame}))

    def close(self) -> None:
        del self._session
