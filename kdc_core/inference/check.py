"""An exported program beside the model it was made of, on the sample images."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

from kdc_core.data.images import Images
from kdc_core.inference.assembly import Thresholds
from kdc_core.inference.compare import WEAK, Difference, compare
from kdc_core.inference.predictor import Predictor
from kdc_core.inference.runtimes.onnxruntime import OnnxRuntime
from kdc_core.inference.runtimes.threads import default_threads
from kdc_core.inference.runtimes.torch import TorchRuntime

SAMPLES = Path(str(files("kdc_core") / "samples"))


def check_program(program: Path, weights: Path) -> Iterator[tuple[str, Difference]]:
    """How far the people of a program, in ONNX Runtime, are from those of its model, in torch.

    ONNX Runtime on a CPU computes fp16 in fp32 where it can: what rounding between layers does
    only a GPU shows, and the self-test there.

    Args:
        program: .onnx file.
        weights: .safetensors file.

    Yields:
        Name and difference of each sample image.
    """
    threads = default_threads()
    exported = Predictor(OnnxRuntime(program, "cpu", threads))
    model = Predictor(TorchRuntime.open(weights, "cpu", threads), size=exported.size)
    for predictor in (exported, model):
        predictor.thresholds = Thresholds(
            WEAK, predictor.thresholds.keypoint, predictor.thresholds.mask
        )
    images = Images(SAMPLES)
    for path in sorted(SAMPLES.glob("*.jpg")):
        image = images.read(path.name)
        yield path.name, compare(model(image), exported(image), model.thresholds.keypoint)
