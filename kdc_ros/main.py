"""The process of the node: start, signals, an orderly end."""

from __future__ import annotations

import argparse
import faulthandler
import os
import select
import signal
import sys
import threading
import traceback
from typing import TYPE_CHECKING

from kdc_core import opencv
from kdc_core.stopping import SIGNALS
from kdc_ros import env

if TYPE_CHECKING:
    from rclpy.executors import Executor

    from kdc_ros.node import KdcNode

STOP_S = 9.0  # for what is under way at a signal; ros2 launch kills after 10
USAGE = "kdc_node [-h] [--ros-args -r FROM:=TO ... -p NAME:=VALUE ... --params-file FILE]"
HELP = """
  kdc_node --ros-args -r image:=/camera/image_raw -p confidence:=0.4

Topics, parameters and states: docs/node.md. All parameters with their defaults: config/kdc.yaml.
"""


def main(args: list[str] | None = None) -> int:
    """Run the node until SIGINT, SIGTERM or SIGHUP.

    Args:
        args: the command line, beginning with the program's name; None = this process's.

    Returns:
        0 asked to stop, 1 unexpected end, 2 bad arguments or parameters.

    Raises:
        SystemExit: 0 after the usage where it is asked for, 2 for a word that is none of ROS's.
    """
    awake, wake = catch_signals()
    # Only now, for importing takes the better part of a second, in which a signal may come.
    try:
        import rclpy
        from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
        from rclpy.signals import SignalHandlerOptions
    except ModuleNotFoundError as error:
        print(f"kdc_node: {about_missing(error)}", file=sys.stderr)
        return 2
    try:
        check_words(sys.argv if args is None else args)
    except RuntimeError as error:
        print(f"kdc_node: arguments that ROS does not take: {error}", file=sys.stderr)
        return 2
    try:
        from kdc_ros.node import KdcNode
        from kdc_ros.parameters import BadParameter
    except (ImportError, AttributeError) as error:
        text = opencv.explain(error) or about_missing(error)
        if not text:
            raise
        print(f"kdc_node: {text}", file=sys.stderr)
        return 2
    env.prepare()
    if select.select([awake], [], [], 0)[0]:
        ignore_signals()
        return 0
    try:
        rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
        node = KdcNode()
    except (BadParameter, rclpy.exceptions.ParameterException, RuntimeError) as error:
        print(f"kdc_node: {error}{about_security()}", file=sys.stderr)
        rclpy.try_shutdown()
        return 2
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    failed = threading.Event()

    def spin() -> None:
        try:
            spin_past_lost_answers(executor, node)
        except ExternalShutdownException:
            pass
        except Exception:
            failed.set()
            traceback.print_exc()
        finally:
            os.write(wake, b"\0")

    thread = threading.Thread(target=spin, name="kdc_executor", daemon=True)
    thread.start()
    os.read(awake, 1)
    take_down(node, executor, thread)
    ignore_signals()
    return 1 if failed.is_set() else 0


def take_down(node: KdcNode, executor: Executor, thread: threading.Thread) -> None:
    """Shut the node down, and the thread that spins it; after STOP_S the process ends anyway."""
    import rclpy
    from lifecycle_msgs.msg import State as StateId
    from rclpy.lifecycle import State

    node.stopping.set()
    too_late = threading.Timer(STOP_S, end_at_once)
    too_late.daemon = True
    too_late.start()
    executor.shutdown()  # it does not wait for the callback under way
    thread.join()
    node.on_shutdown(State("shuttingdown", StateId.TRANSITION_STATE_SHUTTINGDOWN))
    node.destroy_node()
    rclpy.try_shutdown()
    too_late.cancel()


def end_at_once() -> None:
    """End the process although a callback or a frame hangs: tearing down under it would crash."""
    try:
        print(
            f"kdc_node: still busy {STOP_S:.0f} s after the signal, ending now:",
            file=sys.stderr,
            flush=True,
        )
        faulthandler.dump_traceback()
    finally:  # stderr may be a terminal that was closed
        os._exit(1)


def spin_past_lost_answers(executor: Executor, node: KdcNode) -> None:
    """Run callbacks until the executor is shut down.

    Where a service cannot send its answer, because whoever asked is not seen, Humble's rclpy
    raises; later ones warn.
    """
    while True:
        try:
            return executor.spin()
        except RuntimeError as error:
            if not str(error).startswith("failed to send response"):
                raise
            node.get_logger().warning(str(error))


def catch_signals() -> tuple[int, int]:
    """Have the signals to stop do nothing but write into a pipe.

    rclpy's own handlers would cut the clean-up short at a second signal, and ros2 launch sends
    two. Through a pipe a signal wakes main whichever thread takes it, without a lock.

    Returns:
        The pipe's ends, to read from and to write to.
    """
    awake, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    for number in SIGNALS:
        signal.signal(number, lambda *_: None)
    return awake, wake


def ignore_signals() -> None:
    """Keep a second signal from ending Python while it ends itself, without handlers."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def about_missing(error: Exception) -> str:
    """What to do about a package that this Python lacks; "" = the error is another."""
    if not isinstance(error, ModuleNotFoundError):
        return ""
    return (
        f"'{error.name}' is not installed for {sys.executable}: activate the environment in which "
        "it is before the node or ros2 launch is started, or install it (docs/install.md)"
    )


def about_security() -> str:
    """What the environment asks of SROS 2, for an error at the start; "" = nothing."""
    if os.environ.get("ROS_SECURITY_ENABLE") != "true":
        return ""
    keystore = os.environ.get("ROS_SECURITY_KEYSTORE") or "not set"
    return f" (ROS_SECURITY_ENABLE is true, ROS_SECURITY_KEYSTORE is {keystore})"


def check_words(args: list[str]) -> None:
    """End the process if a word is not for ROS; there is `--help` and nothing else."""
    from rclpy.utilities import remove_ros_args

    argparse.ArgumentParser(
        prog="kdc_node",
        usage=USAGE,
        description="Finds people in the images of a topic: a lifecycle node of ROS 2.",
        epilog=HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ).parse_args(remove_ros_args(args)[1:])


if __name__ == "__main__":
    sys.exit(main())
