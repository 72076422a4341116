"""A mesh drawn unlit beside the volume rendering of its run, both against held-out photographs.

Inside the masks, where the photographs have them, whether the mesh is drawn there or not; else where the mesh is drawn.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import machine
from utils.errors import InputError, run_script

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from dataio.scene import Scene
    from models.rendering.frames import Frame

EXAMPLE = """examples:
  python -m benchmarks.mesh_colors runs/figure
  python -m benchmarks.mesh_colors runs/figure --mesh fine.ply --views 4

gap: the volume's PSNR less the mesh's, means over the views; within: the same of the pixels that are
two or more from the border of the mask or of the mesh; fitted: of these, after the
affine change of color that fits each of both to the photograph, whose exposure a texture cannot know;
drawn: the share of the counted pixels that the mesh covers."""
BORDER = 2  # pixels
KINDS = ("", "_within", "_fitted")


def main() -> int:
    parser = machine.parser_of(__doc__, EXAMPLE)
    add = parser.add_argument
    add("run", type=Path, help="run folder, with a mesh")
    add("--mesh", type=Path, metavar="FILE", help="default: RUN/meshes/mesh.ply")
    add("--views", type=machine.count, default=1000, metavar="N", help="at the most; default: all held-out ones")
    args = parser.parse_intermixed_args()
    found = measure(args.run, args.mesh, args.device, args.views)
    return machine.finish(found, args.out, f"mesh_colors-{args.run.name}")


def measure(folder: Path, mesh: Path | None, device: str, views: int) -> dict[str, Any]:
    """Everything the table shows. mesh: None for the run's own. views: at the most.

    Raises InputError without a mesh, for data that cannot be read, and where nothing is held out.
    """
    import numpy as np

    from dataio.views import evenly_chosen
    from engine.run import Run
    from engine.showing import source_of
    from models.rendering.frames import render_image
    from models.rendering.renderers.mesh import MeshRendererConfig

    run = Run.open(folder, device)
    scene = run.load_scene()
    held = [int(view) for view in scene.splits["test"]]
    if not held:
        raise InputError(f"{folder}: no view is held out - expected some, see data.holdout")
    held = [held[i] for i in evenly_chosen(len(held), views)]
    drawn, cameras = MeshRendererConfig(path=mesh).build(source_of(run)), scene.cameras.to(run.device)
    rows = [
        compare(scene, view, render_image(run.model, cameras, view, photograph=True), drawn(cameras, view))
        for view in held
    ]
    means = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
    gaps = {f"gap{name}": means[f"volume{name}"] - means[f"mesh{name}"] for name in KINDS}
    return {**machine.describe(run.device), "run": folder.name, "steps": run.step, "views": len(held), **means, **gaps}


def compare(scene: Scene, view: int, volume: Frame, mesh: Frame) -> dict[str, float]:
    """PSNR in dB of both frames of a view, in the counted pixels and in those off their border, fitted or not."""
    import torch

    from utils.evaluation.image_metrics import affine_fitted, psnr

    hit = mesh.opacity.numpy() >= 0.5
    counted = hit if scene.masks is None else scene.masks[view] > 127
    truth = torch.from_numpy(scene.images[view]).double() / 255
    found = {"drawn": float(hit[counted].mean())}
    whole, within = torch.from_numpy(counted), torch.from_numpy(inner(counted & hit))
    for kind, frame in (("volume", volume), ("mesh", mesh)):
        color = frame.color.double()
        found[kind] = psnr(color, truth, whole).item()
        found[f"{kind}_within"] = psnr(color, truth, within).item()
        found[f"{kind}_fitted"] = psnr(affine_fitted(color, truth, within), truth, within).item()
    return found


def inner(where: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The pixels [H, W] that are `BORDER` or more from the border of a region."""
    from scipy.ndimage import binary_erosion

    return binary_erosion(where, iterations=BORDER)


if __name__ == "__main__":
    run_script(main)
