"""Measure a run: its pictures against held-out photographs, its mesh against the true surface."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dataio.files import need_folder
from engine import early
from utils.command_line import Parser, device, input_file, number, override
from utils.errors import InputError, run_script
from utils.files import check_file

if TYPE_CHECKING:
    import numpy as np
    import trimesh

    from dataio.scene import Scene
    from engine.run import Run

DEPTH_BOUND = 0.05  # world units: 5 cm where they are meters
SEEN_MARGIN = 0.1  # world units: what lies no farther behind a measured depth counts as seen

EXAMPLE = """examples:
  python evaluate.py runs/demo
  python evaluate.py runs/figure --mesh figure.ply --reference data/figure/mesh.ply
  python evaluate.py runs/figure_dtu --data data/figure --background black
  python evaluate.py runs/room --reference data/room/gt_points.npz
  python evaluate.py runs/terrain --heights data/terrain/gt_points.npz
  python evaluate.py runs/skull data.masks=keep      the PSNR within masks that training did not see

Writes RUN/metrics.json. Mesh distances are in units of the reference's bounding-sphere radius;
against points in world units, and only where two (--min-views) training views saw."""


def main() -> int:
    parser = Parser(__doc__, EXAMPLE, keys=early.keys)
    add = parser.add_argument
    mesh, points = input_file("a mesh"), input_file("a mesh or points")
    views = number(int, 1, 100_000)
    add("run", help="run folder or checkpoint folder")
    add("overrides", type=override, nargs="*", default=[], metavar="key.sub=value", help="changes to the config")
    add("--mesh", type=mesh, metavar="FILE", help="default: RUN/meshes/mesh.ply")
    add("--reference", type=points, metavar="FILE", help="true surface, or points on it (.npz, .ply), same frame")
    add("--min-views", type=views, default=2, metavar="N", help="of points, those N training views saw; default: 2")
    add("--crop", type=number(float, 0, 1000), metavar="C", help="drop what is C radii outside its box")
    add("--heights", type=points, metavar="FILE", help="points (.npz) or a mesh: errors in z")
    add("--data", metavar="PATH", help="other photographs in the same world frame")
    add("--background", choices=("white", "black"), help="behind masked photographs")
    add("--split", default="test", help="which views; default: test")
    add("--device", type=device, default="auto", help="auto, cpu, cuda or cuda:N")
    args = parser.parse()
    behind = [f"data.background={args.background}", "data.masks=composite"] if args.background else []
    overrides = behind + args.overrides
    check(args, overrides)

    from engine.run import Run
    from utils.commands import note_command
    from utils.evaluation.point_metrics import has_faces
    from utils.evaluation.results import update_results

    run = Run.open(args.run, device=args.device, overrides=overrides)
    scene = run.load_scene(args.data)
    distances = args.heights is None or args.reference is not None
    mesh_score = None
    if args.reference is not None and not has_faces(args.reference):
        mesh_score = measure_against_points(run, scene, args.mesh, args.reference, args.min_views)
    elif distances:
        mesh_score = measure_mesh(run, scene, args.mesh, args.reference, args.crop)
    if args.heights is not None:
        mesh_score = (mesh_score or {}) | measure_heights(run, args.mesh, args.heights)
    image_score = measure_images(run, scene, args.split, own=args.data is None)
    blocks = blocks_of(args.split, image_score, measured_on(args), mesh_score)
    poses_score = measure_poses(run)
    update_results(run.folder / "metrics.json", **blocks, poses=poses_score)
    note_command(run.folder, [run.folder / "metrics.json"])
    print_block("images", image_score)
    if poses_score is not None:
        print_block("poses", poses_score)
    print_block("mesh", mesh_score)
    return 0


def check(args: argparse.Namespace, overrides: list[str]) -> None:
    """Raise InputError for what shows before anything is loaded: no such run, key, data or mesh, no place to write."""
    folder = early.check_run(args.run, overrides)
    check_file(folder / "metrics.json")
    if args.data is not None:
        need_folder(args.data, "--data")
    else:
        early.check_data(early.check_config(folder / "config.yaml", overrides, saved=True))
    own = folder / "meshes" / "mesh.ply"
    if args.mesh is None and not own.is_file() and (args.reference is not None or args.heights is not None):
        raise InputError(f"{own}: no such file - write python extract_mesh.py {folder} first, or --mesh FILE")


def measured_on(args: argparse.Namespace) -> str:
    """The files that the mesh was compared with; empty for the scene's own surface."""
    return ", ".join(file.name for file in (args.reference, args.heights) if file is not None)


