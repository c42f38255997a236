"""A ROS 2 node that reads the people a running kdc node publishes, and prints them.

ros2 launch kdc_ros kdc.launch.py image:=/camera/image_raw
python3 examples/subscriber_node.py  # without ROS: .venv/bin/python, with the node beside it
"""

from __future__ import annotations

import json

import numpy as np
import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import PointCloud2
from std_msgs.msg import String

from kdc_ros import env
from kdc_ros.tables import KEYPOINT


def read_people(cloud: PointCloud2) -> np.ndarray:
    """The table of a message on /kdc/keypoints.

    With ROS's own sensor_msgs_py it is `read_points(cloud).reshape(cloud.height, cloud.width)`.

    Returns:
        (people, keypoints) with the fields u, v (pixels of the image; NaN where not visible),
        score, id (a person keeps it from image to image), kp and visible.
    """
    return np.frombuffer(cloud.data, KEYPOINT).reshape(cloud.height, cloud.width)


class PeoplePrinter(Node):
    """Prints the people of each image."""

    def __init__(self) -> None:
        super().__init__("people_printer")
        self.names: list[str] = []
        # Relative, so that a namespace or remapping moves it: -r __ns:=/robot
        self.create_subscription(PointCloud2, "kdc/keypoints", self.on_keypoints, 5)
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.create_subscription(String, "kdc/info", self.on_info, latched)

    def on_info(self, info: String) -> None:
        # What the node runs: its keypoints are those of the model.
        self.names = json.loads(info.data)["keypoints"]

    def on_keypoints(self, cloud: PointCloud2) -> None:
        if not self.names:  # they come once the node has been found
            return
        # The header is that of the image: its stamp, and the camera's frame.
        stamp = cloud.header.stamp
        print(f"{stamp.sec}.{stamp.nanosec:09d} {cloud.header.frame_id}: {cloud.height} people")
        for person in read_people(cloud):
            seen = person[person["visible"] == 1]
            places = (f"{self.names[p['kp']]} ({p['u']:.0f}, {p['v']:.0f})" for p in seen)
            print(f"  person {person['id'][0]}: {', '.join(places)}", flush=True)


def main() -> None:
    """Print until Ctrl-C."""
    env.prepare()  # where rclpy comes from pip; under a sourced ROS it changes little
    rclpy.init()
    node = PeoplePrinter()
    try:
        rclpy.spin(node)
    except (KeyboardInterrupt, ExternalShutdownException, BrokenPipeError):
        pass
    finally:
        node.destroy_node()
        rclpy.try_shutdown()


if __name__ == "__main__":
    main()
