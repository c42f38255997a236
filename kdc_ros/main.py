"""The process of the node: start, signals, an orderly end."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import traceback

import rclpy
from lifecycle_msgs.msg import State as StateId
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.lifecycle import State
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import remove_ros_args

from kdc_core import opencv
from kdc_ros import env

USAGE = "kdc_node [-h] [--ros-args -r FROM:=TO ... -p NAME:=VALUE ... --params-file FILE]"
HELP = """
  kdc_node --ros-args -r image:=/camera/image_raw -p confidence:=0.4

Topics, parameters and states: docs/node.md. All parameters with their defaults: config/kdc.yaml.
"""


def main(args: list[str] | None = None) -> int:
    """Run the node until SIGINT or SIGTERM.

    Args:
        args: the command line, beginning with the program's name; None = this process's.

    Returns:
        0 asked to stop, 1 unexpected end, 2 bad arguments or parameters.

    Raises:
        SystemExit: 0 after the usage where it is asked for, 2 for a word that is none of ROS's.
    """
    try:
        check_words(sys.argv if args is None else args)
    except RuntimeError as error:
        print(f"kdc_node: arguments that ROS does not take: {error}", file=sys.stderr)
        return 2
    try:
        from kdc_ros.node import KdcNode
        from kdc_ros.parameters import BadParameter
    except (ImportError, AttributeError) as error:
        text = opencv.explain(error)
        if text is None:
            raise
        print(f"kdc_node: {text}", file=sys.stderr)
        return 2
    env.prepare()
    # rclpy's own handlers would cut the clean-up short at a second signal, and ros2 launch
    # sends two. Through a pipe a signal wakes main whichever thread takes it, without a lock.
    awake, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    try:
        rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
        node = KdcNode()
    except (BadParameter, rclpy.exceptions.ParameterException, RuntimeError) as error:
        print(f"kdc: {error}", file=sys.stderr)
        rclpy.try_shutdown()
        return 2
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    failed = threading.Event()

    def spin() -> None:
        try:
            executor.spin()
        except ExternalShutdownException:
            pass
        except Exception:
            traceback.print_exc()
            failed.set()
        os.write(wake, b"\0")

    thread = threading.Thread(target=spin, name="kdc_executor", daemon=True)
    thread.start()
    os.read(awake, 1)
    node.stopping.set()
    executor.shutdown(timeout_sec=5.0)
    thread.join(timeout=5.0)
    if thread.is_alive():
        # A callback hangs; tearing the node down under it would crash.
        print("kdc: a callback did not end within 10 s of the signal", file=sys.stderr)
        os._exit(1)
    node.on_shutdown(State("shuttingdown", StateId.TRANSITION_STATE_SHUTTINGDOWN))
    node.destroy_node()
    rclpy.try_shutdown()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    return 1 if failed.is_set() else 0


def check_words(args: list[str]) -> None:
    """End the process if a word is not for ROS; there is `--help` and nothing else."""
    argparse.ArgumentParser(
        prog="kdc_node",
        usage=USAGE,
        description="Finds people in the images of a topic: a lifecycle node of ROS 2.",
        epilog=HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ).parse_args(remove_ros_args(args)[1:])


if __name__ == "__main__":
    sys.exit(main())
