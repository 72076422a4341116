"""Time pictures of a model: volume, surface, large depth; what skipping costs in dB and saves in time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from benchmarks import machine
from benchmarks.machine import GEMM, count, repeated
from utils.errors import InputError, run_script

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from dataio.cameras import Cameras
    from models.model import Model
    from models.rendering.frames import Frame
    from utils.pictures.images import Picture

WARM = (16, 16)  # the size of a frame that does not count
EXAMPLE = """examples:
  python -m benchmarks.render_frame                          a model made on the spot
  python -m benchmarks.render_frame --run runs/figure --out
  python -m benchmarks.render_frame --run runs/figure --device cuda --lattice 512

volume and surface: one frame of --size; px_per_s is per CPU-second, on CUDA per second. depth: one
of --depth-size from a baked lattice, on all cores. Then the view in small, against its photograph:
through the occupancy grid; with all cells occupied; with every step evaluated as well; and in
PyTorch alone (benchmarks/kernel_cases/baseline.py for the kernels). db: the PSNR through the grid minus that one."""


@dataclass(frozen=True)
class Subject:
    """A trained model and one of its views. cameras: scene frame, on the model's device."""

    name: str
    model: Model
    cameras: Cameras
    view: int
    photograph: Picture | None  # None where the data are not at hand

    @property
    def device(self) -> torch.device:
        return self.cameras.camera_to_world.device


@dataclass(frozen=True)
class Sizes:
    """Width and height of the frames; lattice: points per side; compare: of the small frame's longer side."""

    frame: tuple[int, int] = (800, 800)
    depth: tuple[int, int] = (4032, 3024)
    lattice: int = 128
    compare: int = 100


def main() -> int:
    parser = machine.parser_of(__doc__, EXAMPLE)
    add = parser.add_argument
    add("--run", metavar="FOLDER", help="run folder; default: a model that is trained for --steps first")
    add("--config", default="configs/neus_hash.yaml", metavar="FILE", help="of that; default: configs/neus_hash.yaml")
    add("--data", metavar="PATH", help="of that; default: the procedural scene, 200 x 200")
    add("--steps", type=count, default=600, metavar="N", help="of that; default: 600")
    add("--size", type=count, nargs=2, default=Sizes.frame, metavar=("W", "H"), help="default: 800 800")
    add("--depth-size", type=count, nargs=2, default=Sizes.depth, metavar=("W", "H"), help="default: 4032 3024")
    add("--lattice", type=count, default=Sizes.lattice, metavar="N", help="points per side; default: 128")
    add("--compare", type=count, default=Sizes.compare, metavar="N", help="longer side of the view; default: 100")
    add("--threads", type=count, default=1, metavar="N", help="of all but the depth; default: 1")
    args = parser.parse_intermixed_args()

    from benchmarks.train_step import overrides_of

    sizes = Sizes(tuple(args.size), tuple(args.depth_size), args.lattice, args.compare)
    if args.run is not None:
        subject = opened(args.run, args.device, args.overrides)
    else:
        subject = made(args.config, overrides_of(args.data, args.device, args.overrides), args.steps)
    return machine.finish(measure(subject, sizes, threads=args.threads), args.out, "render_frame")


def opened(path: str, device: str, overrides: Sequence[str]) -> Subject:
    """A run's model and its first held-out view. Raises InputError for what is no run."""
    from engine.run import Run

    run = Run.open(path, device=device, overrides=overrides)
    view = first_view(run.splits)
    try:
        photograph = run.load_scene().images[view]
    except InputError:
        photograph = None
    return Subject(str(run.folder), run.model, run.cameras, view, photograph)


def made(config: str, overrides: Sequence[str], steps: int) -> Subject:
    """A model that is trained for a moment. Raises InputError for a wrong config or data."""
    from benchmarks.train_step import running, short_run

    with running(short_run(config, overrides, steps)) as run:
        repeated(run.step_once, steps)
    view = first_view(run.scene.splits)
    cameras = run.scene.cameras.to(run.ranks.device)
    return Subject(f"{config}, {steps} steps", run.objective.model.eval(), cameras, view, run.scene.images[view])


def first_view(splits: Any) -> int:
    """The first held-out view, or the first of all."""
    test = splits.get("test")
    return int(test[0]) if test is not None and len(test) else int(splits["train"][0])


def measure(subject: Subject, sizes: Sizes, *, threads: int, gemm: tuple[int, int, int] = GEMM) -> dict[str, Any]:
    """Everything the table shows. threads: of the CPU, for all but the depth, which uses all cores."""
    from engine.build import use_threads
    from models.rendering.frames import render_image
    from models.rendering.surface import Surface

    device = subject.device
    use_threads(threads)
    camera, tiny = (framed(subject.cameras, subject.view, size) for size in (sizes.frame, WARM))
    for seen in (subject.model, Surface(subject.model)):  # kernels are compiled at first use
        render_image(seen, tiny, 0)
    frame, volume = picture(partial(render_image, subject.model, camera, 0), device)
    surface_frame, surface = picture(partial(render_image, Surface(subject.model), camera, 0), device)
    rows = [{"frame": "volume", **volume}, {"frame": "surface", **surface}]
    baked, depth_rows = depths(subject, sizes, threads)
    small = compared(subject, sizes.compare)
    return {
        **machine.describe(device),
        "model": subject.name,
        "covered": float((frame.opacity > 0.5).double().mean()),
        "lattice": sizes.lattice,
        "depth_cores": machine.cores() if device.type == "cpu" else None,
        "depth_error_cells": depth_error(baked, camera, surface_frame),
        **machine.roofs(device, gemm),
        "frames": [*rows, *depth_rows],
        "small": small,
    }


