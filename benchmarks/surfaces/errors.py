"""Where a mesh is wrong: distances of the true surface to it, by its normal, by who sees it, and by how open it is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import machine
from utils.errors import run_script
from utils.evaluation.mesh_metrics import distances_to_surface
from utils.meshing.mesh import read_mesh

if TYPE_CHECKING:
    import numpy as np
    import trimesh
    from numpy.typing import NDArray
    from torch import Tensor

    from dataio.cameras import Cameras

    Floats = NDArray[np.float64]

SEEN, STEEP, OPEN = (0, 1, 5, 12, 24), 0.7, 0.25
HEMISPHERE = 64  # directions that tell how open a place is
EXAMPLE = """examples:
  python -m benchmarks.surfaces.errors runs/part --reference data/part/mesh.ply
  python -m benchmarks.surfaces.errors runs/part --reference data/part/mesh.ply --mesh other.ply

share: of the true surface. mean, beyond: mean distance, in percent of its radius, and share of points
farther than one percent. error: of the sum of all distances. seen: training cameras, by the true mesh.
open: of the directions out of the surface, those that meet nothing."""


def main() -> int:
    parser = machine.parser_of(__doc__, EXAMPLE)
    add = parser.add_argument
    add("run", type=Path, help="run folder, for its cameras")
    add("--reference", type=Path, required=True, metavar="FILE", help="the true surface, a mesh in world units")
    add("--mesh", type=Path, metavar="FILE", help="default: RUN/meshes/mesh.ply")
    add("--points", type=machine.count, default=30_000, metavar="N", help="on the true surface; default: 30,000")
    args = parser.parse_intermixed_args()
    found = measure(args.run, args.mesh or args.run / "meshes" / "mesh.ply", args.reference, args.points)
    return machine.finish(found, args.out, f"errors-{args.run.name}")


def measure(folder: Path, mesh: Path, reference: Path, points: int) -> dict[str, Any]:
    """Everything the tables show. Raises InputError for a run or meshes that cannot be read."""
    import torch

    from engine.run import Run

    run = Run.open(folder, "cpu")
    scene = run.load_scene()
    cameras = scene.cameras[scene.splits["train"]].transformed(scene.world_from_scene)
    rows = parts(read_mesh(mesh), read_mesh(reference), cameras, scene.up, points)
    return {**machine.describe(torch.device("cpu")), "run": folder.name, "mesh": str(mesh), "parts": rows}


def parts(
    mesh: trimesh.Trimesh, truth: trimesh.Trimesh, cameras: Cameras, up: Floats, points: int
) -> list[dict[str, Any]]:
    """A row for each part of the true surface. Meshes and cameras in one frame; up: [3] unit, there."""
    import numpy as np
    import trimesh

    at, face = trimesh.sample.sample_surface(truth, points, seed=0)
    normal = truth.face_normals[face]
    center = truth.bounds.mean(0)
    radius = float(np.linalg.norm(truth.vertices - center, axis=1).max())
    away, _ = distances_to_surface((at - center) / radius, _scaled(mesh, center, radius))
    count, openness = looks(_scaled(truth, center, radius), (at - center) / radius, normal, cameras, center, radius)
    found = [row("all", np.ones(len(at), dtype=bool), away)]
    rise = normal @ up
    for name, where in (("down", rise < -STEEP), ("aside", abs(rise) <= STEEP), ("up", rise > STEEP)):
        found.append(row(f"faces {name}", where, away))
    for least, below in zip(SEEN, (*SEEN[1:], len(cameras) + 1), strict=True):
        found.append(row(f"seen by {least} to {below - 1}", (count >= least) & (count < below), away))
    found.append(row(f"open below {OPEN}", openness < OPEN, away))
    return found


def row(name: str, where: NDArray[np.bool_], away: Floats) -> dict[str, Any]:
    """A part [N] of the points, of the distances [N] in radii."""
    share = float(where.mean())
    mean = 100 * float(away[where].mean()) if share else None
    beyond = float((away[where] > 0.01).mean()) if share else None
    error = float(away[where].sum() / away.sum())
    return {"part": name, "share": share, "mean": mean, "beyond": beyond, "error": error}


def looks(
    truth: trimesh.Trimesh, at: Floats, normal: Floats, cameras: Cameras, center: Floats, radius: float
) -> tuple[NDArray[np.int64], Floats]:
    """How many cameras see points [N, 3] of a surface of radius 1 with normals [N, 3], and how open they are, [N].

    center, radius: of the surface, in the frame of the cameras.
    """
    import numpy as np
    import torch

    from models.kernels.rays.cast import Triangles
    from models.rendering.visible import seen_by

    corners = torch.from_numpy(np.asarray(truth.vertices, dtype=np.float32))
    triangles = Triangles(corners, torch.from_numpy(np.asarray(truth.faces, dtype=np.int32)))
    points, normals = (torch.from_numpy(np.asarray(x, dtype=np.float32)) for x in (at, normal))
    to_unit = np.diag([1 / radius] * 3 + [1.0])
    to_unit[:3, 3] = -center / radius
    seen = seen_by(points, normals, triangles, cameras.transformed(to_unit), margin=1e-3, best=1)
    return seen.count.numpy(), openness(triangles, points, normals).double().numpy()


def openness(triangles: Any, points: Tensor, normals: Tensor) -> Tensor:
    """[N] share of the hemisphere above points [N, 3] with normals [N, 3] in which no triangle is met."""
    import torch

    directions = torch.nn.functional.normalize(torch.randn(HEMISPHERE, 3, generator=torch.Generator().manual_seed(0)))
    free = torch.zeros(len(points))
    for direction in directions:
        turned = direction * torch.where(normals @ direction < 0, -1.0, 1.0)[:, None]
        t, _, _ = triangles.cast(points + 1e-3 * normals, turned, near=torch.zeros(len(points)))
        free += t.isinf()
    return free / HEMISPHERE


def _scaled(mesh: trimesh.Trimesh, center: Floats, radius: float) -> trimesh.Trimesh:
    import trimesh

    return trimesh.Trimesh((mesh.vertices - center) / radius, mesh.faces, process=False)


if __name__ == "__main__":
    run_script(main)
