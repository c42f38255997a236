"""Stands for TensorRT-RTX where the script's version is one of its."""

from importlib import import_module

scripted = import_module("scripted")

if not scripted.VERSION.startswith("rtx"):
    raise ModuleNotFoundError("No module named 'tensorrt_rtx'", name="tensorrt_rtx")
globals().update(scripted.public())
