"""The node that first wants an engine from its cache, with stand-ins for NVIDIA's modules.

    python test/ros/building_node.py --ros-args -p engine_cache:=FOLDER ...

The engine is made by the cache's own builder process, which the stand-ins tell what to do. It
cannot run, so the shipped runtime finds the people.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from kdc_core.inference.engine.cache import Cache, get_engine
from kdc_core.inference.model_files import MODELS
from kdc_core.inference.predictor import Predictor
from kdc_ros import model
from kdc_ros.main import main
from kdc_ros.parameters import Settings

FAKE = Path(__file__).parents[1] / "core" / "engine" / "fake"
GPU = ["NVIDIA RTX 4000 Ada", 8, 9, 20 << 30]


def opener() -> Callable[..., Predictor]:
    """As `open_predictor`, once there is an engine."""
    real = model.open_predictor

    def opened(
        settings: Settings,
        progress: Callable[[str, int, int], None],
        cancelled: Callable[[], bool],
    ) -> Predictor:
        cache = Cache(Path(settings.engine_cache), progress=progress, cancelled=cancelled)
        engine = get_engine(MODELS / "kdc_light.onnx", (448, 576), cache=cache)
        print("the engine was built" if engine.built else "the engine was there", flush=True)
        return real(replace(settings, runtime="onnxruntime"), progress, cancelled)

    return opened


if __name__ == "__main__":
    logging.basicConfig()
    os.environ["FAKE_CUDA"] = json.dumps({"gpus": [GPU], "free": 16 << 30})
    os.environ["FAKE_TRT"] = json.dumps({"version": "10.3.0", "steps": 20, "pause_s": 0.1})
    os.environ["PYTHONPATH"] = os.pathsep.join([str(FAKE), os.environ.get("PYTHONPATH", "")])
    sys.path.insert(0, str(FAKE))
    model.open_predictor = opener()
    sys.exit(main())
