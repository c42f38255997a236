"""What the modules may import."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CORE = ROOT / "kdc_core"

# A module may import its own rank and lower ones. Longest matching prefix counts.
RANKS = {
    "errors": 0, "files": 0, "memory": 0, "skeleton": 0, "grid": 0, "results": 0, "fields": 0,
    "people_json": 0,
    "config": 1, "manifest": 1,
    "data": 2, "sources": 2,
    "targets": 3,
    "data.loader": 4, "network": 4, "losses": 4, "decode": 4, "export": 4,
    "assembly": 5, "runtimes": 5, "predictor": 5, "drawing": 5, "overlays": 5,
    "evaluation": 6, "batch": 6, "data.sheet": 6,
    "training": 7,
    "bench": 8, "doctor": 8,
    "commands": 9, "cli": 9, "__main__": 9,
}  # fmt: skip
ROS = ("rclpy", "cv_bridge", "sensor_msgs", "std_msgs", "diagnostic_msgs", "lifecycle_msgs",
       "rcl_interfaces", "std_srvs", "kdc_ros")  # fmt: skip
ROS_MAY_USE = ("kdc_core", "kdc_core.predictor", "kdc_core.results", "kdc_core.drawing",
               "kdc_core.skeleton", "kdc_core.runtimes", "kdc_core.errors", "kdc_core.files",
               "kdc_core.memory", "kdc_core.sources", "kdc_core.bench.predictor")  # fmt: skip


def rank(module: str) -> int:
    name = module.removeprefix("kdc_core.")
    fitting = [key for key in RANKS if name == key or name.startswith(f"{key}.")]
    assert fitting, f"no rank for '{module}': add it to RANKS"
    return RANKS[max(fitting, key=len)]


def imports(path: Path) -> list[str]:
    """Every module a file imports, also inside functions, but not for type checking alone."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.append(node.module)
    return found


def modules(folder: Path) -> list[Path]:
    return [p for p in sorted(folder.rglob("*.py")) if p.name != "__init__.py"]


@pytest.mark.parametrize("path", modules(CORE), ids=lambda p: str(p.relative_to(CORE)))
def test_no_module_imports_a_higher_rank(path: Path) -> None:
    own = rank(".".join(path.relative_to(CORE).with_suffix("").parts))
    for module in imports(path):
        if module.startswith("kdc_core."):
            assert rank(module) <= own, f"rank {own} imports {module}, rank {rank(module)}"


def test_the_core_imports_nothing_of_ros() -> None:
    for path in CORE.rglob("*.py"):
        for module in imports(path):
            assert module.split(".")[0] not in ROS, f"{path} imports {module}"


def test_the_node_uses_only_the_core_s_outer_modules() -> None:
    for path in (ROOT / "kdc_ros").glob("*.py"):
        for module in imports(path):
            if module.split(".")[0] == "kdc_core":
                assert module.startswith(ROS_MAY_USE[1:]) or module == "kdc_core", (
                    f"{path.name} imports {module}"
                )


BLOCKED = """
import sys
for name in ("torch", "rclpy", "cv_bridge", "lightning", "onnx", "pycocotools"):
    sys.modules[name] = None
import cv2
from kdc_core.predictor import Predictor
predictor = Predictor.from_pretrained("kdc_light", confidence=0.05)
image = cv2.imread(sys.argv[1])[..., ::-1]
print(len(predictor(image)))
"""


def test_prediction_needs_neither_torch_nor_ros(samples: Path) -> None:
    picture = sorted(samples.glob("*.jpg"))[0]
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED, str(picture)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 0