def blocks_of(
    split: str, images: dict[str, Any] | None, reference: str, mesh: dict[str, Any] | None
) -> dict[str, dict[str, Any] | None]:
    """Where the numbers go in metrics.json, so that nothing that was measured otherwise is overwritten.

    images: "images" for the test views, else by the name of the split. mesh: "mesh", the newest, and by reference.
    """
    by_reference = {"references": {reference: mesh}} if reference and mesh else {}
    if split != "test":
        return {"splits": {split: images} if images else None, "mesh": mesh, **by_reference}
    return {"images": images, "mesh": mesh, **by_reference}


def measure_poses(run: Run) -> dict[str, Any] | None:
    """Mean change of the training cameras' poses, after an alignment of all; None where none were learned."""
    if run.placed is None:
        return None
    moved = len(run.splits["train"])
    return {"rotation_degrees": run.placed.turn, "translation_scene_units": run.placed.shift, "cameras": moved}


def measure_images(run: Run, scene: Scene, split: str, *, own: bool = True) -> dict[str, Any] | None:
    """Mean PSNR and SSIM over the views of a split, rendered in full size; None for a split without views.

    psnr_masked counts the pixels inside the masks only, where the scene has masks; psnr_affine, where something was
    learned of single photographs, the same (or all) pixels after the affine change of color that fits each photograph
    best; where the scene has depths, there is also what `score_depths` says. Raises InputError for the name of a split
    that the data lack. own: whether the views are the run's, of which it may have learned something each.
    """
    import numpy as np
    import torch

    from models.rendering.frames import render_image
    from utils.evaluation.image_metrics import SSIM_DEFINITION, WINDOW, affine_fitted, psnr, ssim

    if split not in scene.splits and split != "test":
        raise InputError(f"--split: {split!r} - the data have {', '.join(scene.splits)}")
    views = scene.splits.get(split)
    if views is None or len(views) == 0:
        return None
    if scene.background is not None:  # what the photographs were composited over
        run.model.background_color.copy_(torch.tensor(scene.background))
    cameras = scene.cameras.to(run.device)
    rows: list[tuple[float, float | None, float | None, float | None]] = []
    tinted = any(medium.per_image is not None for medium in run.model.media)
    depth_errors: list[tuple[np.ndarray, np.ndarray]] = []
    print(f"{split + ' view':32s} {'psnr':>8s} {'ssim':>8s}")
    for view in (int(v) for v in views):
        frame = render_image(run.model, cameras, view, photograph=own)
        color = frame.color.double()
        truth = torch.from_numpy(scene.images[view]).double() / 255.0
        mask = torch.from_numpy(scene.masks[view]) > 127 if scene.masks is not None else None
        likeness = ssim(color, truth).item() if min(truth.shape[:2]) >= WINDOW else None
        inside = psnr(color, truth, mask).item() if mask is not None and mask.any() else None
        fits = tinted and (mask is None or bool(mask.any()))
        affine = psnr(affine_fitted(color, truth, mask), truth, mask).item() if fits else None
        rows.append((psnr(color, truth).item(), likeness, inside, affine))
        print(f"{scene.names[view][-32:]:32s} {rows[-1][0]:8.2f} {shown(likeness):>8s}")
        if scene.depths is not None:
            depth_errors.append(depth_error(scene, view, frame.depth.numpy()))
    names = ("psnr", "ssim", "psnr_masked", "psnr_affine")
    found = dict(zip(names, map(mean, zip(*rows, strict=True)), strict=True))
    if not tinted:
        del found["psnr_affine"]
    depths = score_depths(*map(np.concatenate, zip(*depth_errors, strict=True))) if depth_errors else {}
    return {**found, **depths, "views": len(rows), "split": split, "ssim_definition": SSIM_DEFINITION}


