"""The pages on runtimes, deployment, installation and troubles agree with the code."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import yaml

from kdc_core.bench.runtimes import PRECISIONS
from kdc_core.inference.runtimes import choice
from kdc_core.inference.selftest import BOUNDS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "runtimes.md").read_text(encoding="utf-8")
TROUBLES = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
DEPLOYMENT = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    return PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]


def anchors(text: str) -> list[str]:
    """Of the headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", text, re.M)
    return [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles]


def first_cells(text: str) -> list[str]:
    """Beginnings of the rows of tables, without the heads."""
    rows = [line[2:].split(" | ")[0] for line in text.splitlines() if line.startswith("| ")]
    return [row for row in rows if row.startswith("`")]


def texts(folder: Path) -> str:
    """Every string of the sources, one a line; what is filled in is left out."""
    found = []
    for path in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = [p.value if isinstance(p, ast.Constant) else "" for p in node.values]
                found.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return "\n".join(found)


def pieces_of_messages(tables: str) -> list[str]:
    """What stands literally in the messages of the tables' first cells."""
    messages = re.findall(r"`([^`]+)`", " ".join(first_cells(tables)))
    return [piece for message in messages for piece in message.split("...") if piece]


def test_every_message_explained_is_one_that_is_said() -> None:
    said = texts(ROOT / "kdc_core" / "inference")
    said += "".join(said.replace("{doing}", doing) for doing in ("building", "loading", "running"))
    pieces = pieces_of_messages(section("What it says, and what to do"))
    assert len(pieces) > 25
    assert not [piece for piece in pieces if piece not in said]


def test_every_trouble_is_one_that_is_told() -> None:
    said = texts(ROOT / "kdc_core") + texts(ROOT / "kdc_ros")
    pieces = pieces_of_messages(TROUBLES)
    assert len(pieces) > 60
    assert not [piece for piece in pieces if piece not in said]


def test_the_keys_of_the_bench_are_all_there() -> None:
    source = (ROOT / "kdc_core" / "bench" / "runtimes.py").read_text(encoding="utf-8")
    keys = {*re.findall(r'figures\["(\w+)"\]', source), *PRECISIONS.values()}
    assert len(keys) == 9
    assert keys == {cell.strip("`") for cell in first_cells(section("How fast"))}


def test_runtimes_stand_in_the_order_of_auto() -> None:
    named = [cell.strip("`") for cell in first_cells(section("What `auto` takes"))]
    assert tuple(named[:-1]) == choice.order(one_size=False)
    assert set(named) == set(choice.RUNTIMES)


def test_bounds_of_the_self_test_are_those_of_the_code() -> None:
    rows = re.findall(r"^\| (fp32|fp16|int8) \| ([\d.]+) px \| ([\d.]+) \|$", PAGE, re.M)
    assert len(rows) == 3
    for precision, pixels, overlap in rows:
        bound = BOUNDS["int8-cpu" if precision == "int8" else precision]
        assert (bound.keypoint_px, bound.mask_iou) == (float(pixels), float(overlap))


def test_parameters_of_a_provisioned_robot_are_the_nodes() -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", DEPLOYMENT, re.S)
    names = set(yaml.safe_load(block)["/**"]["ros__parameters"])
    known = yaml.safe_load((ROOT / "config" / "kdc.yaml").read_text(encoding="utf-8"))
    assert "engine_policy" in names <= set(known["/**"]["ros__parameters"])


PAGES = ["runtimes.md", "deployment.md", "install.md", "troubleshooting.md"]


@pytest.mark.parametrize("page", PAGES)
def test_pages_and_files_named_exist_and_readme_leads_there(page: str) -> None:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (ROOT / "docs" / link).exists(), link
    for name, anchor in re.findall(r"\]\(([\w./]*)#([\w-]+)\)", text):
        assert anchor in anchors((ROOT / "docs" / (name or page)).read_text(encoding="utf-8"))
    for path in re.findall(r"`((?:docker|tools|examples|config)/[\w.]+)`", text):
        assert (ROOT / path).exists(), path
    assert f"docs/{page}" in (ROOT / "README.md").read_text(encoding="utf-8")
