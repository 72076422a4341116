"""Photographs without masks of a known surface: pictures with alpha are put before surroundings with true parallax.

The surroundings are cast by rays: ground through the feet of the object, or a table, within four textured walls. Views
that look from below the ground are left out. The alpha stays as masks, for scoring: train with data.masks=off.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import numpy as np
import numpy.typing as npt
import trimesh

from utils.errors import run_script

Float64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]

OVERSAMPLED = 2  # rays per pixel and axis
OCTAVES = 7
ABOVE = 0.1  # scene units: cameras at least this high above the ground are kept


@dataclass(frozen=True)
class Kind:
    """Surroundings. Lengths are in units of the data; heights count from the feet of the object.

    table: half its side, None for ground without end. floor: height of the floor below a table. wall: distance of the
    walls from the axis. top: height of the walls, above which is sky. light: factor of the walls' colors.
    """

    table: float | None
    floor: float
    wall: float
    top: float
    light: float


KINDS = {
    "street": Kind(table=None, floor=0.0, wall=7.0, top=4.0, light=1.0),
    "laboratory": Kind(table=1.5, floor=-1.2, wall=4.0, top=30.0, light=0.25),
}
PAINTS = {  # two colors of each surface, and the coarsest wave length of its texture
    "ground": ((0.46, 0.43, 0.38), (0.22, 0.2, 0.2), 0.8),
    "table": ((0.55, 0.38, 0.24), (0.3, 0.2, 0.12), 0.5),
    "floor": ((0.25, 0.26, 0.28), (0.1, 0.1, 0.12), 1.0),
    "wall": ((0.7, 0.5, 0.4), (0.3, 0.28, 0.32), 1.6),
}
SKY = ((0.75, 0.83, 0.92), (0.35, 0.55, 0.85))


def _hash(cells: npt.NDArray[np.int64], seed: int) -> Float64:
    """[*N, 2] -> [*N] in [0, 1), the same for the same cell and seed."""
    with np.errstate(over="ignore"):
        mixed = cells[..., 0].astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= cells[..., 1].astype(np.uint64) * np.uint64(0xC2B2AE3D27D4EB4F) + np.uint64(seed * 7919 + 1)
        mixed ^= mixed >> np.uint64(29)
        mixed *= np.uint64(0xBF58476D1CE4E5B9)
        mixed ^= mixed >> np.uint64(32)
    return (mixed & np.uint64(0xFFFFFF)).astype(np.float64) / 0x1000000


def noise(at: Float64, seed: int) -> Float64:
    """[N, 2] -> [N] in [0, 1]: values at the corners of unit cells, smoothly between them."""
    cell = np.floor(at).astype(np.int64)
    part = at - cell
    part = part * part * (3 - 2 * part)
    corners = [[_hash(cell + np.array([i, j]), seed) for i in (0, 1)] for j in (0, 1)]
    rows = [row[0] + part[:, 0] * (row[1] - row[0]) for row in corners]
    return np.asarray(rows[0] + part[:, 1] * (rows[1] - rows[0]))


def texture(at: Float64, footprint: Float64, paint: str, seed: int) -> Float64:
    """[N, 2] on a surface, [N] size of a pixel there -> [N, 3] colors: octaves that a pixel can show."""
    first, second, wave = PAINTS[paint]
    total, weight = np.zeros(len(at)), 0.0
    for octave in range(OCTAVES):
        length, strength = wave / 2**octave, 0.8**octave
        shown = np.clip(length / (2 * footprint) - 1, 0, 1)
        total += strength * shown * (noise(at / length, seed + octave) - 0.5)
        weight += strength
    mix = np.clip(0.5 + 2.2 * total / weight, 0, 1)[:, None]
    return np.asarray(mix * np.asarray(first) + (1 - mix) * np.asarray(second))


class _Cast:
    """Unit rays [N, 3] and the color [N, 3] of the nearest surface that each has met so far. pixel: size at 1."""

    def __init__(self, origins: Float64, directions: Float64, pixel: float) -> None:
        self.origins, self.directions, self.pixel = origins, directions, pixel
        low, high = np.asarray(SKY[0]), np.asarray(SKY[1])
        self.color = low + np.clip(directions[:, 2:], 0, 1) * (high - low)
        self.nearest = np.full(len(origins), np.inf)

    def meet(self, axis: int, level: float, *, within: Callable[[Float64], Bool], paint: str, light: float) -> None:
        """A plane across an axis at a level, where it is: within says so of points [N, 3]."""
        slope = self.directions[:, axis]
        with np.errstate(divide="ignore", invalid="ignore"):
            t = (level - self.origins[:, axis]) / slope
            at = self.origins + t[:, None] * self.directions
            seen = (t > 0) & (t < self.nearest) & within(at)
        t, place = t[seen], np.delete(at[seen], axis, axis=1)
        footprint = self.pixel * t / np.sqrt(np.abs(slope[seen]).clip(1e-3))
        seed = 100 * axis + (level > 0)
        self.color[seen], self.nearest[seen] = light * texture(place, footprint, paint, seed), t


def colors(origins: Float64, directions: Float64, feet: float, kind: Kind, pixel: float) -> Float64:
    """[N, 3] unit rays -> [N, 3] colors of the first surface they meet, in 0..1. pixel: size of one at distance 1."""
    cast, top = _Cast(origins, directions, pixel), feet + kind.top
    for axis in (0, 1):
        for level in (-kind.wall, kind.wall):
            cast.meet(axis, level, within=lambda at: at[:, 2] < top, paint="wall", light=kind.light)
    half, floor = kind.table, "ground" if kind.table is None else "floor"
    cast.meet(2, feet + kind.floor, within=lambda at: np.isfinite(at[:, 0]), paint=floor, light=1.0)
    if half is not None:
        cast.meet(2, feet, within=lambda at: np.asarray((np.abs(at[:, :2]) < half).all(1)), paint="table", light=1.0)
    return cast.color


def behind(pose: Float64, focal: float, size: int, feet: float, kind: Kind) -> Float64:
    """[size, size, 3] the surroundings seen by a pinhole camera. pose: [4, 4] camera to world, y up, z backward."""
    fine = size * OVERSAMPLED
    at = (np.arange(fine) + 0.5) / OVERSAMPLED - size / 2
    x, y = np.meshgrid(at / focal, -at / focal)
    directions = np.stack([x, y, -np.ones_like(x)], -1).reshape(-1, 3)
    directions = directions / np.linalg.norm(directions, axis=1, keepdims=True) @ pose[:3, :3].T
    origins = np.broadcast_to(pose[:3, 3], directions.shape)
    seen = colors(origins, directions, feet, kind, 1 / focal)
    return np.asarray(seen.reshape(size, OVERSAMPLED, size, OVERSAMPLED, 3).mean((1, 3)))


def write(source: Path, out: Path, kind: Kind) -> int:
    """Write transforms_{train,test}.json, pictures, masks and mesh.ply; returns the number of pictures.

    source: transforms_{train,test}.json with square pictures with alpha, and mesh.ply, z up.
    """
    mesh = trimesh.load(source / "mesh.ply", process=False)
    feet, count = float(mesh.bounds[0, 2]), 0
    out.mkdir(parents=True, exist_ok=True)
    mesh.export(out / "mesh.ply")
    for split in ("train", "test"):
        listing = json.loads((source / f"transforms_{split}.json").read_text("utf-8"))
        above = [frame for frame in listing["frames"] if frame["transform_matrix"][2][3] >= feet + ABOVE]
        frames = [_composited(source, out, split, frame, (listing["fl_x"], feet, kind)) for frame in above]
        (out / f"transforms_{split}.json").write_text(json.dumps({**listing, "frames": frames}, indent=1), "utf-8")
        count += len(frames)
    return count


def _composited(
    source: Path, out: Path, split: str, frame: dict[str, Any], scene: tuple[float, float, Kind]
) -> dict[str, Any]:
    """Write one picture and its mask; returns its entry. scene: focal length, height of the feet, surroundings."""
    picture = iio.imread(source / f"{frame['file_path']}.png") / 255.0
    focal, feet, kind = scene
    alpha = picture[..., 3:]
    around = behind(np.array(frame["transform_matrix"]), focal, len(picture), feet, kind)
    files = {"file_path": (alpha * picture[..., :3] + (1 - alpha) * around), "mask_path": alpha[..., 0] >= 0.5}
    named = {}
    for key, pixels in files.items():
        name = f"{'' if key == 'file_path' else 'masks/'}{split}/{Path(frame['file_path']).name}.png"
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        iio.imwrite(out / name, np.rint(255 * np.asarray(pixels, np.float64)).astype(np.uint8))
        named[key] = name
    return {**frame, **named}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="pictures with alpha, transforms_{train,test}.json, mesh.ply; z up")
    parser.add_argument("out", type=Path)
    parser.add_argument("--kind", choices=tuple(KINDS), default="street")
    args = parser.parse_args()
    print(f"{args.out}: {write(args.source, args.out, KINDS[args.kind])} pictures")
    return 0


if __name__ == "__main__":
    run_script(main)
