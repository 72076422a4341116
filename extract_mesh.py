"""Extract the surface of a run as a triangle mesh in world units."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

from utils.errors import run_script

if TYPE_CHECKING:
    import numpy as np
    import trimesh
    from numpy.typing import NDArray

    from dataio.georeference import Georeference
    from engine.run import Run

SOLID_SHARE = 0.75  # of the unit sphere: from here on, what lies beyond it counts as solid too

EXAMPLE = """examples:
  python extract_mesh.py runs/demo
  python extract_mesh.py runs/demo --resolution 512 --out vase.ply --out vase.glb

FILE ends in .ply, .obj or .glb. The unit sphere of the scene is searched; what reaches beyond is
cut off and closed there. Pieces with less than --keep of the largest one's area are dropped."""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", help="run folder or checkpoint folder")
    add = parser.add_argument
    add("--resolution", type=resolution, default=256, metavar="N", help="points per side; default: 256")
    add("--out", type=Path, action="append", metavar="FILE", help="default: RUN/meshes/mesh.ply")
    add("--color", action=argparse.BooleanOptionalAction, default=True, help="vertex colors; default: yes")
    add("--keep", type=keep, default=0.01, metavar="K", help="all, largest or least share; default: 0.01")
    add("--frame", choices=("world", "scene"), default="world", help="default: world")
    add("--device", default="auto", help="auto, cpu, cuda")
    add("--debug", action="store_true", help="show tracebacks of user errors")
    args = parser.parse_args()

    from utils.meshing.mesh import check_suffix, keep_pieces, transformed, with_colors, write_mesh

    for path in args.out or ():
        check_suffix(path)  # before minutes of work

    from engine.run import Run

    began = time.perf_counter()
    run = Run.open(args.run, device=args.device)
    mesh, dropped = keep_pieces(scene_surface(run, args.resolution), args.keep)
    if args.color:
        mesh = with_colors(mesh, surface_colors(run, mesh))
    up = run.world_from_scene[:3, :3].T @ run.up
    if args.frame == "world":
        mesh, up = transformed(mesh, run.world_from_scene), run.up
    outs = args.out or [run.folder / "meshes" / "mesh.ply"]
    for path in outs:
        write_mesh(path, mesh, up=up)
        if run.georeference is not None and args.frame == "world":
            write_place(path, run.georeference)
    closed = "watertight" if mesh.is_watertight else "not watertight"
    size = f"{len(mesh.vertices)} vertices, {len(mesh.faces)} faces"
    print(f"{', '.join(map(str, outs))}: {size}, {closed}, {dropped} pieces dropped", end=", ")
    print(f"{time.perf_counter() - began:.1f} s")
    return 0


def write_place(path: Path, georeference: Georeference) -> None:
    """Say beside a mesh where on Earth it is: NAME.georeference.json, the same for all formats of NAME."""
    from utils.files import write_json

    glb = {"axes_in_glb": ["east", "up", "south"]}  # glTF has +Y up
    write_json(path.with_suffix(".georeference.json"), {**georeference.described(), **glb})


def scene_surface(run: Run, resolution: int) -> trimesh.Trimesh:
    """The surface within the unit sphere, scene frame, closed at the sphere.

    Where most of the sphere lies in the solid, as around a room, the solid goes on beyond: there is no outer side.
    """
    import numpy as np
    import torch

    from utils.meshing.mesh import extract_surface

    def value(points: NDArray[np.float32]) -> NDArray[np.float32]:
        return run.surface_value(torch.from_numpy(points)).numpy()

    around = np.random.default_rng(0).normal(size=(4096, 3)).astype(np.float32)
    around /= np.linalg.norm(around, axis=1, keepdims=True)
    solid = float((value(around) < 0).mean()) > SOLID_SHARE
    return extract_surface(value, resolution=resolution, extent=1.0, radius=1.0, solid_beyond=solid)


def surface_colors(run: Run, mesh: trimesh.Trimesh, batch: int = 1 << 16) -> NDArray[np.uint8]:
    """Color of each vertex as seen along its normal, [V, 3] uint8. mesh: scene frame. batch: vertices at once."""
    import numpy as np
    import torch

    from utils.pictures.images import to_uint8

    points = torch.from_numpy(np.array(mesh.vertices, np.float32))
    normals = torch.from_numpy(np.array(mesh.vertex_normals, np.float32))
    shares = zip(points.split(batch), normals.split(batch), strict=True)
    colors = [run.surface_color(point, normal) for point, normal in shares]
    return to_uint8(torch.cat(colors).numpy())


def resolution(text: str) -> int:
    """A number of lattice points per side."""
    value = int(text)
    if not 16 <= value <= 4096:
        raise argparse.ArgumentTypeError(f"16 to 4096 expected, got {text}")
    return value


def keep(text: str) -> str | float:
    """What to keep of a mesh in pieces."""
    if text in ("all", "largest"):
        return text
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0.0 <= value <= 1.0:
        raise argparse.ArgumentTypeError(f"all, largest or a share from 0 to 1 expected, got {text}")
    return value


if __name__ == "__main__":
    run_script(main)
