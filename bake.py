"""Bake the surface of a run into an asset: a folder that shows it without network, config or data."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from engine import early
from utils.command_line import Parser, device, number, output_folder
from utils.errors import InputError, run_script
from utils.files import check_folder

if TYPE_CHECKING:
    from engine.run import Run
    from models.rendering.asset import Asset

EXAMPLE = """examples:
  python bake.py runs/demo
  python bake.py runs/demo --resolution 256 --out vase && python render.py vase

The asset holds the surface inside the unit sphere, as values and colors on a lattice; a color is
that seen along the normal. What lies beyond, and what changes with the direction, is not in it."""


def main() -> int:
    parser = Parser(__doc__, EXAMPLE)
    add = parser.add_argument
    add("run", help="run folder or checkpoint folder")
    add("--resolution", type=number(int, 16, 1024), default=128, metavar="N", help="points per side; default: 128")
    add("--float32", action="store_true", help="values in 32 bits instead of 16")
    add("--out", type=output_folder, metavar="FOLDER", help="default: RUN/asset")
    add("--device", type=device, default="auto", help="auto, cpu, cuda or cuda:N")
    args = parser.parse()
    folder = early.check_run(args.run)
    out = args.out or folder / "asset"
    check_folder(out)

    from engine.run import Run
    from utils.commands import note_command

    began = time.perf_counter()
    run = Run.open(args.run, device=args.device)
    asset = baked_asset(run, args.resolution, halves=not args.float32)
    size = asset.write(out) / 1e6
    note_command(run.folder, [out])
    print(f"{out}: {args.resolution}^3 points, {size:.1f} MB, {time.perf_counter() - began:.1f} s")
    return 0


def baked_asset(run: Run, resolution: int, *, halves: bool = True) -> Asset:
    """The asset of a run. halves: values in float16. Raises InputError where the run has no surface yet."""
    from models.rendering.asset import Asset
    from models.rendering.baked import bake, with_colors

    volume = run.model.foreground
    baked = bake(volume, resolution)
    if not baked.near_surface().any():
        raise InputError(f"{run.folder}: the field has one sign everywhere, so there is no surface yet - train longer")
    baked = with_colors(baked.in_halves() if halves else baked, volume)
    red, green, blue = run.model.background_color.clamp(0, 1).tolist()
    return Asset(
        baked=baked,
        cameras=run.cameras[run.splits["train"]].to("cpu"),
        background=(red, green, blue),
        world_from_scene=run.world_from_scene,
        up=run.up,
        units="unknown" if run.georeference is None else "m",
    )


if __name__ == "__main__":
    run_script(main, memory="a smaller --resolution may help")
