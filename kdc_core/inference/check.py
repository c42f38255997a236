"""A program beside the model it was made of, on the sample images."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

from kdc_core.data.images import Images
from kdc_core.inference.assembly import Thresholds
from kdc_core.inference.compare import WEAK, Difference, compare
from kdc_core.inference.predictor import Predictor
from kdc_core.inference.runtimes.onnxruntime import OnnxRuntime
from kdc_core.inference.runtimes.protocol import Runtime
from kdc_core.inference.runtimes.threads import default_threads
from kdc_core.inference.runtimes.torch import TorchRuntime

SAMPLES = Path(str(files("kdc_core") / "samples"))


def check_program(program: Path, model: Path) -> Iterator[tuple[str, Difference]]:
    """How far the people of a program, in ONNX Runtime, are from those of what it was made of.

    ONNX Runtime on a CPU computes fp16 in fp32 where it can: what rounding between layers does
    only a GPU shows, and the self-test there.

    Args:
        program: .onnx file.
        model: .safetensors file, for torch, or .onnx file of another precision.

    Yields:
        Name and difference of each sample image.
    """
    threads = default_threads()
    exported = Predictor(OnnxRuntime(program, "cpu", threads))
    original: Runtime
    if model.suffix == ".onnx":
        original = OnnxRuntime(model, "cpu", threads)
    else:
        original = TorchRuntime.open(model, "cpu", threads)
    expected = Predictor(original, size=exported.size)
    for predictor in (exported, expected):
        predictor.thresholds = Thresholds(
            WEAK, predictor.thresholds.keypoint, predictor.thresholds.mask
        )
    images = Images(SAMPLES)
    for path in sorted(SAMPLES.glob("*.jpg")):
        image = images.read(path.name)
        yield path.name, compare(expected(image), exported(image), expected.thresholds.keypoint)
