"""Keypoints in metres: each one's depth from its person's own mask. Without ROS."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from kdc_core.codec.results import Person, Prediction
from kdc_core.codec.skeleton import Skeleton
from kdc_ros.images import LARGEST_SIDE, BadFrame
from kdc_ros.tables import people_by_id

KEYPOINT_3D = np.dtype(
    [
        ("x", "<f4"),
        ("y", "<f4"),
        ("z", "<f4"),
        ("score", "<f4"),
        ("id", "<u2"),
        ("kp", "u1"),
        ("visible", "u1"),
    ]
)
# Of depth by REP-118, millimetres and metres.
ENCODINGS = {"16UC1": "u2", "32FC1": "f4"}

WINDOW = 2  # pixels to each side of a keypoint
ENOUGH = 5  # pixels with depth; with fewer the window grows,
REACH = 0.05  # to each side at most to this part of the person's longer side
# A pixel farther than its neighbor by this part is at an edge, where cameras mix two depths.
EDGE = 0.05
# Within a body no two pixels that follow each other in depth are further apart: a thigh seen end
# on hides what is between hip and knee. Metres.
BODY_GAP = 0.4
SLICES = 50  # of equally many pixels, whose depths are compared to find gaps
SAMPLE = 4096  # pixels of a person that are enough to find gaps


@dataclass(frozen=True)
class Pinhole:
    """A rectified camera, in pixels of its image; the center of the top-left one is (0, 0)."""

    fx: float
    fy: float
    cx: float
    cy: float

    def points(self, pixels: np.ndarray, depths: np.ndarray) -> np.ndarray:
        """Places in the camera's optical frame: x right, y down, z forward.

        Args:
            pixels: (..., 2) x, y.
            depths: (...) along z.

        Returns:
            (..., 3) in the unit of the depths; NaN where they are.
        """
        rays = (pixels - (self.cx, self.cy)) / (self.fx, self.fy)
        return np.concatenate([rays * depths[..., None], depths[..., None]], -1)


def pinhole_of(info: Any, size: tuple[int, int]) -> Pinhole:
    """The camera of a rectified image, as CameraInfo says and image_geometry reads it.

    P is of the rectified image; K, where P is not given. Both are of the full resolution, of which
    the image is the region of interest, binned.

    Args:
        info: sensor_msgs/CameraInfo.
        size: (height, width) of the image.

    Raises:
        BadFrame: uncalibrated, or of another image; the text says which.
    """
    fx, cx, fy, cy = info.k[0], info.k[2], info.k[4], info.k[5]
    if not any(info.k):
        raise BadFrame("camera_info is not calibrated, its K is zero: calibrate the camera")
    if info.p[0] and info.p[5]:
        fx, cx, fy, cy = info.p[0], info.p[2], info.p[5], info.p[6]
    if not (np.isfinite([fx, fy, cx, cy]).all() and fx > 0 and fy > 0):
        raise BadFrame(
            f"camera_info has focal lengths {fx:g}, {fy:g} and center {cx:g}, {cy:g}: expected "
            "finite numbers, lengths above 0"
        )
    across, down = max(1, info.binning_x), max(1, info.binning_y)
    window = (info.roi.height or info.height, info.roi.width or info.width)
    if (window[0] // down, window[1] // across) != size:
        raise BadFrame(
            f"camera_info is of {window[1] // across}x{window[0] // down} pixels (width and "
            f"height, or roi, over binning), the image has {size[1]}x{size[0]}: remap camera_info "
            "to that of the image"
        )
    left, top = info.roi.x_offset, info.roi.y_offset
    return Pinhole(fx / across, fy / down, (cx - left) / across, (cy - top) / down)


def depth_plane(msg: Any, size: tuple[int, int]) -> np.ndarray:
    """View a depth image's data without copying.

    Args:
        msg: sensor_msgs/Image, 16UC1 (millimetres) or 32FC1 (metres), of either byte order; rows
            may be padded.
        size: (height, width) of the image that it is registered to.

    Returns:
        (H, W) of its own type.

    Raises:
        BadFrame: another encoding or size, or data too short; the text says which.
    """
    if msg.encoding not in ENCODINGS:
        raise BadFrame(
            f"depth has the encoding {msg.encoding!r:.60}, expected 16UC1 (millimetres) or 32FC1 "
            "(metres)"
        )
    if not (0 < msg.width <= LARGEST_SIDE and 0 < msg.height <= LARGEST_SIDE):
        raise BadFrame(
            f"depth has {msg.width}x{msg.height} pixels, expected sides of 1 to {LARGEST_SIDE}"
        )
    if (msg.height, msg.width) != size:
        raise BadFrame(
            f"depth has {msg.width}x{msg.height} pixels, the image {size[1]}x{size[0]}: expected "
            "depth registered to the image"
        )
    dtype = np.dtype(ENCODINGS[msg.encoding]).newbyteorder(">" if msg.is_bigendian else "<")
    row = msg.width * dtype.itemsize
    if msg.step < row:
        raise BadFrame(f"depth has step {msg.step}, a row of it {row} bytes")
    end = msg.step * (msg.height - 1) + row  # the last row's padding may be left out
    if len(msg.data) < end:
        raise BadFrame(f"depth has {len(msg.data)} bytes, expected at least {end}")
    return np.ndarray(size, dtype, msg.data, strides=(msg.step, dtype.itemsize))


def to_metres(plane: np.ndarray, depth_max: float) -> np.ndarray:
    """Depth in metres, infinite where there is none: 0, negative, not finite, or farther than
    `depth_max`.

    Args:
        plane: 16UC1 or 32FC1 as `depth_plane` gives it, or a part.

    Returns:
        float32 of the same shape.
    """
    metres = plane.astype(np.float32)
    if plane.dtype.kind == "u":
        metres /= 1000
    metres[~((metres > 0) & (metres <= depth_max))] = np.inf
    return metres


def lift(
    prediction: Prediction,
    plane: np.ndarray,
    camera: Pinhole,
    threshold: float,
    depth_max: float,
) -> np.ndarray:
    """Places of all keypoints, on the body's surface.

    Args:
        prediction: K keypoints each.
        plane: depth of the image's size, as `depth_plane` gives it.
        camera: of the image.
        threshold: keypoints below are not visible.
        depth_max: metres; what is farther is no depth.

    Returns:
        (people, K, 3) float32 metres in the image's optical frame, by id; NaN where a
        keypoint is not visible, or its person's mask has no depth there.
    """
    places = [
        camera.points(
            person.keypoints[:, :2], keypoint_depths(person, plane, threshold, depth_max)
        )
        for _, person in people_by_id(prediction)
    ]
    return np.array(places, np.float32) if places else np.zeros((0, 0, 3), np.float32)


def keypoint_depths(
    person: Person, plane: np.ndarray, threshold: float, depth_max: float
) -> np.ndarray:
    """The median depth of the person's own pixels around each keypoint: (K,) metres, NaN = none.

    Pixels count that are in the mask, not at an edge, and of the body by their depth
    (`body_range`): a mask that is too wide brings in neither what is behind nor what is in front.
    """
    depths = np.full(len(person.keypoints), np.nan)
    if not person.mask.any():
        return depths
    own = np.where(person.mask, to_metres(plane[person.mask_window], depth_max), np.inf)
    own[own / (1 + EDGE) > cv2.erode(own, np.ones((3, 3), np.uint8))] = np.inf
    near, far = body_range(own[np.isfinite(own)])
    own[(own < near) | (own > far)] = np.inf
    left = np.flatnonzero(
        (person.keypoints[:, 2] >= threshold) & np.isfinite(person.keypoints[:, :2]).all(1)
    )
    pixels = np.rint(person.keypoints[:, :2].clip(-1e6, 1e6)) - person.mask_origin
    half = WINDOW
    while left.size and half <= max(WINDOW, REACH * max(own.shape)):
        median, count = _window_medians(own, pixels[left].astype(int), half)
        depths[left[count >= ENOUGH]] = median[count >= ENOUGH]
        left = left[count < ENOUGH]
        half *= 2
    return depths


def body_range(depths: np.ndarray) -> tuple[float, float]:
    """Nearest and farthest of a body's pixels.

    Sorted by depth, a mask's pixels fall apart where the background or something in front is
    among them; most are the body.

    Args:
        depths: (n,) of the mask's pixels, finite.
    """
    if not depths.size:
        return np.inf, -np.inf
    few = np.sort(depths[:: -(-depths.size // SAMPLE)])
    few = few[np.rint(np.linspace(0, few.size - 1, SLICES + 1)).astype(int)]
    starts = np.flatnonzero(np.diff(few, prepend=-np.inf) > BODY_GAP)
    ends = np.append(starts[1:], few.size)
    largest = np.argmax(ends - starts)
    margin = BODY_GAP / 2  # the outermost of the body lie between two that are compared
    return few[starts[largest]] - margin, few[ends[largest] - 1] + margin


def _window_medians(
    own: np.ndarray, pixels: np.ndarray, half: int
) -> tuple[np.ndarray, np.ndarray]:
    """Median of the finite values in a square around each pixel, and how many they are.

    Args:
        own: (h, w), infinite where there is no value.
        pixels: (n, 2) int x, y; may lie outside.
        half: pixels to each side of the middle one.
    """
    offsets = np.arange(-half, half + 1)
    columns = pixels[:, 0, None, None] + offsets
    rows = pixels[:, 1, None, None] + offsets[:, None]
    height, width = own.shape
    inside = (0 <= columns) & (columns < width) & (0 <= rows) & (rows < height)
    values = own[rows.clip(0, height - 1), columns.clip(0, width - 1)]
    values = np.sort(np.where(inside, values, np.inf).reshape(len(pixels), -1), 1)
    count = np.isfinite(values).sum(1)
    each = np.arange(len(pixels))
    return (values[each, (count - 1) // 2] + values[each, count // 2]) / 2, count


def keypoint_3d_rows(prediction: Prediction, skeleton: Skeleton, places: np.ndarray) -> np.ndarray:
    """(people, keypoints) of KEYPOINT_3D, by id.

    Keypoints without a place have x, y, z = NaN and visible = 0; their score is kept.

    Args:
        prediction: the people.
        skeleton: of their keypoints.
        places: as `lift` gives them.
    """
    rows = np.zeros((len(prediction), skeleton.num_keypoints), KEYPOINT_3D)
    for index, (id, person) in enumerate(people_by_id(prediction)):
        for axis, name in enumerate("xyz"):
            rows[name][index] = places[index, :, axis]
        rows["score"][index] = person.keypoints[:, 2]
        rows["id"][index] = id
        rows["visible"][index] = np.isfinite(places[index, :, 2])
    rows["kp"] = np.arange(skeleton.num_keypoints)
    return rows
