#!/usr/bin/env python3
"""Print docs/parameters.md, from the table in kdc_ros/parameters.py."""

from __future__ import annotations

from dataclasses import Field
from typing import Any

from kdc_ros.parameters import TABLE

HEAD = """# Parameters of the node

Made by `python tools/parameter_table.py > docs/parameters.md`; `config/kdc.yaml` has the same
defaults. Parameters that may change do so while the node runs, from the next image on; the others
need cleanup and configure. Values of another type or out of range are refused with the reason; a
misspelt name is warned of.

| name | type | default | allowed | may change | meaning |
| --- | --- | --- | --- | --- | --- |
"""
FOOT = """
Beside these there are ROS's own: `use_sim_time`, and for the input
`qos_overrides.<topic>.subscription.<policy>`, for the outputs
`qos_overrides.<topic>.publisher.<policy>`, with the topic's full name, as in
`qos_overrides./front/kdc/labels.publisher.reliability`; policies are `reliability`, `history`,
`depth` and `durability`. They do nothing for `~/info`, `/diagnostics` and
`/humans/...`, nor `reliability` for `depth` and `camera_info`, nor `durability` for
`camera_info`: there the node follows the publishers. With a value that ROS does not know,
configure or activate fails and names it.
"""
TYPES = {bool: "bool", int: "integer", float: "double", str: "string"}


def main() -> None:
    print(text(), end="")


def text() -> str:
    """The whole file."""
    return HEAD + "".join(map(_line, TABLE.values())) + FOOT


def _line(row: Field[Any]) -> str:
    choices, limits = row.metadata["choices"], row.metadata["limits"]
    allowed = ", ".join(map(str, choices)) if choices else ""
    if limits:
        least = row.metadata["least"]
        low = f"0, or {least}" if least else f"{limits[0]:_}"
        allowed = f"{low} to {limits[1]:_}".replace("_", " ")
    default = str(row.default).lower() if isinstance(row.default, bool) else str(row.default)
    change = "yes" if row.metadata["dynamic"] else ""
    cells = (f"`{row.name}`", TYPES[type(row.default)], default, allowed, change)
    return f"| {' | '.join(cells)} | {row.metadata['text']} |\n"


if __name__ == "__main__":
    main()
