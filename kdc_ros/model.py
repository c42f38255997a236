"""The node's predictor, opened as its parameters say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import cast

import numpy as np

from kdc_core.inference.engine.cache import Cache, Policy
from kdc_core.inference.engine.lock import BuildProgress
from kdc_core.inference.engine.shapes import parse_size
from kdc_core.inference.manifest import Precision
from kdc_core.inference.predictor import Predictor
from kdc_core.inference.runtimes.choice import TENSORRT
from kdc_ros.parameters import Settings

USUAL_SIZE = (480, 640)  # of images, where `roi` says nothing


def open_predictor(
    settings: Settings,
    progress: BuildProgress,
    cancelled: Callable[[], bool],
) -> Predictor:
    """Open the model and run it twice, for the first runs are slow.

    It is run on an image of the size of `roi`, else of `USUAL_SIZE`, turned by `rotate`.

    Args:
        settings: which model, on what.
        progress: told what the build of an engine does: phase, steps done, steps in all (0 =
            unknown). Also later, with the first image of another size.
        cancelled: asked now and then whether a build should end; then nothing is run, either.

    Raises:
        KdcError: it cannot be opened so; the text says why.
    """
    size = parse_size(settings.input_size) if settings.input_size else None
    predictor = Predictor.from_pretrained(
        settings.model or "kdc_light",
        settings.runtime,
        settings.device,
        settings.threads or None,
        precision=cast(Precision, settings.precision),
        size=size,
        engines=Cache(
            Path(settings.engine_cache) if settings.engine_cache else None,
            cast(Policy, settings.engine_policy),
            progress=progress,
            cancelled=cancelled,
        ),
        one_size=True,  # a camera's
    )
    predictor.rotate = settings.rotation
    region = settings.region
    image = np.zeros((*(USUAL_SIZE if region is None else region.size), 3), np.uint8)
    # An engine is for one size of input, known only with the first image.
    if size is not None or predictor.runtime.name not in TENSORRT:
        try:
            for _ in range(2):
                if cancelled():  # what remains to do is to close it
                    break
                predictor(image)
        except Exception:
            predictor.close()
            raise
    return predictor
