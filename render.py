"""Render a video of a run or an asset along a camera path: color, shape, normals, depth, labeled."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from engine import early
from utils.command_line import Parser, device, input_file, number, output_file
from utils.config.mistakes import did_you_mean
from utils.errors import InputError, run_script
from utils.files import check_file

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from dataio.cameras import Cameras
    from models.rendering.frames import Frame
    from models.rendering.renderers.base import Renderer, RendererConfig, Source
    from utils.pictures.sheets import Panel

MODES = ("rgb", "shape", "normal", "depth")
PATHS = ("spiral", "interpolate")
LABELS = {"rgb": "color", "shape": "shape", "normal": "normals", "depth": "depth"}
MOST_FRAMES, MOST_PIXELS = 100_000, 1 << 15  # of a video; of a side of it, as in files of paths
EXAMPLE = """examples:
  python render.py runs/demo
  python render.py runs/demo --path interpolate --frames 240 --modes rgb --scale 2 --out flight.mp4
  python render.py runs/demo --renderer "{type: lattice, resolution: 256}"
  python render.py runs/demo/asset

paths: spiral: around the object, or before it where the photographs are on one side;
interpolate: there and back through the photographs; FILE.json: a camera path of nerfstudio's
viewer, in the frame of the data (its own number of frames and size)
renderers: volume, as in training; surface, traced; lattice of its values: no color; mesh, of
extract_mesh.py; a name or a YAML mapping. An asset, which bake.py makes, has its own"""


def main() -> int:
    parser = Parser(__doc__, EXAMPLE)
    add = parser.add_argument
    add("run", help="run folder, checkpoint folder or asset folder")
    add("--path", type=path, default="spiral", metavar="PATH", help="spiral, interpolate or FILE.json")
    add("--frames", type=number(int, 1, MOST_FRAMES), default=80, metavar="N", help="default: 80")
    add("--fps", type=number(float, 0.01, 1000), default=20.0, metavar="F", help="default: 20")
    add("--modes", type=modes, metavar="M,...", help="of rgb,shape,normal,depth; default: all that it makes")
    add("--renderer", metavar="R", help="volume, surface, lattice, mesh or YAML; default: volume")
    add("--surface", action="store_true", help="the same as --renderer surface")
    add("--baked", action="store_true", help="with --surface --modes depth: by a lattice of values")
    shown = "of the image size; default: a video of 720 to 1080 lines"
    add("--scale", type=number(float, 0.001, 100), metavar="S", help=shown)
    add("--out", type=output_file(".mp4"), metavar="FILE", help="default: RUN/videos/PATH.mp4")
    add("--device", type=device, default="auto", help="auto, cpu, cuda or cuda:N")
    args = parser.parse()
    named = named_renderer(args)
    check(args, named)

    import numpy as np

    from engine.showing import open_shown, read_renderer
    from models.rendering.frames import size_of
    from utils.commands import note_command
    from utils.pictures.sheets import columns_for, sheet_size
    from utils.pictures.video import write_video

    config = read_renderer(named)
    wanted = makable(config, args.modes)
    source, renderer = open_shown(args.run, config if named else None, args.device)
    cameras = path_cameras(source, args.path, args.frames)
    columns = columns_for(len(wanted), *size_of(cameras, 0))
    cameras = cameras.scaled(args.scale or own_scale(cameras, args.path, len(wanted), columns))
    if (side := int(cameras.size.max())) > MOST_PIXELS:
        raise InputError(f"--scale: {args.scale:g} - gives pictures of {side} pixels - expected up to {MOST_PIXELS}")
    out = args.out or video(source.folder, args.path)
    unit = float(np.cbrt(np.linalg.det(source.world_from_scene[:3, :3])))
    count = write_video(out, frames(renderer, cameras, wanted, columns=columns, unit=unit), fps=args.fps)
    note_command(source.folder, [out])
    width, height = sheet_size(*size_of(cameras, 0), len(wanted), columns)
    print(f"{out}: {width} x {height}, {count} frames, {count / args.fps:.1f} s, {', '.join(wanted)}")
    return 0


def check(args: argparse.Namespace, named: str | None) -> None:
    """Raise InputError for what shows before anything is loaded: no such run, renderer or place for the video."""
    if named is not None:
        early.check_renderer(named)
    folder = Path(args.run)
    if not (folder / "asset.json").is_file():
        folder = early.check_run(folder)
    check_file(args.out or video(folder, args.path))


def video(folder: Path, path: str) -> Path:
    """Where the video of a path goes, unless something else is named."""
    return folder / "videos" / f"{Path(path).stem}.mp4"


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


def makable(config: RendererConfig, wanted: tuple[str, ...] | None) -> tuple[str, ...]:
    """The wanted modes, None: all that the renderer makes. Raises InputError for one that it does not make."""
    of = {"shape": "normal"}  # is made of
    made = tuple(mode for mode in MODES if of.get(mode, mode) in config.modes)
    missing = [mode for mode in wanted or () if mode not in made]
    if missing:
        name = config.model_dump()["type"]
        raise InputError(f"--modes: the renderer {name} makes no {missing[0]} - expected some of {','.join(made)}")
    return wanted or made


def path_cameras(source: Source, path: str, frames: int) -> Cameras:
    """The cameras of a path, scene frame, on the source's device, with the photographs' median intrinsics.

    path: one of `PATHS`, or a .json file.
    """
    import numpy as np

    from dataio.cameras import Cameras
    from utils.paths.camera_paths import interpolated_path, spiral_path

    if path.endswith(".json"):
        return file_cameras(source, Path(path))
    shot = source.cameras
    if len(shot) < 2:
        raise InputError(f"--path: {path} - leads past {len(shot)} view - expected at least 2, or a .json file")
    poses = shot.camera_to_world.cpu().numpy()
    if path == "spiral":
        along = spiral_path(poses, frames, up=source.world_from_scene[:3, :3].T @ source.up)
    else:
        along = interpolated_path(poses, frames)
    intrinsics = np.median(shot.intrinsics.cpu().numpy(), axis=0)
    size = np.median(shot.size.cpu().numpy(), axis=0).round()
    near = float(shot.near.median())
    return Cameras.make(along, intrinsics, size, near=near).to(source.device)


def file_cameras(source: Source, path: Path) -> Cameras:
    """The cameras of a path file, brought from the world into the scene frame before float32 rounds them."""
    import numpy as np

    from dataio.cameras import Cameras
    from dataio.normalize import moved
    from utils.paths.path_file import read_path

    found = read_path(path)
    below = np.broadcast_to([0.0, 0.0, 0.0, 1.0], (len(found.camera_to_world), 1, 4))
    world = np.concatenate([found.camera_to_world, below], axis=1)
    poses = moved(world, np.asarray(np.linalg.inv(source.world_from_scene), np.float64))
    return Cameras.make(poses, found.intrinsics, found.size, near=0.0).to(source.device)


def own_scale(cameras: Cameras, path: str, count: int, columns: int) -> float:
    """The scale of cameras, all of one size, with which a video of `count` panels has 720 to 1080 lines.

    A path file says its size itself.
    """
    from utils.pictures.sheets import screen_height

    height = int(cameras.size[0, 1])
    return 1.0 if path.endswith(".json") else screen_height(height, count, columns) / height


def frames(
    renderer: Renderer, cameras: Cameras, wanted: tuple[str, ...], *, columns: int, unit: float = 1.0
) -> Iterator[NDArray[np.uint8]]:
    """The video's frames, one by one, each [H, W, 3] uint8, with panels in so many columns; unit: as of `panels`."""
    from tqdm import tqdm

    from utils.pictures.sheets import sheet

    span = whole_depth_range(renderer, cameras) if "depth" in wanted else (0.0, 1.0)
    for index in tqdm(range(len(cameras)), desc="render", unit="frame", disable=None):
        frame = renderer(cameras, index)
        yield sheet(panels(frame, ray_directions(cameras, index), wanted, span, unit), columns)


