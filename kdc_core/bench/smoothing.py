"""What smoothing costs: how far a walking person is behind, how much a standing one moves."""

from __future__ import annotations

import numpy as np

from kdc_core.codec.results import Person, Prediction
from kdc_core.inference.smoothing import Smoother

TALL, WIDE = 240.0, 80.0  # a person's box, pixels
SIZE = (TALL * WIDE) ** 0.5
WALK = 0.8  # heights a second
NOISE = 0.01  # of keypoints, in sizes
SECONDS, LEFT_OUT = 10, 1  # the first one


def bench_smoothing(rate: float) -> dict[str, float]:
    """Smooth a person who walks, and one who stands, found with some noise.

    Args:
        rate: frames a second.

    Returns:
        lag_ms: by which the one who walks is behind. jitter: of the one who stands, over that
        without smoothing.
    """
    walking, standing = _errors(rate, WALK), _errors(rate, 0.0)
    lag_s = -walking[..., 0].mean() / (WALK * TALL)
    return {
        "lag_ms": round(1e3 * float(lag_s), 1),
        "jitter": round(float(standing.std()) / (NOISE * SIZE), 3),
    }


def _errors(rate: float, speed: float) -> np.ndarray:
    """Smoothed less true places (n, 17, 2) of a person with this speed, heights a second."""
    rng, smoother = np.random.default_rng(0), Smoother()
    box = np.array([0, 0, WIDE, TALL], np.float32)
    errors = []
    for number in range(round(SECONDS * rate)):
        true = np.array([speed * TALL * number / rate, 0])
        keypoints = np.ones((17, 3), np.float32)
        keypoints[:, :2] = true + NOISE * SIZE * rng.standard_normal((17, 2))
        mask, centroids = np.zeros((0, 0), bool), np.zeros((0, 4))
        person = Person(1.0, keypoints, box, mask, (0, 0), centroids, id=1)
        found = smoother(Prediction((480, 640), (person,)), number / rate)
        errors.append(found.persons[0].keypoints[:, :2] - true)
    return np.array(errors[round(LEFT_OUT * rate) :])
