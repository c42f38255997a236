"""The node in the test's own process, with a stub in place of the model."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import State
from rclpy.parameter import Parameter
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import Image

from kdc_core.codec.results import Person, Prediction
from kdc_core.codec.skeleton import COCO17
from kdc_core.inference.assembly import Thresholds
from kdc_core.inference.predictor import Predictor
from kdc_core.inference.runtimes.protocol import Pending
from kdc_ros.images import fill_image
from kdc_ros.node import KdcNode

from .peer import BLACK, Peer

NUMBERS = itertools.count(1)
STATUS_PERIOD_S = 0.1  # so that nobody waits a second for the next


class StubPredictor:
    """Stands in for the Predictor: finds nobody, and fails when told to.

    Attributes:
        while_busy: called while a prediction is collected.
        submitted: images so far.
        last: of them.
        thresholds: of the last image that came with some.
        persons: found in every image.
        opened_with: what `from_pretrained` was given by place.
        while_opening: called with what `from_pretrained` is given by name.
        refused: as of the Predictor.
        error: raised for each image that is collected while it is set.
    """

    def __init__(self) -> None:
        self.while_busy: Callable[[], object] = lambda: None
        self.submitted = 0
        self.last: np.ndarray | None = None
        self.persons: tuple[Person, ...] = ()
        self.opened_with: tuple[Any, ...] = ()
        self.rotate = 0
        self.while_opening: Callable[[dict[str, Any]], object] = lambda given: None
        self.error: Exception | None = None
        self.closed = False
        self.skeleton = COCO17
        self.thresholds = Thresholds(0.5, 0.3, 0.5)
        self.refused = {"faster": "not here"}
        self.runtime = SimpleNamespace(
            name="stub",
            describe=lambda: {"runtime": "stub", "device": "cpu", "precision": "none"},
            manifest=SimpleNamespace(config=SimpleNamespace(name="stub")),
        )

    def __call__(self, image: np.ndarray, thresholds: Thresholds | None = None) -> Prediction:
        return self.submit(image, thresholds).collect()

    def submit(
        self, image: np.ndarray, thresholds: Thresholds | None = None
    ) -> Pending[Prediction]:
        self.thresholds = thresholds or self.thresholds
        self.submitted += 1
        self.last = image

        def collect() -> Prediction:
            if self.error is not None:
                raise self.error
            self.while_busy()
            size = (image.shape[0], image.shape[1])
            return Prediction(size, self.persons, {"model": 1.0})

        return Pending(collect)

    def close(self) -> None:
        self.closed = True

    def opened(self, *placed: Any, **given: Any) -> StubPredictor:
        """Stand in for `Predictor.from_pretrained`."""
        self.opened_with = placed
        self.while_opening(given)
        return self


@dataclass
class Local:
    """A node in this process, its stub of the model, and a camera on its topics."""

    node: KdcNode
    predictor: StubPredictor
    peer: Peer


@contextmanager
def local_node(
    monkeypatch: pytest.MonkeyPatch,
    spin: bool = False,
    arguments: Sequence[str] = (),
    **values: Any,
) -> Iterator[tuple[KdcNode, StubPredictor]]:
    """The node without a process of its own, and its stub of the model.

    Each has a namespace of its own: the lifecycle services of a destroyed one stay until Python
    collects its garbage.

    Args:
        monkeypatch: puts the stub in place.
        spin: run its callbacks, in a thread.
        arguments: of the node's own command line.
        values: parameters given at start; autostart is off unless it is among them.
    """
    predictor = StubPredictor()
    monkeypatch.setattr(
        Predictor, "from_pretrained", lambda *placed, **given: predictor.opened(*placed, **given)
    )
    context = rclpy.Context()
    rclpy.init(context=context, signal_handler_options=SignalHandlerOptions.NO)
    try:
        node = KdcNode(
            namespace=f"/local_{next(NUMBERS)}",
            status_period_s=STATUS_PERIOD_S,
            context=context,
            cli_args=list(arguments),
            parameter_overrides=[
                Parameter(name, value=value)
                for name, value in {"autostart": False, **values}.items()
            ],
        )
        stop = _spin(node, context) if spin else lambda: None
        try:
            yield node, predictor
        finally:
            stop()
            node.on_shutdown(State("shuttingdown", 0))
            node.destroy_node()
    finally:
        rclpy.shutdown(context=context)


def _spin(node: KdcNode, context: rclpy.Context) -> Callable[[], None]:
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    thread = threading.Thread(target=executor.spin, daemon=True)
    thread.start()

    def stop() -> None:
        executor.shutdown()
        thread.join(20)

    return stop


def process_frame(node: KdcNode) -> None:
    """As the worker does."""
    assert node._loaded is not None
    end = node._loaded.processing.begin(fill_image(Image(), BLACK, "rgb8"))
    assert end is not None
    end()