def ray_directions(cameras: Cameras, index: int) -> NDArray[np.float32]:
    """[H, W, 3] unit vectors along the rays of a camera's pixels, in the frame of the cameras."""
    import torch

    from models.rendering.frames import size_of

    width, height = size_of(cameras, index)
    every = torch.full((width * height,), index, device=cameras.size.device)
    return cameras.rays(every, cameras.pixel_grid(index)).directions.view(height, width, 3).cpu().numpy()


def panels(
    frame: Frame,
    directions: NDArray[np.float32],
    wanted: tuple[str, ...],
    span: tuple[float, float],
    unit: float = 1.0,
) -> list[Panel]:
    """The wanted modes of a frame with their labels.

    directions: [H, W, 3] of its rays, scene frame. span: depths at the colors' ends, scene units; unit: the size of one
    of these in the units that are shown.
    """
    from utils.pictures.images import color_depth, color_normal, shade_normal, to_uint8
    from utils.pictures.sheets import Panel

    solid, normal = frame.opacity.numpy() > 0.5, frame.normal.numpy()
    pictures = {
        "rgb": lambda: to_uint8(frame.color.numpy()),
        "shape": lambda: shade_normal(normal, directions, solid),
        "normal": lambda: color_normal(normal, solid),
        "depth": lambda: color_depth(frame.depth.numpy(), solid, *span),
    }
    ends = (span[0] * unit, span[1] * unit)
    return [Panel(pictures[mode](), LABELS[mode], ends if mode == "depth" else None) for mode in wanted]


def whole_depth_range(renderer: Renderer, cameras: Cameras) -> tuple[float, float]:
    """One range of depth for the whole video, from every few of its frames in small."""
    import numpy as np

    from utils.pictures.images import depth_range

    small = cameras.scaled(min(1.0, 64.0 / float(cameras.size.max())))
    some = np.unique(np.linspace(0, len(cameras) - 1, 16).round().astype(int))
    frames = [renderer(small, int(index)) for index in some]
    depth = np.concatenate([frame.depth.numpy().ravel() for frame in frames])
    solid = np.concatenate([frame.opacity.numpy().ravel() > 0.5 for frame in frames])
    return depth_range(depth, solid)


def modes(text: str) -> tuple[str, ...]:
    """The modes of a list with commas."""
    wanted = tuple(name.strip() for name in text.split(","))
    for name in wanted:
        if name not in MODES:
            raise argparse.ArgumentTypeError(
                f"got {name!r}{did_you_mean(name, MODES)} - expected some of {','.join(MODES)}"
            )
    return wanted


def path(text: str) -> str:
    """A named path, or a file that is there."""
    if text in PATHS:
        return text
    if not text.endswith(".json"):
        expected = f"{', '.join(PATHS)} or FILE.json"
        raise argparse.ArgumentTypeError(f"got {text!r}{did_you_mean(text, PATHS)} - expected {expected}")
    return str(input_file("a camera path")(text))


if __name__ == "__main__":
    run_script(main, memory="a smaller --scale or a smaller model may help")