def depth_error(scene: Scene, view: int, along: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Depth errors [N] of a view, and [N] bool whether a training view saw the place that was measured.

    along: rendered distance along the rays [H, W], scene units. N: the pixels that have a measured depth. Errors are
    |rendered - measured| z depth, world units.
    """
    import numpy as np
    import torch

    from dataio.visibility import times_seen

    assert scene.depths is not None
    rays = scene.cameras.rays(torch.full((along.size,), view), scene.cameras.pixel_grid(view))
    cosine = rays.directions @ scene.cameras.forward[view]
    measured = torch.from_numpy(np.array(scene.depths[view], dtype=np.float32).ravel())
    known = measured > 0
    scale = float(np.cbrt(np.linalg.det(scene.world_from_scene[:3, :3])))
    error = (torch.from_numpy(along.ravel()) * cosine - measured).abs()[known] * scale
    points = rays.at(measured / cosine)[known].double().numpy()
    return error.numpy(), times_seen(scene, scene.splits["train"], points, margin=SEEN_MARGIN / scale) > 0


def score_depths(error: np.ndarray, seen: np.ndarray) -> dict[str, Any]:
    """Share of the pixels whose depth is right to 0.05 world units, the median error, and that share where `seen`.

    error: [N] world units. seen: [N] bool, where a training view saw the place: no method can know the others.
    """
    import numpy as np

    def share(of: np.ndarray) -> float | None:
        return float((of < DEPTH_BOUND).mean()) if len(of) else None

    return {
        "depth_within_0.05": share(error),
        "depth_median_error": float(np.median(error)) if len(error) else None,
        "depth_pixels": len(error),
        "depth_within_0.05_seen": share(error[seen]),
        "depth_pixels_seen": int(seen.sum()),
    }


def measure_mesh(
    run: Run, scene: Scene, mesh: Path | None, reference: Path | None, crop: float | None
) -> dict[str, Any] | None:
    """Distances between a mesh and the true surface, both in world units; None when either is not known.

    The true surface is `reference`, or the scene's own, which is then also written to
    RUN/meshes/reference.ply.
    """
    from utils.evaluation.mesh_metrics import compare_meshes
    from utils.meshing.mesh import read_mesh

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


def measure_against_points(
    run: Run, scene: Scene, mesh: Path | None, reference: Path, min_views: int
) -> dict[str, Any]:
    """Distances between a mesh and points on the true surface, world units, where `min_views` training views saw."""
    from utils.evaluation.point_metrics import compare_points, read_points
    from utils.meshing.mesh import read_mesh

    path = mesh or run.folder / "meshes" / "mesh.ply"
    points = read_points(reference, least_views=min_views)
    seen = partial(observed, run, scene, min_views)
    score = compare_points(read_mesh(path, up=run.up), points, observed=seen)
    return {"file": path.name, **score, "min_views": min_views}


def observed(run: Run, scene: Scene, min_views: int, points: np.ndarray) -> np.ndarray:
    """Which of the points [N, 3], world units, at least `min_views` training views saw; [N]."""
    import numpy as np

    from dataio.visibility import times_seen

    scene_from_world = np.linalg.inv(run.world_from_scene)
    inside = points @ scene_from_world[:3, :3].T + scene_from_world[:3, 3]
    margin = SEEN_MARGIN * np.cbrt(np.linalg.det(scene_from_world[:3, :3]))
    return times_seen(scene, scene.splits["train"], inside, margin=margin) >= min_views


def measure_heights(run: Run, mesh: Path | None, heights: Path) -> dict[str, Any]:
    """Vertical errors of a mesh's uppermost surface, world units, z up. Raises InputError without a mesh."""
    from utils.evaluation.height_metrics import compare_heights, reference_points
    from utils.meshing.mesh import read_mesh

    path = mesh or run.folder / "meshes" / "mesh.ply"
    return {"file": path.name, **compare_heights(read_mesh(path, up=run.up), reference_points(heights)).as_dict()}


def known_surface(run: Run, scene: Scene) -> trimesh.Trimesh | None:
    """The scene's own true surface, world units, kept beside the run's meshes."""
    from utils.meshing.mesh import write_mesh

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
    run_script(main, memory="a smaller data.ram or a larger data.downscale may help")
