"""Render a video of a run or an asset along a camera path: color, depth and normals side by side."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from utils.arguments import between
from utils.errors import InputError, run_script

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from dataio.cameras import Cameras
    from models.rendering.frames import Frame
    from models.rendering.renderers.base import Renderer, RendererConfig, Source

MODES = ("rgb", "depth", "normal")
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
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("run", help="run folder, checkpoint folder or asset folder")
    add("--path", default="spiral", metavar="PATH", help="spiral, interpolate or FILE.json")
    add("--frames", type=between(int, 1, MOST_FRAMES), default=60, metavar="N", help="default: 60")
    add("--fps", type=between(float, 0.01, 1000.0), default=30.0, metavar="F", help="default: 30")
    add("--modes", type=modes, metavar="M,...", help="of rgb,depth,normal; default: all that it makes")
    add("--renderer", metavar="R", help="volume, surface, lattice, mesh or YAML; default: volume")
    add("--surface", action="store_true", help="the same as --renderer surface")
    add("--baked", action="store_true", help="with --surface --modes depth: by a lattice of values")
    add("--scale", type=between(float, 1e-4, 100.0), default=1.0, metavar="S", help="of the image size")
    add("--out", type=Path, metavar="FILE", help="default: RUN/videos/PATH.mp4")
    add("--device", default="auto", help="auto, cpu, cuda")
    add("--debug", action="store_true", help="show tracebacks of user errors")
    args = parser.parse_args()
    named = named_renderer(args)

    from engine.showing import open_shown, read_renderer
    from utils.pictures.video import write_video

    config = read_renderer(named)
    wanted = makable(config, args.modes)
    source, renderer = open_shown(args.run, config if named else None, args.device)
    cameras = path_cameras(source, args.path, args.frames).scaled(args.scale)
    if (side := int(cameras.size.max())) > MOST_PIXELS:
        raise InputError(f"--scale: {args.scale:g} - gives pictures of {side} pixels - expected up to {MOST_PIXELS}")
    out = args.out or source.folder / "videos" / f"{Path(args.path).stem}.mp4"
    count = write_video(out, panels(renderer, cameras, wanted), fps=args.fps)
    print(f"{out}: {count} frames, {count / args.fps:.1f} s, {', '.join(wanted)}")
    return 0


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
    missing = [mode for mode in wanted or () if mode not in config.modes]
    if missing:
        name, known = config.model_dump()["type"], ",".join(config.modes)
        raise InputError(f"--modes: the renderer {name} makes no {missing[0]} - expected some of {known}")
    return wanted or config.modes


def path_cameras(source: Source, path: str, frames: int) -> Cameras:
    """The cameras of a path, scene frame, on the source's device, with the photographs' median intrinsics."""
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
    elif path == "interpolate":
        along = interpolated_path(poses, frames)
    else:
        raise InputError(f"--path: {path!r} - expected spiral, interpolate or a .json file")
    intrinsics = np.median(shot.intrinsics.cpu().numpy(), axis=0)
    size = np.median(shot.size.cpu().numpy(), axis=0).round()
    near = float(shot.near.median())
    return Cameras.make(along, intrinsics, size, near=near).to(source.device)


def file_cameras(source: Source, path: Path) -> Cameras:
    """The cameras of a path file, brought from the world into the scene frame."""
    import numpy as np

    from dataio.cameras import Cameras
    from utils.paths.path_file import read_path

    found = read_path(path)
    scene_from_world = np.linalg.inv(source.world_from_scene)
    world = Cameras.make(found.camera_to_world, found.intrinsics, found.size, near=0.0)
    return world.transformed(scene_from_world).to(source.device)


def panels(renderer: Renderer, cameras: Cameras, wanted: tuple[str, ...]) -> Iterator[NDArray[np.uint8]]:
    """The video's frames, one by one, each [H, W * modes, 3] uint8; see `panel`."""
    from tqdm import tqdm

    span = whole_depth_range(renderer, cameras) if "depth" in wanted else (0.0, 1.0)
    for index in tqdm(range(len(cameras)), desc="render", unit="frame", disable=None):
        yield panel(renderer(cameras, index), wanted, span)


def panel(frame: Frame, wanted: tuple[str, ...], span: tuple[float, float]) -> NDArray[np.uint8]:
    """The wanted modes of a frame side by side, [H, W * modes, 3]. span: depths at the colors' ends, scene units."""
    from utils.pictures.images import color_depth, color_normal, side_by_side, to_uint8

    solid = frame.opacity.numpy() > 0.5
    pictures = {
        "rgb": lambda: to_uint8(frame.color.numpy()),
        "depth": lambda: color_depth(frame.depth.numpy(), solid, *span),
        "normal": lambda: color_normal(frame.normal.numpy(), solid),
    }
    return side_by_side([pictures[mode]() for mode in wanted])


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
            raise argparse.ArgumentTypeError(f"unknown mode {name!r}, expected some of {','.join(MODES)}")
    return wanted


if __name__ == "__main__":
    run_script(main, memory="a smaller --scale or a smaller model may help")
