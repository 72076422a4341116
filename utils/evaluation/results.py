"""metrics.json: the numbers of a run, in blocks that different scripts fill."""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any

from utils.files import write_json

BLOCKS = ("images", "mesh", "train")
# Blocks that are there only where something was measured: how far poses were moved, and numbers of the same kind by
# what they were measured on or by: splits other than "test", references of a mesh, protocols.
NAMED = ("poses", "splits", "references", "protocols")
RENDERINGS, TRUTH = "renderings", "truth"  # folders of the views that are kept


def rendering_name(name: str) -> str:
    """The file of a view's rendering: its name as a PNG, without the folders that it may lie in."""
    return f"{'_'.join(PurePosixPath(name).with_suffix('').parts)}.png"


def read_results(path: Path) -> dict[str, Any]:
    """The blocks of `path`, null where a thing was not measured; all null when there is no file.

    A file that is none of ours, as one that was cut short, is moved aside with a line on stderr: nothing is lost.
    """
    try:
        found = json.loads(path.read_text("utf-8"))
        if not isinstance(found, dict):
            raise ValueError("not a mapping")
    except FileNotFoundError:
        found = {}
    except (OSError, ValueError) as error:
        found, aside = {}, path.with_name(f"{path.name}.damaged")
        with suppress(OSError):
            os.replace(path, aside)
        print(f"warning: {path}: cannot be read ({error}) - kept as {aside.name}, and begun anew", file=sys.stderr)
    named = {name: found[name] for name in NAMED if isinstance(found.get(name), dict)}
    return {name: found.get(name) for name in BLOCKS} | named


def update_results(path: Path, **blocks: dict[str, Any] | None) -> dict[str, Any]:
    """Replace some of the blocks "images", "mesh" and "train", keep the others, write atomically; returns all.

    A block that is None was not measured now: what was measured before stays. Of those in `NAMED` the
    entries are replaced one by one.
    """
    unknown = set(blocks) - {*BLOCKS, *NAMED}
    if unknown:
        raise ValueError(f"metrics.json has no block {sorted(unknown)}")
    results = read_results(path)
    for name, block in blocks.items():
        if block is not None:
            results[name] = {**results.get(name, {}), **block} if name in NAMED else block
    write_json(path, results)
    return results
