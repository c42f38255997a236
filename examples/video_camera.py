"""A ROS 2 node that plays a video over and over, as a camera would: to try kdc without a camera.

python3 examples/video_camera.py people.mp4  # without ROS: .venv/bin/python
ros2 launch kdc_ros kdc.launch.py image:=/camera/image_raw
"""

from __future__ import annotations

import argparse
import sys

import cv2
import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.utilities import remove_ros_args
from sensor_msgs.msg import Image

from kdc_ros import env


class VideoCamera(Node):
    """Publishes the frames of a video on camera/image_raw at the video's rate."""

    def __init__(self, video: cv2.VideoCapture) -> None:
        super().__init__("video_camera")
        self.video = video
        # Reliable, so that no image is lost on the way.
        self.publisher = self.create_publisher(Image, "camera/image_raw", 1)
        self.create_timer(1 / (video.get(cv2.CAP_PROP_FPS) or 30), self.publish_frame)

    def publish_frame(self) -> None:
        read, frame = self.video.read()
        if not read:  # at the end: from the beginning again
            self.video.set(cv2.CAP_PROP_POS_FRAMES, 0)
            read, frame = self.video.read()
        image = Image(encoding="bgr8")  # as OpenCV reads
        image.header.stamp = self.get_clock().now().to_msg()
        image.header.frame_id = "camera"
        image.height, image.width = frame.shape[:2]
        image.step = 3 * image.width
        image.data.frombytes(frame.tobytes())
        self.publisher.publish(image)


def main() -> None:
    """Play until Ctrl-C."""
    parser = argparse.ArgumentParser()
    parser.add_argument("video")
    path = parser.parse_args(remove_ros_args(sys.argv)[1:]).video
    video = cv2.VideoCapture(path)
    if not video.isOpened():
        sys.exit(f"'{path}' is not a video that OpenCV can read")

    env.prepare()  # where rclpy comes from pip; under a sourced ROS it changes little
    rclpy.init()
    node = VideoCamera(video)
    try:
        rclpy.spin(node)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        node.destroy_node()
        rclpy.try_shutdown()


if __name__ == "__main__":
    main()
