"""People in images: 17 keypoints and one mask each, by keypoints as dynamic centroids."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kdc_core.codec.results import Person, Prediction
    from kdc_core.inference.predictor import Predictor

__version__ = "0.1.0"
__all__ = ["Person", "Prediction", "Predictor"]

# ONNX Runtime reads it once, when it is first imported, and else writes to the home folder and
# sends what it writes. Here, because every process of this package passes here first.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


def __getattr__(name: str) -> Any:
    """Import the public classes when they are first asked for: `kdc --help` needs none."""
    if name == "Predictor":
        try:
            from kdc_core.inference.predictor import Predictor
        except (ImportError, AttributeError) as error:
            from kdc_core import opencv

            raise ImportError(opencv.explain(error) or str(error)) from error
        return Predictor
    if name in ("Person", "Prediction"):
        from kdc_core.codec import results

        return getattr(results, name)
    raise AttributeError(f"module 'kdc_core' has no attribute '{name}'")