def framed(cameras: Cameras, view: int, size: tuple[int, int]) -> Cameras:
    """One camera that sees what a view sees, in another size; equal in height where the shapes differ."""
    import torch

    from dataio.cameras import Cameras

    one = cameras[torch.tensor([view], device=cameras.size.device)]
    old, new = one.size.double(), torch.tensor([size], device=one.size.device).double()
    ratio = new[:, 1:] / old[:, 1:]
    intrinsics = one.intrinsics.double()
    center = new / 2 + (intrinsics[:, 2:] - old / 2) * ratio
    intrinsics = torch.cat([intrinsics[:, :2] * ratio, center], 1)
    lens = {"distortion": one.distortion, "lens": one.lens, "near": one.near}
    return Cameras.make(one.camera_to_world, intrinsics, new.long(), **lens)


def picture(look: Callable[[], Any], device: torch.device) -> tuple[Any, dict[str, Any]]:
    """What `look` makes, a frame, and the row of its cost."""
    from models.rendering.frames import Frame

    made: list[Any] = []
    machine.forget_peak(device)
    wall, cpu = machine.timed(lambda: made.append(look()), device)
    own = wall if device.type == "cuda" else cpu
    pixels = made[0].depth.numel() if isinstance(made[0], Frame) else None
    return made[0], {
        "wall_s": wall,
        "cpu_s": cpu,
        "px_per_s": pixels and pixels / max(own, 1e-9),
        "px_per_wall_s": pixels and pixels / max(wall, 1e-9),
        "peak_mb": machine.peak_mb(device),
    }


def depths(subject: Subject, sizes: Sizes, threads: int) -> tuple[Any, list[dict[str, Any]]]:
    """The baked lattice, and rows for baking it and for a frame of depth from it."""
    from engine.build import use_threads
    from models.rendering.baked import bake, render_depth

    baked, baking = picture(partial(bake, subject.model.foreground, sizes.lattice), subject.device)
    camera = framed(subject.cameras, subject.view, sizes.depth)
    use_threads(machine.cores())
    try:
        render_depth(baked, framed(subject.cameras, subject.view, WARM), 0)
        _, depth = picture(partial(render_depth, baked, camera, 0), subject.device)
    finally:
        use_threads(threads)
    width, height = sizes.depth
    return baked, [{"frame": "baking", **baking}, {"frame": f"depth {width} x {height}", **depth}]


def depth_error(baked: Any, camera: Cameras, truth: Frame) -> float | None:
    """Median difference between the baked depth and the surface's, in cells of the lattice; None without a hit."""
    from models.rendering.baked import render_depth

    frame = render_depth(baked, camera, 0)
    both = (frame.opacity > 0) & (truth.opacity > 0)
    error = (frame.depth - truth.depth)[both].abs()
    return float(error.median()) * (len(baked.values) - 1) / 2 if len(error) else None


def compared(subject: Subject, longer: int) -> list[dict[str, Any]]:
    """The view in small, several ways: cost, PSNR, and how much of it the occupancy grid costs."""
    import numpy as np
    import torch

    from benchmarks.kernel_cases.baseline import instead_of_kernels
    from dataio.pictures.images import resized
    from models.rendering.frames import render_image
    from utils.evaluation.image_metrics import psnr

    cameras, view = subject.cameras.scaled(longer / float(subject.cameras.size[subject.view].max())), subject.view
    ways: dict[str, AbstractContextManager[None]] = {"through the grid": nullcontext()}
    if grids(subject.model):
        ways |= {"all cells occupied": filled(subject.model, prune=True), "every step": filled(subject.model, False)}
    ways["in PyTorch alone"] = instead_of_kernels()
    frames, rows = [], []
    for name, way in ways.items():
        with way:
            frame, row = picture(partial(render_image, subject.model, cameras, view), subject.device)
        frames.append(frame)
        rows.append({"frame": name, **{key: row[key] for key in ("cpu_s", "px_per_s", "peak_mb")}})
    photograph = subject.photograph
    truth = frames[0].color
    if photograph is not None:
        height, width = frames[0].depth.shape
        truth = torch.from_numpy(np.array(resized(photograph, (width, height)))).float() / 255
    found = [float(psnr(frame.color, truth)) if photograph is not None else None for frame in frames]
    for row, frame, value in zip(rows, frames, found, strict=True):
        row |= {"slower": rows[0]["px_per_s"] / row["px_per_s"], "psnr": value}
        row["db"] = None if value is None or found[0] is None else found[0] - value
        row["likeness_db"] = None if row is rows[0] else likeness(frames[0].color, frame.color)
    return rows


def likeness(one: Tensor, other: Tensor) -> float:
    """PSNR between two renderings, at most that of equal ones."""
    from utils.evaluation.image_metrics import psnr

    return float(psnr(one, other))


def grids(model: Model) -> list[Any]:
    """The model's samplers that have an occupancy grid."""
    from models.samplers.occupancy_grid import OccupancyGrid

    return [medium.sampler for medium in model.media if isinstance(medium.sampler, OccupancyGrid)]


@contextmanager
def filled(model: Model, prune: bool) -> Iterator[None]:
    """Within, all cells are occupied, and samples are dropped by their value, or (prune false) none is."""
    kept = [(grid, grid.occupied, grid.coarse, grid.config) for grid in grids(model)]
    try:
        for grid, occupied, coarse, config in kept:
            grid.occupied, grid.coarse = occupied.clone().fill_(1), coarse.clone().fill_(1)
            grid.config = config.model_copy(update={"prune": prune})
        yield
    finally:
        for grid, occupied, coarse, config in kept:
            grid.occupied, grid.coarse, grid.config = occupied, coarse, config


if __name__ == "__main__":
    run_script(main)
