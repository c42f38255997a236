"""OpenVINO on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kdc_core.inference.assembly import Raw
from kdc_core.inference.manifest import OUTPUTS, read_file
from kdc_core.inference.runtimes.protocol import UnusableRuntime

if TYPE_CHECKING:
    from openvino import InferRequest

# So many sizes of frames get a program of their own, which is faster than one for all sizes but
# takes a second or more to compile; any further ones share one.
OWN_PROGRAMS = 3


class OpenVinoRuntime:
    """A program in OpenVINO's CPU plugin, computing in fp32 what the file does not quantize.

    Args:
        path: the .onnx file.
        device: `auto` or `cpu`.
        threads: CPU threads.

    Raises:
        UnusableRuntime: no OpenVINO, another device, or a file it cannot run.
    """

    name = "openvino"

    def __init__(self, path: Path, device: str, threads: int):
        if device not in ("auto", "cpu"):
            raise UnusableRuntime(f"openvino runs on the CPU here, got device '{device}': use cpu")
        if path.suffix != ".onnx":
            raise UnusableRuntime(f"openvino needs an .onnx file, got '{path}'")
        try:
            import openvino
        except ImportError as error:
            raise UnusableRuntime(
                f"openvino cannot be imported ({error}): pip install 'kdc_ros[openvino]'"
            ) from error
        self.manifest = read_file(path)
        self._path, self._threads = path, threads
        self._core = openvino.Core()
        self._programs: dict[tuple[int, int] | None, InferRequest] = {}
        try:
            model = self._core.read_model(path)
        except RuntimeError as error:
            raise UnusableRuntime(
                f"'{path}' is not an ONNX file that can be run: {str(error)[:300]}"
            ) from error
        got = [port.any_name for port in (*model.inputs, *model.outputs)]
        if got != ["frame", *OUTPUTS]:
            raise UnusableRuntime(
                f"'{path}': expected the input 'frame' and the outputs {OUTPUTS}, got {got}: "
                "export it again"
            )

    def describe(self) -> dict[str, str]:
        import openvino

        return {
            "runtime": self.name,
            "runtime_version": openvino.__version__,
            "device": "cpu",
            "precision": self.manifest.precision,
            "threads": str(self._threads),
        }

    def run(self, frame: np.ndarray) -> Raw:
        self.manifest.check_frame(frame)
        program = self._program((frame.shape[0], frame.shape[1]))
        program.infer({"frame": frame})
        return Raw(*(program.get_tensor(name).data.copy() for name in OUTPUTS))

    def _program(self, size: tuple[int, int]) -> InferRequest:
        """What executes frames of a size; compiled when such a frame first comes."""
        if size not in self._programs:
            key = size if len(self._programs) < OWN_PROGRAMS else None
            if key not in self._programs:
                self._programs[key] = self._compile(key)
            return self._programs[key]
        return self._programs[size]

    def _compile(self, size: tuple[int, int] | None) -> InferRequest:
        model = self._core.read_model(self._path)
        if size is not None:
            model.reshape({"frame": [*size, 3]})
        settings = {
            "INFERENCE_NUM_THREADS": self._threads,
            "PERFORMANCE_HINT": "LATENCY",
            # Else it computes in bf16 where the processor can.
            "INFERENCE_PRECISION_HINT": "f32",
        }
        try:
            return self._core.compile_model(model, "CPU", settings).create_infer_request()
        except RuntimeError as error:
            raise UnusableRuntime(
                f"OpenVINO cannot compile '{self._path}': {str(error)[:300]}"
            ) from error

    def close(self) -> None:
        self._programs.clear()
        del self._core
