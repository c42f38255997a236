"""People in metres as markers for RViz and Foxglove."""

from __future__ import annotations

import numpy as np
from geometry_msgs.msg import Point, Vector3
from rclpy.duration import Duration
from std_msgs.msg import ColorRGBA, Header
from visualization_msgs.msg import Marker, MarkerArray

from kdc_core.codec.results import Prediction
from kdc_core.codec.skeleton import Skeleton
from kdc_core.show.drawing import color_of
from kdc_ros.tables import people_by_id

BONES, KEYPOINTS, IDS = NAMESPACES = ("bones", "keypoints", "ids")
LIFETIME = Duration(seconds=0.5).to_msg()  # so that nobody stays when the node falls silent
BONE_M, KEYPOINT_M, TEXT_M = 0.02, 0.05, 0.2  # thickness, diameter, height of letters
TEXT_ABOVE_M = 0.25  # over the topmost keypoint


class Markers:
    """Makes the markers of each frame, and remembers whom they show, to take down who has left.

    The id of a marker is its person's. The frame is the image's: optical, y down.
    """

    def __init__(self) -> None:
        self._shown: set[tuple[str, int]] = set()

    def forget(self) -> None:
        """Nobody saw what was shown."""
        self._shown.clear()

    def __call__(
        self, header: Header, prediction: Prediction, places: np.ndarray, skeleton: Skeleton
    ) -> MarkerArray:
        """Bones, keypoints and the id of each person that has a place.

        Args:
            header: of the image.
            prediction: its people.
            places: (people, K, 3) metres as `lift` gives them.
            skeleton: for its bones.
        """
        markers = []
        for index, (id, person) in enumerate(people_by_id(prediction)):
            red, green, blue = (color_of(person, id - 1) / 255).tolist()
            color = ColorRGBA(r=red, g=green, b=blue, a=1.0)
            for marker in _person_markers(places[index], str(id), skeleton):
                marker.header, marker.id, marker.color = header, id, color
                marker.lifetime = LIFETIME
                markers.append(marker)
        shown = {(marker.ns, marker.id) for marker in markers}
        markers += [
            Marker(header=header, ns=ns, id=id, action=Marker.DELETE)
            for ns, id in sorted(self._shown - shown)
        ]
        self._shown = shown
        return MarkerArray(markers=markers)


def _person_markers(places: np.ndarray, text: str, skeleton: Skeleton) -> list[Marker]:
    """Shapes of one person, without what all of its markers share; empty ones are left out."""
    known = np.isfinite(places[:, 2])
    if not known.any():
        return []
    points = [Point(x=x, y=y, z=z) for x, y, z in places.astype(float).tolist()]
    ends = [points[k] for bone in skeleton.bones if known[list(bone)].all() for k in bone]
    markers = [
        Marker(
            ns=KEYPOINTS,
            type=Marker.SPHERE_LIST,
            scale=Vector3(x=KEYPOINT_M, y=KEYPOINT_M, z=KEYPOINT_M),
            points=[points[k] for k in np.flatnonzero(known)],
        )
    ]
    if ends:
        scale = Vector3(x=BONE_M)
        markers.append(Marker(ns=BONES, type=Marker.LINE_LIST, scale=scale, points=ends))
    top = points[np.nanargmin(places[:, 1])]
    label = Marker(ns=IDS, type=Marker.TEXT_VIEW_FACING, scale=Vector3(z=TEXT_M), text=text)
    label.pose.position = Point(x=top.x, y=top.y - TEXT_ABOVE_M, z=top.z)
    return [*markers, label]
