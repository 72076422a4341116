"""Extract the surface of a run as a triangle mesh in world units."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from utils.arguments import between
from utils.errors import run_script

if TYPE_CHECKING:
    import numpy as np
    import trimesh
    from numpy.typing import NDArray

    from dataio.georeference import Georeference
    from engine.run import Run

LEAST_SEEN = 0.05  # share of vertices
SOLID_SHARE = 0.75  # of the unit sphere: from here on, what lies beyond it counts as solid too

EXAMPLE = """examples:
  python extract_mesh.py runs/demo
  python extract_mesh.py runs/demo --resolution 512 --out vase.ply --out vase.glb

FILE ends in .ply, .obj or .glb. The unit sphere of the scene is searched; what reaches beyond is
cut off there and left open, with what no training view saw beside it, unless --close. Pieces with
less than --keep of the largest one's area are dropped. Colors are those along the views that see a
vertex."""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", help="run folder or checkpoint folder")
    add = parser.add_argument
    add("--resolution", type=between(int, 16, 4096), default=256, metavar="N", help="points per side; default: 256")
    add("--out", type=Path, action="append", metavar="FILE", help="default: RUN/meshes/mesh.ply")
    add("--color", action=argparse.BooleanOptionalAction, default=True, help="vertex colors; default: yes")
    add("--keep", type=keep, default=0.01, metavar="K", help="all, largest or least share; default: 0.01")
    add("--close", action="store_true", help="close the surface at the unit sphere, seen or not")
    add("--frame", choices=("world", "scene"), default="world", help="default: world")
    add("--device", default="auto", help="auto, cpu, cuda")
    add("--debug", action="store_true", help="show tracebacks of user errors")
    args = parser.parse_args()

    from utils.meshing.mesh import check_suffix, keep_pieces, transformed, write_mesh

    for path in args.out or ():
        check_suffix(path)  # before minutes of work

    from engine.run import Run

    began = time.perf_counter()
    run = Run.open(args.run, device=args.device)
    mesh, dropped = keep_pieces(scene_surface(run, args.resolution), args.keep)
    mesh, said = as_seen(run, mesh, cell=2 / args.resolution, color=args.color, close=args.close)
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
    print(f"{', '.join(map(str, outs))}: {size}, {closed}, {dropped} pieces dropped, {said}", end=", ")
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


def as_seen(
    run: Run, mesh: trimesh.Trimesh, *, cell: float, color: bool, close: bool
) -> tuple[trimesh.Trimesh, str]:
    """The mesh with colors as training views saw it, open where none saw what the sphere closed; and what to say of it.

    mesh: scene frame, triangles of about `cell` scene units.
    """
    from engine.mesh_views import colors_as_seen, views_of, without_caps
    from utils.meshing.mesh import with_colors
    from utils.pictures.images import to_uint8

    seen = views_of(run, mesh, cell)
    if seen.share < LEAST_SEEN:
        print(
            f"warning: {seen.share:.1%} of the surface is seen by a training view: it is not what was photographed - is"
            " the object in the unit sphere? See data.center and data.radius, and python prepare.py --check",
            file=sys.stderr,
        )
    kept, opened = without_caps(run, mesh, seen)
    if color:
        mesh = with_colors(mesh, to_uint8(colors_as_seen(run, mesh, seen)))
    said = f"{1 - seen.share:.0%} of it unseen"
    if not close and opened > 0 and kept.any():
        mesh.update_faces(kept)
        mesh.remove_unreferenced_vertices()
        said += f", {opened:.0%} of the area left open (--close keeps it)"
    return mesh, said


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
    run_script(main, memory="a smaller --resolution may help")
