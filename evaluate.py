"""Measure a run: its pictures against held-out photographs, its mesh against the true surface."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.errors import InputError, run_script

if TYPE_CHECKING:
    import trimesh

    from dataio.scene import Scene
    from experiment import Run

EXAMPLE = """examples:
  python evaluate.py runs/demo
  python evaluate.py runs/figure --mesh figure.ply --reference data/figure/mesh.ply
  python evaluate.py runs/figure_dtu --data data/figure --background black
  python evaluate.py runs/terrain --heights data/terrain/gt_points.npz
  python evaluate.py runs/skull data.masks=keep      the PSNR within masks that training did not see

Writes RUN/metrics.json. Mesh distances are in units of the reference's bounding-sphere radius."""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", help="run folder or checkpoint folder")
    parser.add_argument("overrides", nargs="*", metavar="key.sub=value", help="changes to the run's config")
    parser.add_argument("--mesh", type=Path, metavar="FILE", help="default: RUN/meshes/mesh.ply")
    parser.add_argument("--reference", type=Path, metavar="FILE", help="true surface, same frame")
    parser.add_argument("--crop", type=float, metavar="C", help="drop what is C radii outside its box")
    parser.add_argument("--heights", type=Path, metavar="FILE", help="points (.npz) or a mesh: errors in z")
    parser.add_argument("--data", metavar="PATH", help="other photographs in the same world frame")
    parser.add_argument("--background", choices=("white", "black"), help="behind masked photographs")
    parser.add_argument("--split", default="test", help="which views; default: test")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda")
    parser.add_argument("--debug", action="store_true", help="show tracebacks of user errors")
    args = parser.parse_args()

    from experiment import Run
    from utils.results import update_results

    overrides = args.overrides + ([f"data.background={args.background}"] if args.background else [])
    run = Run.open(args.run, device=args.device, overrides=overrides)
    scene = run.load_scene(args.data)
    distances = args.heights is None or args.reference is not None
    mesh_score = measure_mesh(run, scene, args.mesh, args.reference, args.crop) if distances else None
    if args.heights is not None:
        mesh_score = (mesh_score or {}) | measure_heights(run, args.mesh, args.heights)
    image_score = measure_images(run, scene, args.split)
    update_results(run.folder / "metrics.json", images=image_score, mesh=mesh_score)
    print_block("images", image_score)
    print_block("mesh", mesh_score)
    return 0


def measure_images(run: Run, scene: Scene, split: str) -> dict[str, Any] | None:
    """Mean PSNR and SSIM over the views of a split, rendered in full size; None when there are none.

    psnr_masked counts the pixels inside the masks only, where the scene has masks. Raises InputError for the
    name of a split that the data lack.
    """
    import torch

    from models.frames import render_image
    from utils.metrics import SSIM_DEFINITION, WINDOW, psnr, ssim

    if split not in scene.splits and split != "test":
        raise InputError(f"--split: {split!r} - the data have {', '.join(scene.splits)}")
    views = scene.splits.get(split)
    if views is None or len(views) == 0:
        return None
    if scene.background is not None:  # what the photographs were composited over
        run.model.background_color.copy_(torch.tensor(scene.background))
    cameras = scene.cameras.to(run.device)
    rows: list[tuple[float, float | None, float | None]] = []
    print(f"{split + ' view':32s} {'psnr':>8s} {'ssim':>8s}")
    for view in (int(v) for v in views):
        color = render_image(run.model, cameras, view).color.double()
        truth = torch.from_numpy(scene.images[view]).double() / 255.0
        mask = torch.from_numpy(scene.masks[view]) > 127 if scene.masks is not None else None
        likeness = ssim(color, truth).item() if min(truth.shape[:2]) >= WINDOW else None
        inside = psnr(color, truth, mask).item() if mask is not None and mask.any() else None
        rows.append((psnr(color, truth).item(), likeness, inside))
        print(f"{scene.names[view][-32:]:32s} {rows[-1][0]:8.2f} {shown(likeness):>8s}")
    found = dict(zip(("psnr", "ssim", "psnr_masked"), map(mean, zip(*rows, strict=True)), strict=True))
    return {**found, "views": len(rows), "split": split, "ssim_definition": SSIM_DEFINITION}


def measure_mesh(
    run: Run, scene: Scene, mesh: Path | None, reference: Path | None, crop: float | None
) -> dict[str, Any] | None:
    """Distances between a mesh and the true surface, both in world units; None when either is not known.

    The true surface is `reference`, or the scene's own, which is then also written to
    RUN/meshes/reference.ply.
    """
    from utils.mesh import read_mesh
    from utils.mesh_metrics import compare_meshes

    truth = read_mesh(reference, up=run.up) if reference is not None else known_surface(run, scene)
    if truth is None:
        if mesh is not None:
            raise InputError(f"{mesh}: the data know no true surface to compare with - give --reference")
        return None
    path = mesh or run.folder / "meshes" / "mesh.ply"
    if mesh is None and reference is None and not path.is_file():
        print(f"no mesh to measure: python extract_mesh.py {run.folder}")
        return None
    return {"file": path.name, **compare_meshes(read_mesh(path, up=run.up), truth, crop=crop).as_dict()}


def measure_heights(run: Run, mesh: Path | None, heights: Path) -> dict[str, Any]:
    """Vertical errors of a mesh's uppermost surface, world units, z up. Raises InputError without a mesh."""
    from utils.height_metrics import compare_heights, reference_points
    from utils.mesh import read_mesh

    path = mesh or run.folder / "meshes" / "mesh.ply"
    return {"file": path.name, **compare_heights(read_mesh(path, up=run.up), reference_points(heights)).as_dict()}


def known_surface(run: Run, scene: Scene) -> trimesh.Trimesh | None:
    """The scene's own true surface, world units, kept beside the run's meshes."""
    from utils.mesh import write_mesh

    if scene.reference is None:
        return None
    truth = scene.reference()
    write_mesh(run.folder / "meshes" / "reference.ply", truth)
    return truth


def mean(values: tuple[float | None, ...]) -> float | None:
    """The mean of the values that were measured, None without any."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def print_block(name: str, block: dict[str, Any] | None) -> None:
    """One line per number."""
    if block is None:
        print(f"{name}: not measured")
        return
    for key, value in block.items():
        print(f"{name + '.' + key:28s} {shown(value)}")


def shown(value: Any) -> str:
    """A number for the table."""
    return "-" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    run_script(main)
