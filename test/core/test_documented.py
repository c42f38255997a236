"""Every public class says what its arguments and attributes are."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

CORE = Path(__file__).parents[2] / "kdc_core"
MODELS = {"BaseModel", "Section"}  # bases of classes whose annotations are fields


def public_classes() -> Iterator[tuple[str, ast.ClassDef]]:
    for path in sorted(CORE.rglob("*.py")):
        module = ".".join(path.relative_to(CORE).with_suffix("").parts)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                yield f"{module}.{node.name}", node


def arguments(node: ast.ClassDef) -> list[str]:
    """Names of the arguments of `__init__` that the class writes itself."""
    for part in node.body:
        if isinstance(part, ast.FunctionDef) and part.name == "__init__":
            given = part.args
            return [a.arg for a in (*given.posonlyargs, *given.args, *given.kwonlyargs)][1:]
    return []


def has_fields(node: ast.ClassDef) -> bool:
    """Whether it is a dataclass or a pydantic model with fields."""
    marks = [d.func if isinstance(d, ast.Call) else d for d in node.decorator_list]
    names = {ast.unparse(mark) for mark in marks} | {ast.unparse(base) for base in node.bases}
    return bool(names & {"dataclass", *MODELS}) and any(
        isinstance(part, ast.AnnAssign) for part in node.body
    )


def test_public_classes_say_what_they_are_and_name_their_arguments() -> None:
    found = dict(public_classes())
    assert {"config.Config", "codec.codec.Codec", "inference.predictor.Predictor"} <= set(found)
    faults = []
    for name, node in found.items():
        text = ast.get_docstring(node) or ""
        if not text and (arguments(node) or has_fields(node)):
            faults.append(f"{name} has no docstring")
        unnamed = [a for a in arguments(node) if not re.search(rf"\b{a}\b", text)]
        if text and unnamed:
            faults.append(f"{name} does not name {', '.join(unnamed)}")
    assert not faults, "\n".join(faults)
