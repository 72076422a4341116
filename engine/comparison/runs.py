"""Runs as their folders record them: config, numbers, curves; grouped where only the seed differs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine import early
from utils.config.loading import flattened
from utils.errors import InputError
from utils.evaluation.results import read_results
from utils.log import METRICS, rows_of

SEED = "seed"
NOT_COMPARED = ("output", "device", "train.threads", "data.ram", "data.cache")  # do not change what a run is
ABSENT = "-"


@dataclass(frozen=True)
class RunRecord:
    """One run. config: values by dotted key. numbers: those of metrics.json by dotted name."""

    folder: Path
    config: Mapping[str, Any]
    numbers: Mapping[str, float]

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.folder.resolve().name

    def curve(self, name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Steps [N] and values [N] of a number of metrics.jsonl; N is 0 where it was never logged."""
        rows = [row for row in self._rows if isinstance(row.get(name), int | float)]
        found = np.array([[row["step"], row[name]] for row in rows], np.float64).reshape(-1, 2)
        return found[:, 0], found[:, 1]

    @cached_property
    def _rows(self) -> list[dict[str, Any]]:
        return list(rows_of(self.folder / METRICS))

    @staticmethod
    def read(folder: Path) -> RunRecord:
        """A run folder. Raises InputError."""
        run = early.run_folder(folder)
        tree = early.check_config(run / "config.yaml", saved=True)
        results = read_results(run / "metrics.json")
        return RunRecord(run, dict(flattened(tree.plain())), dict(_numbers(results)))


@dataclass(frozen=True)
class Group:
    """Runs that differ in the seed alone."""

    runs: Sequence[RunRecord]

    @property
    def name(self) -> str:
        """That of the first, and how many more there are."""
        more = f" +{len(self.runs) - 1}" if len(self.runs) > 1 else ""
        return f"{self.runs[0].name}{more}"

    def value(self, key: str) -> Any:
        """What the config says at a key."""
        return self.runs[0].config.get(key, ABSENT)

    def mean(self, name: str) -> tuple[float, float | None, int] | None:
        """Mean of a number, its spread (standard deviation of the sample; None of a single one), and of how many."""
        known = [run.numbers[name] for run in self.runs if name in run.numbers]
        if not known:
            return None
        return float(np.mean(known)), float(np.std(known, ddof=1)) if len(known) > 1 else None, len(known)


def read_runs(folders: Sequence[Path]) -> list[RunRecord]:
    """The runs of these folders. Raises InputError for a folder that is none, or that is named twice."""
    seen: set[Path] = set()
    for folder in folders:
        if folder.resolve() in seen:
            raise InputError(f"{folder}: named twice - expected different runs")
        seen.add(folder.resolve())
    return [RunRecord.read(folder) for folder in folders]


def grouped(runs: Sequence[RunRecord]) -> list[Group]:
    """The runs in groups of one config each, but for its seed, in the order of the first of each."""
    groups: dict[str, list[RunRecord]] = {}
    for run in runs:
        kept = {key: value for key, value in run.config.items() if key != SEED and key not in NOT_COMPARED}
        groups.setdefault(json.dumps(kept, sort_keys=True), []).append(run)
    return [Group(members) for members in groups.values()]


def different_keys(groups: Sequence[Group]) -> list[str]:
    """The keys of the configs whose values are not the same in all groups, in the order of the config."""
    keys = dict.fromkeys(key for group in groups for key in group.runs[0].config)
    compared = (key for key in keys if key != SEED and key not in NOT_COMPARED)
    return [key for key in compared if len({json.dumps(group.value(key)) for group in groups}) > 1]


def _numbers(block: Any, name: str = "") -> Any:
    """Names and values of the numbers in nested blocks; lists, of single views, are left out."""
    if isinstance(block, dict):
        for key, inner in block.items():
            yield from _numbers(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(block, int | float) and not isinstance(block, bool):
        yield name, float(block)
