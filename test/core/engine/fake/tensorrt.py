"""Stands for full TensorRT where the script's version is one of its."""

from importlib import import_module

scripted = import_module("scripted")

if scripted.VERSION.startswith("rtx"):
    raise ModuleNotFoundError("No module named 'tensorrt'", name="tensorrt")
globals().update(scripted.public())
