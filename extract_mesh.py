"""Extract the surface of a run as a triangle mesh in world units."""

from __future__ import annotations

import argparse
import importlib.util
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from engine import early
from utils.command_line import Parser, device, number, output_file
from utils.errors import InputError, run_script
from utils.files import check_file

if TYPE_CHECKING:
    import numpy as np
    import trimesh
    from numpy.typing import NDArray

    from dataio.georeference import Georeference
    from engine.meshes.masks import Masks
    from engine.run import Run
    from utils.meshing.lattice import Box

FORMATS = (".ply", ".obj", ".glb", ".stl")
TEXTURED = (".glb", ".obj")
OFFSET = (".glb", ".stl")  # formats of float32
DILATION = 12  # pixels
MASKS = f"cull what is outside of masks, grown by so many ({DILATION})"
IN_MEMORY = 256  # points per side: from here on a .ply is written part by part

EXAMPLE = """examples:
  python extract_mesh.py runs/demo --out demo.ply --out demo.glb
  python extract_mesh.py runs/demo --faces 100000 --texture --out demo.glb
  python extract_mesh.py runs/demo --crop=-1,-1,0,1,1,2 --resolution 1024

FILE ends in .ply, .obj, .glb or .stl. What reaches beyond the scene's unit sphere is cut off there
and left open, with what no training view saw beside it, unless --close. See docs/meshes.md."""


def main() -> int:
    args = arguments()
    folder = early.check_run(args.run)
    outs = args.out or [folder / "meshes" / ("mesh.glb" if args.texture else "mesh.ply")]
    for path in outs:
        check_file(path)
    check(args, outs)

    from engine.run import Run
    from utils.commands import note_command

    began = time.perf_counter()
    run = Run.open(args.run, device=args.device)
    said = streamed(run, args, outs) if is_streamed(args, outs) else held(run, args, outs)
    for path in outs:
        if run.georeference is not None and args.frame == "world":
            write_place(path, run.georeference)
    note_command(run.folder, outs)
    print(f"{', '.join(map(str, outs))}: {said}, {time.perf_counter() - began:.1f} s")
    return 0


def arguments() -> argparse.Namespace:
    parser = Parser(__doc__, EXAMPLE)
    parser.add_argument("run", help="run folder or checkpoint folder")
    add = parser.add_argument
    add("--resolution", type=number(int, 16, 4096), default=256, metavar="N", help="points per side; default: 256")
    add("--out", type=output_file(*FORMATS), action="append", metavar="FILE", help="default: RUN/meshes/mesh.ply")
    add("--texture", type=number(int, 64, 16384), nargs="?", const=2048, metavar="SIZE", help="2048 if not said")
    add("--faces", type=number(int, 4, 10**9), metavar="N", help="simplify to so many at the most")
    add("--points", type=number(int, 1, 10**9), metavar="N", help="a cloud of so many points with normals, .ply")
    add("--crop", type=box, metavar="BOX", help="=X0,Y0,Z0,X1,Y1,Z1 in the mesh's frame")
    add("--keep", type=keep, default=0.01, metavar="K", help="all, largest or least share of area; default: 0.01")
    add("--pieces", type=number(int, 1, 10**9), metavar="N", help="so many of the largest at the most")
    add("--min-views", type=number(int, 0, 10**6), default=0, metavar="N", help="that see what is kept; default: 0")
    add("--masks", type=number(int, 0, 500), nargs="?", const=DILATION, metavar="PIXELS", help=MASKS)
    add("--color", action=argparse.BooleanOptionalAction, default=True, help="default: yes")
    add("--close", action="store_true", help="close the surface at the unit sphere, seen or not")
    add("--frame", choices=("world", "scene"), default="world", help="default: world")
    add("--device", type=device, default="auto", help="auto, cpu, cuda or cuda:N")
    return parser.parse()


def check(args: argparse.Namespace, outs: Sequence[Path]) -> None:
    """Raise InputError for options that do not go together."""
    suffixes = {path.suffix.lower() for path in outs}
    if args.texture and not suffixes <= set(TEXTURED):
        raise InputError(f"--texture: {', '.join(map(str, outs))} - expected files in {' or '.join(TEXTURED)}")
    if args.texture and importlib.util.find_spec("xatlas") is None:
        raise InputError("--texture: xatlas is not installed - expected it, pip install xatlas (Python 3.13 or older)")
    if args.points and suffixes != {".ply"}:
        raise InputError(f"--points: {', '.join(map(str, outs))} - expected a file in .ply")
    if args.texture and args.points:
        raise InputError("--texture and --points: a cloud has no texture - expected one of them")


