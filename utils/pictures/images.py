"""Pictures of numbers: color, depth and normals as uint8, side by side, and written as PNG."""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from utils.files import write_bytes

Picture = NDArray[np.uint8]
BACKGROUND = 255  # white: turbo has no white and no normal maps to it, so what is empty is plain to see
NOT_FINITE = (255, 0, 255)
WORST_ERROR = 0.25  # at the red end of an error's colors; white is 1 from black


def write_png(path: Path, picture: NDArray[Any]) -> None:
    """Write a PNG, whole or not at all.

    picture: [H, W], [H, W, 3] or [H, W, 4] uint8, or [H, W] uint16. Raises ValueError for other types and
    StorageError where the disk refuses.
    """
    known = picture.dtype == np.uint8 or (picture.dtype == np.uint16 and picture.ndim == 2)
    if not known or not (picture.ndim == 2 or (picture.ndim == 3 and picture.shape[2] in (3, 4))):
        raise ValueError(f"a PNG holds gray, RGB or RGBA, got {picture.dtype} {picture.shape}")
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(buffer, format="PNG", compress_level=4)
    write_bytes(path, buffer.getvalue())


def to_uint8(color: NDArray[np.floating]) -> Picture:
    """Color [H, W, 3] in [0, 1] (clipped) as uint8, rounded; pixels that are not finite come out magenta."""
    finite = np.isfinite(color).all(-1)
    picture = np.rint(np.clip(np.nan_to_num(color), 0.0, 1.0) * 255.0).astype(np.uint8)
    picture[~finite] = NOT_FINITE
    return picture


def depth_range(depth: NDArray[np.floating], solid: NDArray[np.bool_]) -> tuple[float, float]:
    """Nearest and farthest depth worth a color: the 1st and 99th percentile of the solid pixels.

    depth: [*N], any unit. solid: [*N]. The far end is kept within five times the median, so that a
    distant background does not flatten the object. Returns (0, 1) when nothing is solid; low < high always.
    """
    known = depth[solid & np.isfinite(depth)].astype(np.float64)
    if known.size == 0:
        return 0.0, 1.0
    low, median, high = (float(q) for q in np.percentile(known, (1.0, 50.0, 99.0)))
    high = min(high, 5.0 * median)
    margin = 0.02 * (high - low) + 1e-3 * max(abs(high), 1e-9)
    return max(low - margin, 0.0), high + margin


def color_depth(depth: NDArray[np.floating], solid: NDArray[np.bool_], low: float, high: float) -> Picture:
    """Depth as turbo colors, near is blue and far is red; white where nothing is.

    depth: [H, W]; solid: [H, W]; low < high in depth's unit, values outside are clipped. Returns [H, W, 3].
    """
    if not low < high:
        raise ValueError(f"low < high expected, got {low} and {high}")
    known = solid & np.isfinite(depth)
    share = np.where(known, (np.where(known, depth, low) - low) / (high - low), 0.0)
    picture = turbo()[np.rint(np.clip(share, 0.0, 1.0) * 255.0).astype(np.uint8)]
    picture[~known] = BACKGROUND
    return picture


def color_error(picture: Picture, truth: Picture) -> Picture:
    """How far a picture is from the true one: the root mean square of the channels, in the colors of depth.

    picture, truth: [*N, 3]; returns the same. The last color stands for `WORST_ERROR` and more.
    """
    error = np.sqrt(np.square((picture.astype(np.float64) - truth) / 255.0).mean(-1))
    return color_depth(error, np.isfinite(error), 0.0, WORST_ERROR)


def color_normal(normal: NDArray[np.floating], solid: NDArray[np.bool_]) -> Picture:
    """Normals as colors (n + 1) / 2; white where nothing is, or where a normal has no length.

    normal: [H, W, 3], any length, any frame. solid: [H, W]. Returns [H, W, 3].
    """
    length = np.linalg.norm(normal, axis=-1, keepdims=True)
    known = solid & np.isfinite(length[..., 0]) & (length[..., 0] > 1e-6)
    unit = np.where(known[..., None], normal, 0.0) / np.where(known[..., None], length, 1.0)
    picture = to_uint8(0.5 * unit + 0.5)
    picture[~known] = BACKGROUND
    return picture


def shade_normal(normal: NDArray[np.floating], directions: NDArray[np.floating], solid: NDArray[np.bool_]) -> Picture:
    """A gray surface lit from the camera, [H, W, 3]; dark where it is seen from behind, white where nothing is.

    normal, solid: as of `color_normal`. directions: [H, W, 3], unit, away from the camera, in the normals' frame.
    """
    length = np.linalg.norm(normal, axis=-1)
    known = solid & np.isfinite(length) & (length > 1e-6)
    facing = -(np.where(known[..., None], normal, 0.0) * directions).sum(-1) / np.where(known, length, 1.0)
    picture = to_uint8(np.repeat(0.2 + 0.7 * np.clip(facing, 0.0, 1.0)[..., None], 3, axis=-1))
    picture[~known] = BACKGROUND
    return picture


def side_by_side(pictures: Sequence[Picture], gap: int = 0) -> Picture:
    """Pictures [H, W, 3] or [H, W] of any sizes in one row, tops aligned, white between and below."""
    if not pictures:
        raise ValueError("no pictures to put side by side")
    colored = [np.repeat(p[..., None], 3, axis=-1) if p.ndim == 2 else p for p in pictures]
    height = max(p.shape[0] for p in colored)
    width = sum(p.shape[1] for p in colored) + gap * (len(colored) - 1)
    row = np.full((height, width, 3), BACKGROUND, np.uint8)
    left = 0
    for picture in colored:
        row[: picture.shape[0], left : left + picture.shape[1]] = picture
        left += picture.shape[1] + gap
    return row


@lru_cache(maxsize=1)
def turbo() -> Picture:
    """The 256 colors of depth, near to far, [256, 3]."""
    import cv2  # a quarter of a second, only for those who look at depths

    table = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[:, None], cv2.COLORMAP_TURBO)
    return np.ascontiguousarray(table[:, 0, ::-1], dtype=np.uint8)
