"""What only an NVIDIA GPU can show."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdc_core import Predictor
from kdc_core.data.images import Images
from kdc_core.data.reading import read_annotations
from kdc_core.inference.compare import compare
from kdc_core.inference.engine.cache import Cache
from kdc_core.inference.engine.driver import find_gpu
from kdc_core.inference.engine.messages import EngineError
from kdc_core.inference.runtimes.protocol import UnusableRuntime


@pytest.mark.gpu
@pytest.mark.parametrize(
    "runtime", ["tensorrt", "tensorrt-rtx", "onnxruntime-cuda", "onnxruntime-tensorrt", "torch"]
)
def test_runtimes_on_the_gpu_find_whom_onnxruntime_finds_on_the_cpu(
    runtime: str, samples: Path, tmp_path: Path
) -> None:
    try:
        find_gpu()
    except EngineError as error:
        pytest.skip(str(error))
    tmp_path.chmod(0o700)
    try:
        on_gpu = Predictor.from_pretrained(
            "kdc_light", runtime, "cuda", precision="fp32", engines=Cache(tmp_path)
        )
    except UnusableRuntime as error:
        pytest.skip(str(error))
    on_cpu = Predictor.from_pretrained("kdc_light", "onnxruntime", "cpu")
    store = Images(samples)
    for annotated in read_annotations(samples / "annotations.json").images:
        image = store.read(annotated.file_name)
        difference = compare(on_cpu(image), on_gpu(image), 0.3)
        assert not difference.missed and not difference.extra, annotated.file_name
        assert difference.keypoint_px <= 0.5 and difference.mask_iou >= 0.99, annotated.file_name
