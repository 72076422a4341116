"""What a run folder says of itself: logs, numbers, pictures, cameras; read without a model, a GPU or the data.

What is missing or damaged is left out: a page of the rest is better than none.
"""

from __future__ import annotations

import os
import shlex
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engine.saved import SavedScene, read_saved
from utils.checkpoint import newest_checkpoint
from utils.commands import noted_commands, words_of
from utils.errors import InputError
from utils.evaluation.results import read_results
from utils.log import MESSAGES, METRICS, rows_of, text_of
from utils.pages.curves import Curve

MOST_FILES = 500
# The script that makes a file of which no command is known, by the beginning of its name.
USUAL = {
    "videos/": "render.py",
    "meshes/reference": "evaluate.py",
    "meshes/": "extract_mesh.py",
    "asset": "bake.py",
    "metrics.json": "evaluate.py",
    "report.html": "report.py",
}


@dataclass(frozen=True)
class Contents:
    """A run folder, read. lacking: what could not be read, one line each."""

    folder: Path
    results: dict[str, Any]
    curves: dict[str, Curve]
    messages: list[tuple[int, str]]  # step and text
    scene: SavedScene | None
    step: int | None  # of the newest checkpoint
    lacking: list[str]

    @property
    def warnings(self) -> list[tuple[int, str]]:
        """What the run was warned of, each text once, with the step at which it was said first."""
        first: dict[str, int] = {}
        for step, text in self.messages:
            if text.startswith("warning: "):
                first.setdefault(text.removeprefix("warning: "), step)
        return [(step, text) for text, step in first.items()]

    @property
    def views_picture(self) -> Path | None:
        """The newest picture of held-out views."""
        return max((self.folder / "images").glob("step_*.png"), default=None)

    @property
    def config(self) -> str:
        """config.yaml as text."""
        return text_of(self.folder / "config.yaml")


def read_contents(folder: Path) -> Contents:
    """Read a run folder. Raises InputError where it is none."""
    if not (folder / "config.yaml").is_file():
        raise InputError(f"{folder}: no config.yaml - expected a run folder")
    lacking: list[str] = []
    scene, step = _scene(folder, lacking)
    messages = [(int(row["step"]), str(row.get("text", ""))) for row in rows_of(folder / MESSAGES)]
    curves = _curves(list(rows_of(folder / METRICS)))
    return Contents(folder, read_results(folder / "metrics.json"), curves, messages, scene, step, lacking)


def _scene(folder: Path, lacking: list[str]) -> tuple[SavedScene | None, int | None]:
    checkpoint = newest_checkpoint(folder / "checkpoints")
    if checkpoint is None:
        lacking.append("no complete checkpoint: cameras are not shown")
        return None, None
    try:
        saved = read_saved(checkpoint)
    except InputError as error:
        lacking.append(str(error))
        return None, None
    return saved.scene, saved.step


def _curves(rows: list[dict[str, Any]]) -> dict[str, Curve]:
    """Every number that was logged, by its name; null is not a number."""
    found: dict[str, dict[int, float]] = defaultdict(dict)
    for row in rows:
        for name, value in row.items():
            if name != "step" and isinstance(value, int | float | None):
                found[name][row["step"]] = float("nan") if value is None else float(value)
    return {
        name: Curve(name, np.array(sorted(values), np.float64), np.array([values[step] for step in sorted(values)]))
        for name, values in found.items()
    }


def files_and_commands(folder: Path) -> list[tuple[str, str, str]]:
    """What lies in the folder, its size, and the command that makes it again: the one that did, or the usual one."""
    known = noted_commands(folder)
    rows = [(name, _size(folder / name), _command(name, known, folder)) for name in _names(folder)]
    return rows[:MOST_FILES]


def _names(folder: Path) -> list[str]:
    """Files at the top and one below; folders of checkpoints, pictures and assets as one entry."""
    whole = ("checkpoints", "images", "asset")
    folders = [entry for entry in folder.iterdir() if entry.is_dir()]
    names = [f"{entry.name}/" for entry in folders if entry.name in whole]
    nested = (path for entry in folders if entry.name not in whole for path in entry.glob("*"))
    files = [path for path in [*folder.iterdir(), *nested] if path.is_file() and not path.name.startswith(".")]
    return sorted([*names, *(str(path.relative_to(folder)) for path in files)])


def _command(name: str, known: dict[str, str], folder: Path) -> str:
    own = known.get(name.rstrip("/"))
    if own is not None:
        return own
    usual = next((script for start, script in USUAL.items() if name.startswith(start)), None)
    return shlex.join([*words_of(usual), str(folder)]) if usual else known.get("config.yaml", "")


def _size(path: Path) -> str:
    size = sum(f.stat().st_size for f in path.rglob("*") if f.is_file()) if path.is_dir() else os.path.getsize(path)
    return f"{size / 2**20:.1f} MiB" if size >= 2**20 else f"{size / 1024:.1f} KiB"
