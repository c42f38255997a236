"""Python classes of ROS messages from their definitions, where ROS is rclpy's wheels.

    python tools/build_messages.py DEFINITIONS OUTPUT

DEFINITIONS has PACKAGE/msg/NAME.msg; OUTPUT is then a folder for PYTHONPATH. The generators are
those of the wheels. CMake, by which robots build messages, is left out: each package becomes one
extension module, for Python and Fast DDS alone. Needs a C++ compiler, Python's headers and
setuptools.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
from setuptools import Distribution, Extension

PREFIX = Path(sys.prefix)
DEPENDENCIES = ("builtin_interfaces", "geometry_msgs", "std_msgs")  # of the definitions
LIBRARIES = (
    *(
        f"{package}__rosidl_{part}"
        for package in DEPENDENCIES
        for part in ("generator_c", "generator_py", "typesupport_c", "typesupport_fastrtps_c")
    ),
    "rosidl_runtime_c",
    "rosidl_typesupport_c",
    "rosidl_typesupport_fastrtps_c",
    "fastcdr",
    "rcutils",
)


def main(definitions: Path, output: Path) -> None:
    """Build every package; the output is there when all is done, or not at all."""
    output.parent.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("AMENT_PREFIX_PATH", str(PREFIX))  # where the generators' templates are
    with tempfile.TemporaryDirectory(dir=output.parent) as temporary:
        made = Path(temporary) / "made"
        extensions = [
            extension(package, made)
            for package in sorted(definitions.iterdir())
            if package.is_dir()
        ]
        build(extensions, made, Path(temporary) / "objects")
        made.rename(output)


def extension(package: Path, made: Path) -> Extension:
    """Generate a package's sources below `made`."""
    # Outside of main, `--help` and mypy need no ROS.
    from rosidl_adapter.cli import TranslateMsgToIDL
    from rosidl_generator_c.cli import GenerateC
    from rosidl_generator_py.cli import GeneratePython
    from rosidl_generator_type_description.cli import HashTypeDescription
    from rosidl_typesupport_c.cli import GenerateCTypesupport
    from rosidl_typesupport_fastrtps_c.cli import GenerateFastRTPSCTypesupport

    name, folder = package.name, made / package.name
    messages = [f"{package.resolve()}:msg/{m.name}" for m in sorted(package.glob("msg/*.msg"))]
    fast_dds = ["rosidl_typesupport_fastrtps_c"]
    with contextlib.redirect_stdout(sys.stderr):
        idl = TranslateMsgToIDL("idl").translate(name, messages, [], folder)
        given = (name, idl, [str(PREFIX / "share")], folder)
        hashes = HashTypeDescription("hash").generate_type_hashes(*given)
        GenerateC("c").generate(*given, type_description_files=hashes)
        GenerateFastRTPSCTypesupport("fastrtps_c").generate(*given)
        GenerateCTypesupport("c", typesupport_implementations=fast_dds).generate(*given)
        python = GeneratePython("py", typesupport_implementations=["rosidl_typesupport_c"])
        python.generate(*given)
    (folder / "__init__.py").touch()
    return Extension(
        f"{name}.{name}_s__rosidl_typesupport_c",
        [str(path) for ending in ("c", "cpp") for path in sorted(folder.rglob(f"*.{ending}"))],
        include_dirs=[
            str(made),
            np.get_include(),
            *map(str, (PREFIX / "include").iterdir()),
        ],
        library_dirs=[str(PREFIX / "lib")],
        runtime_library_dirs=[str(PREFIX / "lib")],
        libraries=list(LIBRARIES),
        extra_compile_args=["-O0", "-w"],
    )


def build(extensions: list[Extension], made: Path, objects: Path) -> None:
    """Compile what was generated, each into its package."""
    distribution = Distribution({"name": "messages", "ext_modules": extensions})
    command = distribution.get_command_obj("build_ext")
    command.build_lib, command.build_temp = str(made), str(objects)
    command.parallel = len(extensions)
    with contextlib.redirect_stdout(sys.stderr):
        distribution.run_command("build_ext")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
