"""Render a run or an asset along a camera path: a video, a clip, pictures, depths."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from engine import early
from utils.command_line import Parser, device, number, output_file, output_folder, output_place, size
from utils.config.mistakes import did_you_mean
from utils.errors import InputError, run_script
from utils.files import check_file, check_folder

if TYPE_CHECKING:
    from dataio.cameras import Cameras
    from engine.showing import Shown
    from utils.paths.base import CameraPath

MODES = ("rgb", "shape", "normal", "depth", "opacity", "mesh", "wireframe", "truth", "error")
SUFFIXES = (".mp4", ".gif", ".webp", ".png")
MOST_FRAMES, MOST_PIXELS = 100_000, 1 << 15  # of a path; of a side of a picture
FPS = 20.0  # where nothing says another
EXAMPLE = """examples:
  python render.py runs/demo
  python render.py runs/demo --path "{type: orbit, height: 0.5}" --out flight.mp4 --out flight.gif
  python render.py runs/demo --path "{type: interpolate, views: [r_003, r_010]}" --frames 120
  python render.py runs/demo --path views --modes rgb,truth,error --out pictures --depth depths
  python render.py runs/demo --frames 1 --size 4032x3024 --out large.png

paths: spiral, orbit, ellipse, small_circle, great_circle, spherical_spiral, interpolate, views
renderers: volume, surface, lattice: without color; mesh, wireframe: of extract_mesh.py
The same command goes on where it was stopped. All the keys: docs/rendering.md"""


def main() -> int:
    args = arguments().parse()
    named = named_renderer(args)
    outs = check(args, named)

    from engine.rendering.along import cameras_along
    from engine.rendering.modes import makable
    from engine.rendering.request import Request, said, session_of
    from engine.showing import open_shown, photographs_of, read_path, read_renderer
    from utils.commands import note_command
    from utils.distributed import cleanup, setup

    config = read_renderer(named)
    wanted = makable(config, args.modes)
    ranks = setup(args.device)
    shown = open_shown(args.run, config if named else None, str(ranks.device))
    path = read_path(args.path).cameras(photographs_of(shown.source, shown.run), args.frames)
    cameras = cameras_along(path, shown.source, shown.run)
    fps = args.fps or path.fps or FPS
    if args.save_path is not None and ranks.is_main:
        save(args.save_path, path, fps)
    if args.preview:
        return previewed(shown, cameras, outs[0]) if ranks.is_main else 0
    request = Request(wanted, outs, args.size, args.scale, args.columns, args.depth)
    session = session_of(request, shown, config, path, cameras)
    there = session.run(ranks, outs, fps)
    if ranks.is_main:
        note_command(shown.source.folder, [*outs, *([args.depth] if args.depth else [])])
        print(said(request, session, there, fps))
    cleanup()
    return 0


def arguments() -> Parser:
    """The command line."""
    parser = Parser(__doc__, EXAMPLE)
    add = parser.add_argument
    add("run", help="run folder, checkpoint folder or asset folder")
    add("--path", default="spiral", metavar="PATH", help="a name, a YAML mapping or FILE.json; default: spiral")
    add("--frames", type=number(int, 1, MOST_FRAMES), metavar="N", help="default: 80, or as many as the path says")
    add("--fps", type=number(float, 0.01, 1000), metavar="F", help="default: that of a path file, or 20")
    add("--modes", type=modes, metavar="M,...", help="panels, as rgb,truth,error; default: rgb,shape,normal,depth")
    add("--renderer", metavar="R", help="a name or a YAML mapping; default: volume")
    add("--surface", action="store_true", help="the same as --renderer surface")
    add("--baked", action="store_true", help="with --surface --modes depth: by a lattice of values")
    add("--size", type=size(MOST_PIXELS), metavar="WxH", help="of a panel; the vertical field of view stays")
    shown = "of the image size; default: a video of 720 to 1080 lines"
    add("--scale", type=number(float, 0.001, 100), metavar="S", help=shown)
    add("--columns", type=number(int, 1, len(MODES)), metavar="N", help="of panels; 1: stacked; default: what suits")
    place = output_place(*SUFFIXES)
    add("--out", type=place, action="append", metavar="FILE", help="more than one; default: RUN/videos/PATH.mp4")
    add("--depth", type=output_folder, metavar="FOLDER", help="z depths there too: float32 .npy and 16-bit .png")
    add("--save-path", type=output_file(".json"), metavar="FILE", help="the path, as nerfstudio's viewer reads it")
    add("--preview", action="store_true", help="only a picture of the path: PATH_preview.png")
    add("--device", type=device, default="auto", help="auto, cpu, cuda or cuda:N")
    return parser


def check(args: argparse.Namespace, named: str | None) -> list[Path]:
    """Raise InputError for what shows before anything is loaded: no such run, renderer, path or place.

    Returns where things go.
    """
    name = early.check_path(args.path)
    if named is not None:
        early.check_renderer(named)
    if args.size and args.scale:
        raise InputError("--size: says the same as --scale - expected one of them")
    folder = Path(args.run)
    if not (folder / "asset.json").is_file():
        folder = early.check_run(folder)
    default = folder / "videos" / (f"{name}_preview.png" if args.preview else f"{name}.mp4")
    outs = args.out or [default]
    for out in outs:
        (check_file if out.suffix else check_folder)(out)
    if args.preview and [out.suffix.lower() for out in outs] != [".png"]:
        raise InputError("--preview: is a picture - expected one --out, which ends in .png, or none")
    return outs


def named_renderer(args: argparse.Namespace) -> str | None:
    """The renderer that the options name, as text; None: none."""
    if args.baked and not (args.surface and args.modes == ("depth",)):
        raise InputError("--baked: only depth can be baked - expected --surface --modes depth with it")
    if args.renderer and args.surface:
        raise InputError(f"--surface: stands for a renderer - expected it or --renderer {args.renderer}, not both")
    if args.baked:
        return "{type: lattice, normals: false}"
    renderer: str | None = args.renderer
    return "surface" if args.surface else renderer


def save(file: Path, path: CameraPath, fps: float) -> None:
    """Write a path as a file."""
    from utils.paths.path_file import write_path

    write_path(file, path, fps=fps)
    print(f"{file}: {len(path)} cameras, {len(path) / fps:.1f} s")


def previewed(shown: Shown, cameras: Cameras, file: Path) -> int:
    """Write the picture of a path."""
    from engine.rendering.preview import preview, sparse_points, surface_of
    from utils.commands import note_command
    from utils.pictures.images import write_png

    points = sparse_points(shown.run) if shown.run is not None else None
    write_png(file, preview(shown.source, surface_of(shown.source, shown.renderer), cameras, points))
    note_command(shown.source.folder, [file])
    print(f"{file}: {len(cameras)} cameras")
    return 0


def modes(text: str) -> tuple[str, ...]:
    """The modes of a list with commas."""
    wanted = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    for name in wanted:
        if name not in MODES:
            raise argparse.ArgumentTypeError(
                f"got {name!r}{did_you_mean(name, MODES)} - expected some of {','.join(MODES)}"
            )
    return wanted


if __name__ == "__main__":
    run_script(main, memory="a smaller --size or a smaller model may help")
