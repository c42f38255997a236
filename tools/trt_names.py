"""Names of classes, attributes and enum members of TensorRT's Python bindings, as JSON.

    python tools/trt_names.py WHEEL... --output test/core/engine/trt_names.json

The wheels are NVIDIA's bindings (`pip download --no-deps tensorrt-cu12-bindings==10.3.0`), each
of about 1 MB. Their libraries need not be there: the bindings are imported beside stub libraries
of empty C functions, which is enough to read names and is never called. Needs cc and nm.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

# What building and running an engine may touch; layers and plugins are left out.
KEPT = """
Builder DataType EngineInspector ICudaEngine IBuilderConfig IExecutionContext IHostMemory ILogger
INetworkDefinition IOptimizationProfile IProgressMonitor IRuntimeCache IRuntimeConfig
ISerializationConfig ITensor ITimingCache Logger OnnxParser ParserError Runtime
BuilderFlag ComputeCapability CudaGraphStrategy DynamicShapesKernelSpecializationStrategy
EngineValidity ErrorCode ExecutionContextAllocationStrategy HardwareCompatibilityLevel
LayerInformationFormat MemoryPoolType NetworkDefinitionCreationFlag OnnxParserFlag
ProfilingVerbosity SerializationFlag TensorFormat TensorIOMode TensorLocation
""".split()
# Run in a process of its own: a second copy of the bindings cannot be loaded into one process.
DUMP = """
import importlib, inspect, json, sys
module = importlib.import_module(sys.argv[1])
names = {}
for name, value in vars(module).items():
    if inspect.isclass(value) and not name.startswith("_"):
        names[name] = sorted(n for n in dir(value) if not n.startswith("_"))
names["INetworkDefinition"] = [n for n in names["INetworkDefinition"] if not n.startswith("add_")]
names[""] = sorted(n for n, v in vars(module).items() if not n.startswith("_")
                   and not inspect.ismodule(v))
print(json.dumps(names))
"""


def stub_libraries(extension: Path, folder: Path) -> None:
    """Make the NVIDIA libraries that an extension module asks for, with nothing in them."""
    header = subprocess.run(
        ["readelf", "-d", str(extension)], capture_output=True, text=True, check=True
    ).stdout
    wanted = re.findall(r"NEEDED.*\[(lib(?:nv|tensorrt)[^\]]*)\]", header)
    symbols = subprocess.run(
        ["nm", "-D", "--undefined-only", str(extension)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    functions = re.findall(
        r"U (create\w+_INTERNAL|get\w+Registry|getNvOnnxParserVersion|initLibNv\w+|_ZN\d+nv\w+)",
        symbols,
    )
    source = folder / "stub.c"
    source.write_text("".join(f"void *{name}(void) {{ return 0; }}\n" for name in functions))
    for library in wanted:
        command = ["cc", "-shared", "-fPIC", f"-Wl,-soname,{library}"]
        subprocess.run([*command, "-o", str(folder / library), str(source)], check=True)


def read_names(wheel: Path) -> tuple[str, dict[str, list[str]]]:
    """(version, {class: its public names}) of a bindings wheel; "" holds the module's own."""
    found = re.match(
        r"(tensorrt(?:_rtx)?)\w*_bindings-([\d.]+)-|tensorrt_bindings-([\d.]+)-", wheel.name
    )
    if found is None:
        raise SystemExit(f"'{wheel}' is no wheel of TensorRT's bindings")
    rtx = wheel.name.startswith("tensorrt_rtx")
    version = ("rtx " if rtx else "") + (found[2] or found[3])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        zipfile.ZipFile(wheel).extractall(folder)
        package = "tensorrt_rtx_bindings" if rtx else "tensorrt_bindings"
        extension = folder / package / ("tensorrt_rtx.so" if rtx else "tensorrt.so")
        stub_libraries(extension, folder)
        done = subprocess.run(
            [sys.executable, "-c", DUMP, package],
            capture_output=True,
            text=True,
            env=os.environ | {"LD_LIBRARY_PATH": name, "PYTHONPATH": name},
        )
        if done.returncode:
            raise SystemExit(f"'{wheel}' does not import beside stubs: {done.stderr[-500:]}")
    names = json.loads(done.stdout.splitlines()[-1])
    return version, {name: names[name] for name in ["", *sorted(KEPT)] if name in names}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("wheels", nargs="+", type=Path)
    parser.add_argument("--output", required=True, type=Path)
    options = parser.parse_args()
    names = dict(read_names(wheel) for wheel in options.wheels)
    lines = [
        f"{json.dumps(version)}: {{\n"
        + ",\n".join(f" {json.dumps(name)}: {json.dumps(own)}" for name, own in classes.items())
        + "\n}"
        for version, classes in names.items()
    ]
    options.output.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    print(f"{len(names)} versions, {options.output.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
