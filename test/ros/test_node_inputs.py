"""What comes on the input that the node cannot use, and what it says of it: in this process."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from sensor_msgs.msg import CompressedImage, Image

from kdc_ros.diagnostics import WINDOW

from .local import Local
from .peer import MakePeer

pytestmark = pytest.mark.ros
CAUSE = "encoding 'rgb9' is not known"


def bad_frame(local: Local) -> Image:
    frame = local.peer.frame()
    frame.encoding = "rgb9"
    return frame


def send_bad(local: Local, condition: Callable[[], bool]) -> None:
    """Publish frames that are no images until the condition holds."""

    def sent() -> bool:
        local.peer.publisher.publish(bad_frame(local))
        local.peer.spin_until(condition, 0.05)
        return condition()

    local.peer.wait(sent, "what bad frames lead to")


def test_no_usable_image_for_a_while_is_an_error(local: Local) -> None:
    peer = local.peer
    peer.set_parameters(input_timeout=0.5)
    peer.forget_statuses()
    send_bad(local, lambda: any(s.level == DiagnosticStatus.ERROR for s in peer.statuses))
    error = next(s for s in peer.statuses if s.level == DiagnosticStatus.ERROR)
    assert error.message.startswith(f"no image on {peer.namespace}/image could be used for ")
    assert CAUSE in error.message and peer.values(error)["state"] == "active"
    peer.answer()
    assert peer.status().level != DiagnosticStatus.ERROR, "one that can be used ends it"


def test_many_unusable_images_are_a_warning_until_they_are_few(local: Local) -> None:
    """Above a fifth of the last hundred."""
    peer, bad = local.peer, 5
    send_bad(local, lambda: local.node._monitor.bad >= bad)
    bad = local.node._monitor.bad
    status = peer.status(lambda s: "could not be used" in s.message, "a warning")
    assert status.level == DiagnosticStatus.WARN and CAUSE in status.message
    good = 0
    while bad > (bad + good + 1) / 5 and good < WINDOW:
        peer.answer()
        good += 1
    assert peer.status(lambda s: s.message == "running", "no more").level == DiagnosticStatus.OK


@pytest.mark.parametrize("others", [False, True], ids=["no image topic", "an image topic"])
def test_publishers_of_another_type_are_told_with_what_to_remap(
    local: Local, peer: MakePeer, others: bool
) -> None:
    images = f"{local.peer.namespace}/camera/image_raw"
    if others:
        local.peer.node.create_publisher(Image, images, 1)
    camera = peer(local.peer.namespace, answers={})
    camera.node.destroy_publisher(camera.publisher)  # a process has one type for a topic
    camera.node.create_publisher(CompressedImage, "image", 1)
    status = local.peer.status(lambda s: "CompressedImage" in s.message, "a warning")
    assert status.level == DiagnosticStatus.WARN
    types = "carries sensor_msgs/msg/CompressedImage, expected sensor_msgs/msg/Image: remap it"
    assert types in status.message
    if others:
        local.peer.status(lambda s: images in s.message, "what to remap to")
