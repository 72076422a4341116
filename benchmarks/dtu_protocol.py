"""A made scan in DTU's official layout and a mesh with known faults: our protocol's numbers, beside the published ones.

    python -m benchmarks.dtu_protocol --folder dtu_made
    python -m benchmarks.dtu_protocol --folder dtu_made --published "PYTHON DTUeval-python/eval.py"

The published program needs open3d and scikit-learn, which this project does not: PYTHON is one that has them.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import time
from pathlib import Path

import numpy as np
import trimesh
from numpy.typing import NDArray
from scipy.io import savemat
from scipy.spatial import cKDTree

from engine.protocols.base import Subject
from engine.protocols.dtu import DtuProtocol
from utils.meshing.mesh import read_mesh, write_mesh

Floats = NDArray[np.float64]
SCAN, RADIUS, VOXEL = 24, 40.0, 2.0  # mm
SEEDS = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="where the set is written")
    parser.add_argument("--published", metavar="COMMAND", help="the published program, with its Python")
    args = parser.parse_args()
    mesh = write_set(args.folder)
    for seed in range(SEEDS):
        start = time.process_time()
        found = DtuProtocol(scan=SCAN, seed=seed).score(Subject(read_mesh(mesh), args.folder)).numbers
        shown = "  ".join(f"{name} {found[name]:.6f}" for name in ("accuracy", "completeness", "overall"))
        print(f"ours, seed {seed}: {shown}  ({time.process_time() - start:.1f} CPU-s)", flush=True)
    if args.published:
        options = ["--data", str(mesh), "--scan", str(SCAN), "--mode", "mesh", "--dataset_dir", str(args.folder)]
        command = [*shlex.split(args.published), *options, "--vis_out_dir", str(args.folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        print(f"published: {done.stdout.splitlines()[-1]}")


def write_set(folder: Path) -> Path:
    """Write scan 24: a bumpy ball on a table, a part of it not scanned; returns a mesh: wavy, noisy, two blobs."""
    draw = np.random.default_rng(1)
    ball = trimesh.creation.icosphere(subdivisions=6)
    true = ball.vertices * (RADIUS * (1 + 0.1 * np.sin(7 * ball.vertices).sum(1, keepdims=True)))
    truth = trimesh.Trimesh(true, ball.faces, process=False)
    points = np.asarray(trimesh.sample.sample_surface(truth, 300_000, seed=0)[0])
    floor = true[:, 2].min()
    table = np.column_stack([draw.uniform(-100, 100, (150_000, 2)), np.full(150_000, floor)])
    scanned = np.concatenate([points[points[:, 0] > -0.6 * RADIUS], table])
    _write_official(folder, scanned, true.min(0) - 15, true.max(0) + 15, floor + 2)
    off = 0.6 * np.sin(true / 5)[:, [1, 2, 0]] + draw.normal(0, 0.15, true.shape)
    blob = trimesh.creation.icosphere(subdivisions=3, radius=6)
    pieces = [(true + off, ball.faces), (blob.vertices + [RADIUS + 15, 0, 0], blob.faces),
              (blob.vertices + [4 * RADIUS, 0, 0], blob.faces)]  # fmt: skip
    starts = np.cumsum([0, *(len(vertices) for vertices, _ in pieces)])
    faces = np.concatenate([part + start for (_, part), start in zip(pieces, starts, strict=False)])
    path = folder / "mesh.ply"
    write_mesh(path, trimesh.Trimesh(np.concatenate([part for part, _ in pieces]), faces, process=False))
    return path


def _write_official(folder: Path, scanned: Floats, low: Floats, high: Floats, plane: float) -> None:
    """The scan [N, 3], the voxels near it as observed, and a horizontal plane."""
    for name in ("Points/stl", "ObsMask"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    trimesh.PointCloud(scanned).export(folder / f"Points/stl/stl{SCAN:03d}_total.ply")
    count = np.ceil((high - low) / VOXEL).astype(int) + 1
    grid = np.stack(np.meshgrid(*map(np.arange, count), indexing="ij"), -1) * VOXEL + low
    near = np.isfinite(cKDTree(scanned).query(grid.reshape(-1, 3), distance_upper_bound=10)[0]).reshape(count)
    box = np.stack([low, low + (count - 1) * VOXEL])
    observed = {"ObsMask": near.astype(np.uint8), "BB": box, "Res": np.array([[VOXEL]])}
    savemat(folder / f"ObsMask/ObsMask{SCAN}_10.mat", observed)
    savemat(folder / f"ObsMask/Plane{SCAN}.mat", {"P": np.array([[0.0], [0.0], [1.0], [-plane]])})


if __name__ == "__main__":
    main()
