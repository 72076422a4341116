"""Curves as a picture: axes with round numbers, lines that differ in color, a legend."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from utils.pictures.images import Picture
from utils.pictures.ticks import round_step

# That most people can distinguish, whatever their vision of color. Source: Okabe and Ito 2008, without yellow.
COLORS = ((0, 114, 178), (213, 94, 0), (0, 158, 115), (204, 121, 167), (86, 180, 233), (230, 159, 0), (90, 90, 90))
PAPER, INK, GRID = (255, 255, 255), (40, 40, 40), (225, 225, 225)
FINE = 2  # drawn so many times larger, then made small: smooth lines
MARGIN = (64, 30, 16, 30)  # left, top, right, bottom, pixels
FONT, ROW = 12, 17
ROOM = 0.04  # above and below the curves
DASHES = ((1, 0), (6, 3), (2, 3))  # pixels on and off, when there are more curves than colors


@dataclass(frozen=True)
class Curve:
    """Values [N] at places [N], with a label; what is not finite is left out."""

    label: str
    x: NDArray[np.floating]
    y: NDArray[np.floating]


def chart(curves: Sequence[Curve], title: str, *, width: int = 640, height: int = 360) -> Picture:
    """The curves over one another, with a legend below, [H, W, 3]; H is `height` and a row for each curve."""
    known = [(curve.x[ok], curve.y[ok]) for curve in curves for ok in [np.isfinite(curve.x) & np.isfinite(curve.y)]]
    left, top, right, bottom = (FINE * side for side in MARGIN)
    page = Image.new("RGB", (FINE * width, FINE * (height + ROW * len(curves) + ROW // 2)), PAPER)
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(FINE * FONT)
    box = (left, top, FINE * width - right, FINE * height - bottom)
    both = (np.concatenate([pair[axis] for pair in known] or [np.zeros(0)]) for axis in (0, 1))
    spans = [_span(values, room) for values, room in zip(both, (0.0, ROOM), strict=True)]
    draw.text((FINE * width / 2, top / 2), title, fill=INK, font=font, anchor="mm")
    _axes(draw, font, box, spans)
    for number, (curve, (x, y)) in enumerate(zip(curves, known, strict=True)):
        color, dash = COLORS[number % len(COLORS)], DASHES[number // len(COLORS) % len(DASHES)]
        points = np.column_stack([_placed(x, spans[0], box[0], box[2]), _placed(y, spans[1], box[3], box[1])])
        _line(draw, points, color, dash)
        middle = FINE * (height + ROW * number + ROW // 2)
        _line(draw, np.array([[left, middle], [left + FINE * 30, middle]]), color, dash)
        draw.text((left + FINE * 38, middle), curve.label, fill=INK, font=font, anchor="lm")
    small = page.resize((width, page.height // FINE), Image.Resampling.LANCZOS)
    return np.array(small)


def round_numbers(low: float, high: float, about: int = 5) -> list[float]:
    """About so many numbers from `low` to `high`: multiples of 1, 2 or 5 times a power of ten."""
    step = round_step((high - low) / about)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(number * step, 12) for number in range(first, last + 1)]


def _span(values: NDArray[np.floating], room: float) -> tuple[float, float]:
    """The range of an axis: that of the values [N] and a share of it on both sides; wider where they are all one."""
    if len(values) == 0:
        return 0.0, 1.0
    low, high = float(values.min()), float(values.max())
    beside = room * (high - low)
    return (low - beside, high + beside) if high > low else (low - max(abs(low), 1) / 2, high + max(abs(high), 1) / 2)


def _placed(values: NDArray[np.floating], span: tuple[float, float], start: float, end: float) -> NDArray[np.floating]:
    """[N] where values [N] of an axis with this range lie between two pixels."""
    return np.asarray(start + (values - span[0]) / (span[1] - span[0]) * (end - start))


def _axes(
    draw: ImageDraw.ImageDraw,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    box: tuple[int, int, int, int],
    spans: Sequence[tuple[float, float]],
) -> None:
    """Grid, numbers and frame. box: left, top, right, bottom. spans: ranges of x and y."""
    left, top, right, bottom = box
    for number in round_numbers(*spans[0]):
        x = float(_placed(np.array([number]), spans[0], left, right)[0])
        draw.line([(x, top), (x, bottom)], fill=GRID, width=FINE)
        draw.text((x, bottom + FINE * 5), f"{number:g}", fill=INK, font=font, anchor="mt")
    for number in round_numbers(*spans[1]):
        y = float(_placed(np.array([number]), spans[1], bottom, top)[0])
        draw.line([(left, y), (right, y)], fill=GRID, width=FINE)
        draw.text((left - FINE * 6, y), f"{number:g}", fill=INK, font=font, anchor="rm")
    draw.rectangle(box, outline=INK, width=FINE)


def _line(
    draw: ImageDraw.ImageDraw, points: NDArray[np.floating], color: tuple[int, int, int], dash: tuple[int, int]
) -> None:
    """A line through points [N, 2], in dashes; a lone point is a dot."""
    if len(points) == 1:
        (x, y), size = points[0], 2 * FINE
        draw.ellipse([x - size, y - size, x + size, y + size], fill=color)
    if len(points) < 2:
        return
    if dash[1] == 0:
        draw.line([tuple(point) for point in points.tolist()], fill=color, width=2 * FINE, joint="curve")
        return
    length = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
    period = FINE * sum(dash)
    for start in np.arange(0.0, length[-1], period):
        ends = np.linspace(start, min(start + FINE * dash[0], length[-1]), 4)
        piece = np.column_stack([np.interp(ends, length, points[:, axis]) for axis in (0, 1)])
        draw.line([tuple(point) for point in piece.tolist()], fill=color, width=2 * FINE)