def is_streamed(args: argparse.Namespace, outs: Sequence[Path]) -> bool:
    """Whether the mesh need not be held in memory, and is too large to be held without need."""
    held = args.faces or args.texture or args.points or any(path.suffix.lower() != ".ply" for path in outs)
    return not held and args.resolution > IN_MEMORY


def streamed(run: Run, args: argparse.Namespace, outs: list[Path]) -> str:
    """Write a mesh part by part; what to say of it."""
    import numpy as np

    from engine.meshes.streamed import Wanted, write_streamed

    masks = asked_masks(run, args)
    region = cropped(run, args.crop, args.frame)
    wanted = Wanted(
        args.resolution, region, args.keep, args.pieces, close=args.close, color=args.color,
        min_views=args.min_views, masks=masks,
    )  # fmt: skip
    return ", ".join(write_streamed(run, outs, wanted, np.eye(4) if args.frame == "scene" else run.world_from_scene))


def held(run: Run, args: argparse.Namespace, outs: list[Path]) -> str:
    """Write a mesh that is in memory as a whole; what to say of it."""
    from utils.meshing.mesh import write_cloud, write_mesh

    mesh, said = finished(run, args)
    mesh, up, meters = framed(run, mesh, args.frame)
    for path in outs:
        if args.points:
            write_cloud(path, mesh, args.points)
        else:
            write_mesh(path, mesh, up=up, meters_per_unit=meters)
    size = f"{len(mesh.vertices)} vertices, {len(mesh.faces)} faces, "
    return f"{args.points} points" if args.points else size + said + offset_said(mesh, outs)


def finished(run: Run, args: argparse.Namespace) -> tuple[trimesh.Trimesh, str]:
    """The mesh that is wanted, scene frame, and what to say of it."""
    from engine.meshes.finishing import as_seen
    from engine.meshes.photographs import photographs_of
    from engine.meshes.surface import scene_surface
    from engine.meshes.texture import textured
    from utils.meshing.mesh import keep_pieces

    masks = asked_masks(run, args)
    surface = scene_surface(run, args.resolution, cropped(run, args.crop, args.frame))
    whole, dropped = keep_pieces(surface, args.keep, args.pieces)
    found = as_seen(
        run, whole, cell=2 / args.resolution, color=args.color and not args.texture, close=args.close,
        min_views=args.min_views, masks=masks, faces=args.faces,
    )  # fmt: skip
    mesh = found.mesh
    closed = "watertight" if mesh.is_watertight else "not watertight"
    if args.texture:
        mesh = textured(run, photographs_of(run), mesh, found.whole, args.texture)
    return mesh, f"{closed}, {dropped} pieces dropped, {found.said}"


def asked_masks(run: Run, args: argparse.Namespace) -> Masks | None:
    """The masks of --masks, None without it. Raises InputError where the data have none."""
    from engine.meshes.masks import masks_of

    return masks_of(run, args.masks) if args.masks is not None else None


def cropped(run: Run, limits: tuple[float, ...] | None, frame: str) -> Box | None:
    """The box [6] of --crop, in the frame "world" or "scene", as a region of the scene."""
    import numpy as np

    from utils.meshing.lattice import Box

    if limits is None:
        return None
    similarity = np.eye(4) if frame == "scene" else run.world_from_scene
    return Box(similarity, np.array(limits[:3]), np.array(limits[3:]))


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
    """What the last line says of coordinates that a .glb or .stl among the paths cannot hold; else nothing."""
    import numpy as np

    from utils.meshing.scales import float32_offset

    offset = float32_offset(np.asarray(mesh.vertices))
    less = sorted({path.suffix.lower() for path in paths} & set(OFFSET))
    if not offset.any() or not less:
        return ""
    return f", {' and '.join(less)} less {', '.join(f'{value:.15g}' for value in offset)} (the `offset` of a .glb)"


def write_place(path: Path, georeference: Georeference) -> None:
    """Say beside a mesh where on Earth it is: NAME.georeference.json, the same for all formats of NAME."""
    from utils.files import write_json

    glb = {"axes_in_glb": ["east", "up", "south"]}  # glTF has +Y up
    write_json(path.with_suffix(".georeference.json"), {**georeference.described(), **glb})


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


def box(text: str) -> tuple[float, ...]:
    """A box's least and largest x, y and z."""
    try:
        numbers = tuple(float(word) for word in text.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) != 6 or not all(low < high for low, high in zip(numbers[:3], numbers[3:], strict=True)):
        raise argparse.ArgumentTypeError(f"X0,Y0,Z0,X1,Y1,Z1 expected, each X0 below its X1, got {text[:60]!r}")
    return numbers


if __name__ == "__main__":
    run_script(main, memory="a smaller --resolution may help")
