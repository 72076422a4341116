"""Cameras seen from above, as a drawing of a page."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from utils.pages.html import text

SIZE = 460  # pixels
Floats = NDArray[np.float64]


def camera_map(centers: Floats, forward: Floats, up: Floats, *, colors: Sequence[str], names: Sequence[str]) -> str:
    """Cameras on the plane across `up`: a dot, a line along the optical axis, the unit circle.

    centers, forward: [C, 3], up: [3], scene frame, where the unit sphere is. colors, names: of each camera.
    """
    right, front = plane_across(up)
    flat = np.stack([centers @ right, -(centers @ front)], axis=1)
    look = np.stack([forward @ right, -(forward @ front)], axis=1)
    reach = 1.15 * max(1.1, float(np.quantile(np.abs(flat).max(axis=1), 0.98)))
    shapes = [f'<circle r="1" fill="#eef4fb" stroke="#58a" stroke-width="{reach / 250:.4f}"/>']
    for (x, y), (u, v), color, name in zip(flat, look, colors, names, strict=True):
        end = f'x2="{x + 0.1 * reach * u:.4f}" y2="{y + 0.1 * reach * v:.4f}"'
        line = f'<line x1="{x:.4f}" y1="{y:.4f}" {end} stroke="{color}" stroke-width="{reach / 250:.4f}"/>'
        dot = f'<circle cx="{x:.4f}" cy="{y:.4f}" r="{reach / 70:.4f}" fill="{color}">'
        shapes.append(f"{line}{dot}<title>{text(name)}</title></circle>")
    box = f"{-reach:.4f} {-reach:.4f} {2 * reach:.4f} {2 * reach:.4f}"
    return f'<svg width="{SIZE}" height="{SIZE}" viewBox="{box}">{"".join(shapes)}</svg>'


def plane_across(up: Floats) -> tuple[Floats, Floats]:
    """Two unit vectors [3] that span the plane across a direction [3], right-handed with it."""
    start = np.eye(3)[int(np.abs(up).argmin())]
    right = np.cross(start, up)
    right /= np.linalg.norm(right)
    return right, np.cross(up, right)
