"""What a user is told when TensorRT refuses: its own words, matched against one table."""

from __future__ import annotations

import re
from collections.abc import Iterable

from kdc_core.errors import KdcError
from kdc_core.inference.runtimes.protocol import UnusableRuntime


class EngineError(UnusableRuntime):
    """An engine that cannot be had here; the text says why and what to do."""


class BrokenEngine(EngineError):
    """An engine file that must not run; policy `build` makes another."""


class BuildCancelled(KdcError):
    """Whoever asked for the engine wants it no more, and no other runtime in its place."""


NOT_INSTALLED = {
    "tensorrt": "TensorRT is not installed: on a Jetson it comes with JetPack, elsewhere with "
    "NVIDIA's packages",
    "tensorrt-rtx": "TensorRT-RTX is not installed: pip install tensorrt-rtx",
}
TOO_OLD = "{library} is too old ({missing} is missing): TensorRT 10.3 or later is needed"
NO_DRIVER = (
    "no usable NVIDIA driver: install it, or start the container with the GPU (docker run --gpus "
    "all)"
)
CPU_ONLY = "this int8 file is for CPU runtimes: use the int8-trt file"
CANCELLED = "engine build cancelled"
# Without a driver TensorRT puts one of these beside every other error.
DRIVER_LINE = re.compile(
    r"CUDA driver version is insufficient|cudaError 35\b|initialization failure with error: 35\b"
    r"|libcuda\.so|cuInit"
)

OUT_OF_GPU_MEMORY = "out of GPU memory"  # begins the next
_OUT_OF_MEMORY = (
    "out of GPU memory while {doing}: {free} MiB free{lent}: close other programs on the GPU, or "
    "take a smaller input size"
)
_LENT = ", workspace {workspace} MiB"
_SIZES = "sizes do not fit the network: {shapes}: {line}"


# What is searched for in what TensorRT said, and the message; names in braces are filled from the
# context and the symptom's named groups. The first that fits is taken.
RULES = (
    (
        r"factory function returned nullptr",
        "TensorRT could not start; the driver: {driver}",
    ),
    (
        r"DequantizeLinear[\s\S]*has type Int32|Non-zero zero point is not supported",
        CPU_ONLY,
    ),
    (
        r"must be of same type|must have same input types|has type \w+ but must have",
        "the ONNX file mixes types at {operator} '{node}': export it again",
    ),
    (r"Could not find any implementation for node", _OUT_OF_MEMORY),
    (r"OutOfMemory|[Oo]ut of memory", _OUT_OF_MEMORY),
    (
        r"no optimization profile|MIN<=OPT<=MAX|missing dimensions in profile"
        r"|Dimension mismatch for tensor|broadcast dimensions must be conformable",
        _SIZES,
    ),
    (
        r"Resize shape dims should be",
        "sizes do not fit the network: {shapes} begins too small: begin at a larger size, or "
        "build for one size",
    ),
    (
        r"Cannot compile operation '(?P<node>[^']*)' for (?P<gpu>[^:]*): (?P<why>[^.]*)",
        "{library} cannot build this network for {gpu}: {why} (at '{node}')",
    ),
    (
        r"MODEL_DESERIALIZE_FAILED|Network must have at least one (?:in|out)put",
        "'{program}' is not an ONNX file of ours, or was cut short: export it again",
    ),
    (
        r"magicTag",
        "not a TensorRT engine, or another tool put data in front of it",
    ),
    (
        r"[Vv]ersion tag does not match",
        "engine made by another version than the installed {library}",
    ),
    (r"incompatible device", "engine made for another GPU"),
    (r"BuildCanceled", CANCELLED),
)


class _Context(dict[str, str]):
    def __missing__(self, name: str) -> str:
        return "unknown"


def explain(said: Iterable[str], fallback: str, **context: object) -> str:
    """One sentence on what went wrong.

    Args:
        said: errors of TensorRT's log, and the texts of its exceptions.
        fallback: beginning of the sentence where no row of the table fits; what TensorRT said
            first follows.
        context: what the rows ask for: doing, free and, of a build, workspace (MiB), operator,
            node, shapes, program, library, driver.
    """
    lines = [line.strip() for text in said for line in text.splitlines() if line.strip()]
    kept = [line for line in lines if not DRIVER_LINE.search(line)]
    if lines and not kept:
        return NO_DRIVER
    text = "\n".join(kept)
    values = _Context({name: str(value) for name, value in context.items()})
    values["lent"] = _LENT.format_map(values) if "workspace" in context else ""
    for symptom, message in RULES:
        found = re.search(symptom, text)
        if found is not None:
            values |= found.groupdict()
            values["line"] = next(line for line in kept if found[0].splitlines()[-1] in line)[:300]
            return message.format_map(values)
    return f"{fallback}: {kept[0][:300] if kept else 'TensorRT gave no reason'}"
