"""People in images: 17 keypoints and one mask each, by keypoints as dynamic centroids."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kdc_core.codec.results import Person, Prediction
    from kdc_core.inference.predictor import Predictor

__version__ = "0.1.0"
__all__ = ["Person", "Prediction", "Predictor"]


def __getattr__(name: str) -> Any:
    """Import the public classes when they are first asked for: `kdc --help` needs none."""
    if name == "Predictor":
        from kdc_core.inference.predictor import Predictor

        return Predictor
    if name in ("Person", "Prediction"):
        from kdc_core.codec import results

        return getattr(results, name)
    raise AttributeError(f"module 'kdc_core' has no attribute '{name}'")
