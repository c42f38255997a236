"""What the rooms may import, and what needs which library."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CORE = ROOT / "kdc_core"

# A module imports from its own row and from those below.
ROOMS = (
    ("commands", "cli", "__main__", "batch", "doctor"),
    ("bench",),
    ("training",),
    ("evaluation",),
    ("datacheck",),
    ("show",),
    ("inference",),
    ("network",),
    ("data",),
    ("codec",),
    ("config", "config_file", "errors", "files", "memory", "opencv", "stopping"),
)
ROS = {
    "cv_bridge",
    "diagnostic_msgs",
    "hri_msgs",
    "geometry_msgs",
    "kdc_ros",
    "lifecycle_msgs",
    "rcl_interfaces",
    "rclpy",
    "sensor_msgs",
    "std_msgs",
    "std_srvs",
    "vision_msgs",
    "visualization_msgs",
}
ROS_MAY_USE = (
    "inference",
    "show",
    "bench",
    "codec.results",
    "codec.skeleton",
    "commands.options",
    "commands.outputs",
    "commands.printing",
    "commands.viewing",
    "data.bits16",
    "data.encoded",
    "config",
    "errors",
    "files",
    "memory",
    "opencv",
    "stopping",
)
FILES = [p for p in sorted(CORE.rglob("*.py")) if p != CORE / "__init__.py"]


def row(room: str) -> int:
    found = [index for index, rooms in enumerate(ROOMS) if room in rooms]
    assert found, f"no row for the room '{room}': add it to ROOMS"
    return found[0]


def imports(path: Path) -> list[str]:
    """Every module a file imports, also inside functions and for type checking alone."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            modules = [name for name in names if is_module(name)]
            found += modules if len(modules) == len(names) else [node.module, *modules]
    return found


def is_module(name: str) -> bool:
    path = ROOT / Path(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


def core_imports(path: Path) -> list[str]:
    """Modules of the core that a file imports, without the package's name."""
    return [m.removeprefix("kdc_core.") for m in imports(path) if m.startswith("kdc_core.")]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(CORE)))
def test_a_room_imports_only_from_those_below_it(path: Path) -> None:
    room = path.relative_to(CORE).parts[0].removesuffix(".py")
    for module in core_imports(path):
        other = module.split(".")[0]
        assert row(other) >= row(room), f"'{room}' imports '{module}'"


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = {
        ".".join(p.relative_to(CORE).with_suffix("").parts): set(core_imports(p)) for p in FILES
    }
    done: set[str] = set()

    def visit(module: str, path: list[str]) -> None:
        assert module not in path, f"a circle: {' -> '.join([*path, module])}"
        if module not in done:
            for other in graph.get(module, ()):
                visit(other, [*path, module])
            done.add(module)

    for module in graph:
        visit(module, [])


def test_the_core_imports_nothing_of_ros() -> None:
    for path in CORE.rglob("*.py"):
        found = {module.split(".")[0] for module in imports(path)} & ROS
        assert not found, f"{path} imports {found}"


def test_the_node_uses_only_the_outer_rooms_of_the_core() -> None:
    for path in sorted((ROOT / "kdc_ros").glob("*.py")):
        for module in core_imports(path):
            allowed = any(module == m or module.startswith(f"{m}.") for m in ROS_MAY_USE)
            assert allowed, f"{path.name} imports {module}"


def test_opencv_is_handed_no_name_of_a_file() -> None:
    """It crashes of some and takes others for patterns: these two make names of their own."""
    own = {CORE / "data" / "videos.py", CORE / "show" / "video_file.py"}
    named = {"imread", "imreadmulti", "imwrite", "imwritemulti", "VideoCapture", "VideoWriter"}
    used = {
        path
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and node.attr in named
    }
    assert used == own


def blocked(*names: str) -> str:
    """The beginning of a script in which these packages cannot be imported."""
    return f"import sys\nfor name in {names}:\n    sys.modules[name] = None\n"


PREDICT = """
import cv2
from kdc_core import Predictor
predictor = Predictor.from_pretrained("kdc_light", confidence=0.05, image_format="bgr")
print(len(predictor(cv2.imread(sys.argv[1]))))
"""
DESCRIBE = """
from kdc_core.codec.codec import Codec
from kdc_core.config_file import load_preset
from kdc_core.network.backbones import BACKBONES
print(len(Codec.of(load_preset("oracle")).edges) + len(BACKBONES))
"""


@pytest.mark.parametrize("script", [PREDICT, DESCRIBE], ids=["predict", "codec and backbones"])
def test_needs_neither_torch_nor_ros(script: str, samples: Path) -> None:
    image = sorted(samples.glob("*.jpg"))[0]
    script = blocked("torch", "rclpy", "cv_bridge", "lightning", "onnx", "pycocotools") + script
    done = subprocess.run(
        [sys.executable, "-c", script, str(image)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 0
