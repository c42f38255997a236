"""A person of spheres before a camera: depth whose every pixel is known."""

from __future__ import annotations

from array import array
from typing import Any

import cv2
import numpy as np
from sensor_msgs.msg import CameraInfo, Image

from kdc_core.codec.results import Person
from kdc_ros.images import byte_array

SIZE = (240, 320)  # (height, width)
FX, FY, CX, CY = 262.5, 260.0, 158.5, 121.25
# x, y, z in metres from the pelvis; the camera's axes, so y is down and z away from it.
STANDING = np.array(
    [
        *((0, -0.65, -0.1), (0.03, -0.68, -0.08), (-0.03, -0.68, -0.08)),
        *((0.07, -0.66, 0), (-0.07, -0.66, 0), (0.18, -0.48, 0), (-0.18, -0.48, 0)),
        *((0.25, -0.2, 0), (-0.25, -0.2, 0), (0.28, 0.05, -0.05), (-0.28, 0.05, -0.05)),
        *((0.1, 0, 0), (-0.1, 0, 0), (0.11, 0.42, -0.02), (-0.11, 0.42, -0.02)),
        *((0.12, 0.8, 0), (-0.12, 0.8, 0)),
    ]
)
LIMBS = {
    **{(5, 7): 0.05, (7, 9): 0.04, (6, 8): 0.05, (8, 10): 0.04},
    **{(11, 13): 0.08, (13, 15): 0.06, (12, 14): 0.08, (14, 16): 0.06},
}  # radius in metres by bone
TRUNK_M, HEAD_M = 0.09, 0.11


def project(places: np.ndarray) -> np.ndarray:
    """(..., 3) metres to (..., 2) pixels."""
    return places[..., :2] / places[..., 2:] * (FX, FY) + (CX, CY)


def surface(joints: np.ndarray) -> np.ndarray:
    """Depth of a body in metres at each pixel of SIZE, infinite beside it.

    Args:
        joints: (17, 3) metres in the camera's frame.
    """
    depth = np.full(SIZE, np.inf)
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    for place, radius in _spheres(joints):
        (x, y), around = project(place), radius / place[2] * FX
        part = tuple(slice(max(0, int(v - around)), int(v + around) + 2) for v in (y, x))
        off = np.hypot(columns[part] - x, rows[part] - y) / around
        front = place[2] - radius * np.sqrt(np.clip(1 - off**2, 0, None))
        np.minimum(depth[part], front, out=depth[part], where=off <= 1)
    return depth


def _spheres(joints: np.ndarray) -> list[tuple[np.ndarray, float]]:
    along = np.linspace(0, 1, 24)[:, None]
    spheres = [(joints[:5].mean(0) + (0, -0.03, 0.05), HEAD_M)]
    for (a, b), radius in LIMBS.items():
        spheres += [(place, radius) for place in joints[a] + along * (joints[b] - joints[a])]
    for t in along[::2]:
        left, right = (joints[s] + t * (joints[h] - joints[s]) for s, h in ((5, 11), (6, 12)))
        spheres += [(left + s * (right - left), TRUNK_M) for s in along[::3]]
    return spheres


def person_of(mask: np.ndarray, keypoints: np.ndarray, id: int | None = None) -> Person:
    """A person of a full mask (H, W) and (K, 2) pixels, all seen."""
    x, y, width, height = cv2.boundingRect(mask.astype(np.uint8))
    seen = np.full((len(keypoints), 1), 0.9)
    return Person(
        score=0.9,
        keypoints=np.hstack([keypoints, seen]).astype(np.float32),
        box=np.array([x - 0.5, y - 0.5, x + width - 0.5, y + height - 0.5], np.float32),
        mask=mask[y : y + height, x : x + width].copy(),
        mask_origin=(x, y),
        centroids=np.zeros((0, 4), np.float32),
        id=id,
    )


def depth_image(
    metres: np.ndarray, encoding: str = "16UC1", big: bool = False, padding: int = 0
) -> Image:
    """A depth image of metres; not finite = none.

    Args:
        metres: (H, W).
        encoding: 16UC1 or 32FC1.
        big: the most significant byte first.
        padding: bytes behind each row.
    """
    order = ">" if big else "<"
    if encoding == "16UC1":
        values = np.where(np.isfinite(metres), np.rint(metres * 1000), 0).astype(f"{order}u2")
    else:
        values = metres.astype(f"{order}f4")
    rows = np.ascontiguousarray(values).view(np.uint8)
    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=77)
    height, width = metres.shape
    message = Image(height=height, width=width, encoding=encoding, is_bigendian=int(big))
    message.step, message.data = rows.shape[1], byte_array(rows)
    return message


def camera_info(size: tuple[int, int] = SIZE, **fields: Any) -> CameraInfo:
    """That of the scene's camera.

    Args:
        size: (height, width).
        fields: in place of its own.
    """
    k = [FX, 0.0, CX, 0.0, FY, CY, 0.0, 0.0, 1.0]
    d = array("d", [0.0] * 5)
    return CameraInfo(**{"height": size[0], "width": size[1], "k": k, "d": d, **fields})
