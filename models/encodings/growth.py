"""Grids that grow during a run: when, and over how many cells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import AfterValidator


def _ascending(grow: tuple[float, ...]) -> tuple[float, ...]:
    if list(grow) != sorted(set(grow)) or not all(0 < share < 1 for share in grow):
        raise ValueError("should ascend between 0 and 1")
    return grow


Grow = Annotated[tuple[float, ...], AfterValidator(_ascending)]  # shares of the run


def sides_of(final: Sequence[int], factor: float, growths: int) -> list[tuple[int, ...]]:
    """Cells on each axis before the first growth, after it, ..., `final`: each time `factor` > 1 times as many."""
    return [tuple(max(round(n / factor**left), 1) for n in final) for left in range(growths, -1, -1)]


def due(grow: Sequence[float], progress: float) -> int:
    """How many of the growths are due at `progress` in [0, 1]."""
    return sum(progress >= share for share in grow)
