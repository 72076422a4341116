"""metrics.json: the numbers of a run, in blocks that different scripts fill."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from utils.files import write_json

BLOCKS = ("images", "mesh", "train")


def read_results(path: Path) -> dict[str, Any]:
    """The blocks of `path`, null where a thing was not measured; all null when there is no readable file."""
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        found = {}
    found = found if isinstance(found, dict) else {}
    return {name: found.get(name) for name in BLOCKS}


def update_results(path: Path, **blocks: dict[str, Any] | None) -> dict[str, Any]:
    """Replace some of the blocks "images", "mesh" and "train", keep the others, write atomically; returns all."""
    unknown = set(blocks) - set(BLOCKS)
    if unknown:
        raise ValueError(f"metrics.json has no block {sorted(unknown)}")
    results = read_results(path) | blocks
    write_json(path, results)
    return results
