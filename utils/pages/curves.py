"""Curves over the steps of a run as drawings of a page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from utils.pages.html import text
from utils.pictures.ticks import round_step

WIDTH, HEIGHT = 520, 240
LEFT, RIGHT, TOP, BOTTOM = 62, 10, 26, 24  # margins
MOST_POINTS = 300
COLORS = ("#1f5fa8", "#d9822b", "#2e8b57", "#b03060", "#6a5acd", "#8b6914", "#20808d", "#777777")
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Curve:
    """Values [N] at steps [N], which rise; what is not finite is left out."""

    name: str
    steps: Floats
    values: Floats

    def thinned(self, logarithmic: bool) -> Curve:
        """The finite points, above zero where the axis is logarithmic; of many, the means of as many equal groups."""
        kept = np.isfinite(self.values) & ((self.values > 0) | (not logarithmic))
        steps, values = self.steps[kept], self.values[kept]
        if len(steps) <= MOST_POINTS:
            return Curve(self.name, steps, values)
        groups = np.array_split(np.arange(len(steps)), MOST_POINTS)
        return Curve(self.name, *(np.array([x[group].mean() for group in groups]) for x in (steps, values)))


@dataclass(frozen=True)
class _Axis:
    """Numbers from low to high along `length` pixels from `start` on; logarithmic or not."""

    low: float
    high: float
    start: float
    length: float
    logarithmic: bool = False

    def at(self, values: Floats) -> Floats:
        low, high, x = ((np.log10(v) if self.logarithmic else v) for v in (self.low, self.high, values))
        return np.asarray(self.start + self.length * (x - low) / (high - low))

    def ticks(self) -> list[float]:
        """Round numbers on the axis, about five."""
        if self.logarithmic and self.high >= 4 * self.low:
            first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
            factors = (1, 2, 5) if last - first < 3 else (1,)
            every = range(first, last + 1, max(1, (last - first) // 5))
            return [x for x in (10.0**power * f for power in every for f in factors) if self.low <= x <= self.high]
        step = round_step((self.high - self.low) / 4)
        return [float(i * step) for i in range(math.ceil(self.low / step), math.floor(self.high / step) + 1)]


def chart(title: str, curves: Sequence[Curve], *, logarithmic: bool = False) -> str:
    """A drawing with a line for each curve and its last value; nothing where no curve has two points."""
    drawn = [curve for curve in (c.thinned(logarithmic) for c in curves) if len(curve.steps) > 1]
    if not drawn:
        return ""
    across, up = _axes(drawn, logarithmic)
    parts = [_grid(across, up), f'<text class="t" x="{LEFT}" y="15">{text(title)}</text>']
    parts += [_line(curve, across, up, color) for curve, color in zip(drawn, _colors(len(drawn)), strict=True)]
    svg = f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}">{"".join(parts)}</svg>'
    return f'<figure class="wide">{svg}<figcaption>{_legend(drawn)}</figcaption></figure>'


def _colors(count: int) -> list[str]:
    return [COLORS[i % len(COLORS)] for i in range(count)]


def _legend(curves: Sequence[Curve]) -> str:
    entries = (
        f'<span style="color:{color}">&#9632;</span> {text(curve.name)} {curve.values[-1]:.4g}'
        for curve, color in zip(curves, _colors(len(curves)), strict=True)
    )
    return " &nbsp; ".join(entries)


def _axes(curves: Sequence[Curve], logarithmic: bool) -> tuple[_Axis, _Axis]:
    steps, values = (np.concatenate(x) for x in zip(*((c.steps, c.values) for c in curves), strict=True))
    low, high = float(values.min()), float(values.max())
    if logarithmic:
        low, high = low / 1.1, high * 1.1
    else:
        margin = 0.05 * (high - low) or max(abs(high), 1.0) * 0.05
        low, high = low - margin, high + margin
    across = _Axis(float(steps.min()), float(steps.max()), LEFT, WIDTH - LEFT - RIGHT)
    return across, _Axis(low, high, HEIGHT - BOTTOM, TOP + BOTTOM - HEIGHT, logarithmic)


def _grid(across: _Axis, up: _Axis) -> str:
    parts = []
    for value in up.ticks():
        y = float(up.at(np.array(value)))
        parts.append(f'<line class="g" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="a" text-anchor="end" x="{LEFT - 5}" y="{y + 4:.1f}">{value:.6g}</text>')
    for value in across.ticks():
        x = float(across.at(np.array(value)))
        parts.append(f'<text class="a" text-anchor="middle" x="{x:.1f}" y="{HEIGHT - 6}">{value:.6g}</text>')
    return "".join(parts)


def _line(curve: Curve, across: _Axis, up: _Axis, color: str) -> str:
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(across.at(curve.steps), up.at(curve.values), strict=True))
    return f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="1.5"/>'
