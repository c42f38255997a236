"""OpenVINO on the CPU."""

from __future__ import annotations

import ctypes
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kdc_core.inference.assembly import Raw
from kdc_core.inference.engine.lock import BuildProgress, ignore
from kdc_core.inference.manifest import OUTPUTS, read_manifest
from kdc_core.inference.onnx_file import why_not_run
from kdc_core.inference.runtimes.protocol import Pending, UnusableRuntime

if TYPE_CHECKING:
    from openvino import InferRequest, Model

# Once imported, OpenVINO tells its maker so by this package of its own; without it it does not.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

# So many sizes of frames get a program of their own, which is faster than one for all sizes but
# takes a second or more to compile; any further ones share one.
OWN_PROGRAMS = 3
SS_DISABLE = 2  # of sigaltstack, signal.h


class OpenVinoRuntime:
    """A program in OpenVINO's CPU plugin, computing in fp32 what the file does not quantize.

    Args:
        path: the .onnx file.
        device: `auto` or `cpu`.
        threads: CPU threads.
        progress: told that a program is compiled, which takes seconds: phase, 0, 0.

    Raises:
        UnusableRuntime: no OpenVINO, another device, or a file it cannot run.
    """

    name = "openvino"

    def __init__(self, path: Path, device: str, threads: int, progress: BuildProgress = ignore):
        if device not in ("auto", "cpu"):
            raise UnusableRuntime(f"openvino runs on the CPU here, got device '{device}': use cpu")
        try:
            import openvino
        except ImportError as error:
            raise UnusableRuntime(
                f"openvino cannot be imported ({error}): pip install openvino"
            ) from error
        self.manifest = read_manifest(path)
        self._threads, self._progress = threads, progress
        self._programs: dict[tuple[int, int] | None, InferRequest] = {}
        try:
            # Kept: the file may be replaced before a size of frames comes that needs it again.
            self._model = path.read_bytes()
            model = openvino.Core().read_model(self._model)
        except (OSError, RuntimeError) as error:
            library = f"openvino {openvino.__version__}"
            raise UnusableRuntime(why_not_run(path, library, error)) from error
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

    def submit(self, frame: np.ndarray) -> Pending[Raw]:
        self.manifest.check_frame(frame)
        program = self._program((frame.shape[0], frame.shape[1]))
        return Pending(partial(_run, program, frame))

    def _program(self, size: tuple[int, int]) -> InferRequest:
        """What executes frames of a size; compiled when such a frame first comes."""
        known = size in self._programs or len(self._programs) < OWN_PROGRAMS
        key = size if known else None
        if key not in self._programs:
            sizes = "all sizes" if key is None else f"{key[0]}x{key[1]}"
            self._progress(f"OpenVINO's for frames of {sizes}", 0, 0)
            self._programs[key] = compile_program(self._model, key, self._threads)
        return self._programs[key]

    def close(self) -> None:
        self._programs.clear()


def _run(program: InferRequest, frame: np.ndarray) -> Raw:
    program.infer({"frame": frame})
    return Raw(*(program.get_tensor(name).data.copy() for name in OUTPUTS))


def compile_program(model: bytes, size: tuple[int, int] | None, threads: int) -> InferRequest:
    """Compile an ONNX program, whose only input is the frame.

    Args:
        model: the bytes of its file.
        size: (H, W) of its frames; None = free.
        threads: on the CPU.

    Raises:
        UnusableRuntime: OpenVINO refuses it.
    """
    import openvino

    core = openvino.Core()
    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
        # Else it computes in bf16 where the processor can.
        "INFERENCE_PRECISION_HINT": "f32",
    }
    try:
        read = core.read_model(model)
        _copy_biases(read)
        if size is not None:
            read.reshape({"frame": [*size, 3]})
        request = core.compile_model(read, "CPU", settings).create_infer_request()
        _leave_signal_stack()
        return request
    except RuntimeError as error:
        raise UnusableRuntime(
            f"OpenVINO cannot compile the program for frames of {size}: {error!s:.300}"
        ) from error


class _Stack(ctypes.Structure):
    _fields_ = [("start", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t)]


def _leave_signal_stack() -> None:
    """Have this thread take signals on its own stack.

    With one thread OpenVINO gives the thread that compiles a stack for signals, and when a program
    is freed the one before, which may be freed: the next signal would end the process.
    """
    stack = _Stack(flags=SS_DISABLE)
    ctypes.CDLL(None).sigaltstack(ctypes.byref(stack), None)


def _copy_biases(model: Model) -> None:
    """Give each convolution a bias of its own, in place.

    The levels of the pyramid share theirs, and what is shared OpenVINO adds in a pass of its own
    after the convolution, which takes a seventh of the program's time.
    """
    from openvino import opset13

    for node in model.get_ops():
        if node.get_type_name() == "Constant" and len(node.get_output_shape(0)) == 1:
            for user in list(node.output(0).get_target_inputs())[1:]:
                user.replace_source_output(opset13.constant(node.data.copy()).output(0))
