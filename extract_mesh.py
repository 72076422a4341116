"""Extract the surface of a run as a triangle mesh in world units."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from engine import early
from utils.command_line import Parser, device, number, output_file
from utils.errors import run_script
from utils.files import check_file

if TYPE_CHECKING:
    import numpy as np
    import trimesh
    from numpy.typing import NDArray

    from dataio.georeference import Georeference
    from engine.run import Run

FORMATS = (".ply", ".obj", ".glb")
LEAST_SEEN = 0.05  # share of vertices
SOLID_SHARE = 0.75  # of the unit sphere: from here on, what lies beyond it counts as solid too

EXAMPLE = """examples:
  python extract_mesh.py runs/demo
  python extract_mesh.py runs/demo --resolution 512 --out vase.ply --out vase.glb

FILE ends in .ply, .obj or .glb. The unit sphere of the scene is searched; what reaches beyond is
cut off there and left open, with what no training view saw beside it, unless --close. Pieces with
less than --keep of the largest one's area are dropped. Colors are those of the photographs, where
they are still there, else those of the field along the views that see a vertex."""


def main() -> int:
    parser = Parser(__doc__, EXAMPLE)
    parser.add_argument("run", help="run folder or checkpoint folder")
    add = parser.add_argument
    add("--resolution", type=number(int, 16, 4096), default=256, metavar="N", help="points per side; default: 256")
    add("--out", type=output_file(*FORMATS), action="append", metavar="FILE", help="default: RUN/meshes/mesh.ply")
    add("--color", action=argparse.BooleanOptionalAction, default=True, help="vertex colors; default: yes")
    add("--keep", type=keep, default=0.01, metavar="K", help="all, largest or least share; default: 0.01")
    add("--close", action="store_true", help="close the surface at the unit sphere, seen or not")
    add("--frame", choices=("world", "scene"), default="world", help="default: world")
    add("--device", type=device, default="auto", help="auto, cpu, cuda or cuda:N")
    args = parser.parse()
    folder = early.check_run(args.run)
    outs = args.out or [folder / "meshes" / "mesh.ply"]
    for path in outs:
        check_file(path)

    from engine.run import Run
    from utils.commands import note_command
    from utils.meshing.mesh import keep_pieces, write_mesh

    began = time.perf_counter()
    run = Run.open(args.run, device=args.device)
    mesh, dropped = keep_pieces(scene_surface(run, args.resolution), args.keep)
    mesh, said = as_seen(run, mesh, cell=2 / args.resolution, color=args.color, close=args.close)
    mesh, up, meters = framed(run, mesh, args.frame)
    for path in outs:
        write_mesh(path, mesh, up=up, meters_per_unit=meters)
        if run.georeference is not None and args.frame == "world":
            write_place(path, run.georeference)
    note_command(run.folder, outs)
    said += offset_said(mesh, outs)
    closed = "watertight" if mesh.is_watertight else "not watertight"
    size = f"{len(mesh.vertices)} vertices, {len(mesh.faces)} faces"
    print(f"{', '.join(map(str, outs))}: {size}, {closed}, {dropped} pieces dropped, {said}", end=", ")
    print(f"{time.perf_counter() - began:.1f} s")
    return 0


def framed(
    run: Run, mesh: trimesh.Trimesh, frame: str
) -> tuple[trimesh.Trimesh, NDArray[np.float64], float | None]:
    """A mesh of the scene frame in the frame "world" or "scene", that frame's up [3], and its meters per unit.

    The last is None where the run does not know how large its world is.
    """
    import numpy as np

    from utils.meshing.mesh import transformed

    known, turn = run.georeference is not None, run.world_from_scene[:3, :3]
    if frame == "scene":
        return mesh, turn.T @ run.up, float(np.cbrt(np.linalg.det(turn))) if known else None
    return transformed(mesh, run.world_from_scene), run.up, 1.0 if known else None


def offset_said(mesh: trimesh.Trimesh, paths: Sequence[Path]) -> str:
    """What the last line says of coordinates that a .glb among the paths cannot hold; nothing where there are none."""
    import numpy as np

    from utils.meshing.scales import float32_offset

    offset = float32_offset(np.asarray(mesh.vertices))
    if not offset.any() or not any(path.suffix.lower() == ".glb" for path in paths):
        return ""
    return f", .glb less {', '.join(f'{value:.15g}' for value in offset)} (its `offset`)"


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
    from engine.meshes.photographs import colors_as_photographed, photographs_of
    from engine.meshes.views import colors_as_seen, views_of, without_caps
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
        colors, scene = colors_as_seen(run, mesh, seen), photographs_of(run)
        if scene is not None:
            colors = colors_as_photographed(run, scene, mesh, colors)
        mesh = with_colors(mesh, to_uint8(colors))
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
