"""Measure pictures and meshes, of a run or foreign ones, against photographs and true surfaces."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dataio.files import need_folder
from engine import early
from utils.command_line import (
    Parser,
    device,
    input_file,
    input_folder,
    input_path,
    number,
    output_file,
    override,
)
from utils.errors import InputError, run_script
from utils.files import check_file, check_folder

if TYPE_CHECKING:
    from engine.protocols.base import ProtocolConfig, Scored
    from engine.run import Run
    from utils.evaluation.lpips import Lpips

BEHIND = {"white": (1.0, 1.0, 1.0), "black": (0.0, 0.0, 0.0)}
EXAMPLE = """examples:
  python evaluate.py runs/figure --reference data/figure/mesh.ply --error-mesh errors.ply
  python evaluate.py --mesh theirs.ply --reference DTU --protocol "{type: dtu, scan: 65}"
  python evaluate.py --renderings theirs/test --truth data/lego/test --out theirs.json
protocols, by name or YAML: generic, dtu, tanks_and_temples, scannet; see docs/evaluation.md
Of a run it writes RUN/metrics.json and, view by view, RUN/evaluation/."""


def main() -> int:
    args = arguments()
    check(args)

    from utils.evaluation.lpips import Lpips

    lpips = Lpips.read(args.lpips_weights) if args.lpips_weights is not None else None
    if args.renderings is not None:
        return evaluate_renderings(args, lpips)
    return evaluate_foreign(args) if args.run is None else evaluate_run(args, lpips)


def arguments() -> argparse.Namespace:
    """The command line. Raises InputError."""
    parser = Parser(__doc__, EXAMPLE, keys=early.keys)
    add = parser.add_argument
    pictures, points = input_folder("pictures"), input_file("a mesh or points")
    add("run", nargs="?", help="run folder or checkpoint folder")
    add("overrides", type=override, nargs="*", default=[], metavar="key=value", help="changes to the config")
    add("--mesh", type=input_file("a mesh"), metavar="FILE", help="default: RUN/meshes/mesh.ply")
    add("--reference", type=input_path("a mesh or points"), metavar="PATH", help="truth: mesh, points or folder")
    add("--protocol", metavar="P", help="how the mesh is scored; default: generic")
    add("--error-mesh", type=output_file(".ply", ".glb"), metavar="FILE", help="the mesh, red where it is wrong")
    add("--min-views", type=number(int, 1, 100_000), metavar="N", help="generic: its key min_views")
    add("--crop", type=number(float, 0, 1000), metavar="C", help="generic: its key crop, in radii")
    add("--heights", type=points, metavar="FILE", help="points or a mesh: errors in z")
    add("--data", metavar="PATH", help="other photographs, or those whose cameras a protocol asks")
    add("--background", choices=tuple(BEHIND), metavar="COLOR", help="white or black, behind what is masked")
    add("--split", default="test", help="which views; default: test")
    add("--keep-renderings", action="store_true", help="with the truth, into RUN/evaluation/SPLIT")
    add("--renderings", type=pictures, metavar="DIR", help="foreign pictures, against those of --truth")
    add("--truth", type=pictures, metavar="DIR", help="true pictures; .npy beside them are depths")
    add("--masks", type=pictures, metavar="DIR", help="of --truth; default: its alpha")
    add("--lpips-weights", type=input_file("weights"), metavar="FILE", help="network and layers of LPIPS")
    add("--out", type=output_file(".json"), metavar="FILE", help="the numbers, instead of in the run")
    add("--device", type=device, default="auto", help="auto, cpu, cuda or cuda:N")
    return parser.parse()


def check(args: argparse.Namespace) -> None:
    """Raise InputError for what shows before anything is loaded: no such run, key, data or mesh, no place to write."""
    if args.protocol is not None:
        early.check_protocol(args.protocol)
    if args.data is not None:
        need_folder(args.data, "--data")
    if args.renderings is not None or args.truth is not None:
        if args.renderings is None or args.truth is None or args.run is not None:
            raise InputError("--renderings: foreign pictures - expected --renderings DIR --truth DIR, and no run")
    elif args.run is not None:
        check_run(args)
    elif args.mesh is None or (args.reference is None and args.heights is None):
        raise InputError("run: not given - expected a run, --mesh and --reference, or --renderings and --truth")


def check_run(args: argparse.Namespace) -> None:
    """Raise InputError for what shows of a run before it is loaded."""
    folder = early.check_run(args.run, run_overrides(args))
    check_file(args.out or folder / "metrics.json")
    check_folder(folder / "evaluation")
    if args.data is None:
        early.check_data(early.check_config(folder / "config.yaml", run_overrides(args), saved=True))
    own = folder / "meshes" / "mesh.ply"
    if args.mesh is None and not own.is_file() and (args.reference is not None or args.heights is not None):
        raise InputError(f"{own}: no such file - write python extract_mesh.py {folder} first, or --mesh FILE")


def run_overrides(args: argparse.Namespace) -> list[str]:
    """Changes to the run's config."""
    behind = [f"data.background={args.background}", "data.masks=composite"] if args.background else []
    return behind + args.overrides


def evaluate_run(args: argparse.Namespace, lpips: Lpips | None) -> int:
    """Measure what a run made, into its folder."""
    from engine.evaluation import surfaces
    from engine.evaluation.pictures import Measuring, measure_images
    from engine.run import Run
    from utils.commands import note_command

    run = Run.open(args.run, device=args.device, overrides=run_overrides(args))
    scene, protocol = run.load_scene(args.data), protocol_of(args)
    mesh, scored = args.mesh or surfaces.own_mesh(run.folder), None
    if args.reference is not None:
        scored = surfaces.score_surface(run, mesh, args.reference, protocol, lambda: surfaces.sight_of(scene))
    elif args.heights is None:
        scored = surfaces.score_against_scene(run, scene, args.mesh, protocol)
    block = mesh_block(args, mesh, scored, run)
    kept = run.folder / "evaluation"
    how = Measuring(lpips, kept / args.split if args.keep_renderings else None)
    images = measure_images(run, scene, args.split, how, own=args.data is None)
    poses = measure_poses(run)
    blocks = blocks_of(args.split, images, measured_on(args), block, protocol_name(protocol))
    path = args.out or run.folder / "metrics.json"
    write_numbers(path, kept / f"{args.split}.csv", **blocks, poses=poses)
    note_command(run.folder, [path])
    print_block("images", images)
    if poses is not None:
        print_block("poses", poses)
    print_block("mesh", block)
    return 0


def evaluate_foreign(args: argparse.Namespace) -> int:
    """Measure a mesh that no run made."""
    from engine.evaluation import surfaces

    protocol, scored = protocol_of(args), None
    if args.reference is not None:
        sight = surfaces.sight_of_data(args.data) if args.data is not None else None
        scored = surfaces.score_surface(None, args.mesh, args.reference, protocol, sight)
    block = mesh_block(args, args.mesh, scored, None)
    if args.out is not None:
        write_numbers(args.out, None, **blocks_of("test", None, measured_on(args), block, protocol_name(protocol)))
    print_block("mesh", block)
    return 0


def evaluate_renderings(args: argparse.Namespace, lpips: Lpips | None) -> int:
    """Measure pictures that no run made."""
    from engine.evaluation.foreign import Folders, score_renderings

    folders = Folders(args.renderings, args.truth, args.masks, BEHIND[args.background or "white"])
    images = score_renderings(folders, lpips)
    if args.out is not None:
        write_numbers(args.out, args.out.with_suffix(".csv"), images=images)
    print_block("images", images)
    return 0


def protocol_of(args: argparse.Namespace) -> ProtocolConfig:
    """The protocol that the options name. Raises InputError."""
    from engine.evaluation.surfaces import read_protocol

    given = {key: getattr(args, key) for key in ("crop", "min_views") if getattr(args, key) is not None}
    if given and args.protocol is not None:
        option = next(iter(given)).replace("_", "-")
        raise InputError(f"--{option}: a key of a protocol - expected it in --protocol, as {{type: generic, ...}}")
    return read_protocol(args.protocol).model_copy(update=given)


def protocol_name(protocol: ProtocolConfig) -> str:
    """Its type."""
    return str(protocol.model_dump()["type"])


def mesh_block(args: argparse.Namespace, mesh: Path, scored: Scored | None, run: Run | None) -> dict[str, Any] | None:
    """The numbers of a mesh, None where there are none; its errors as colors where that is asked for."""
    from engine.evaluation import surfaces

    block = None if scored is None else {"file": mesh.name, **scored.numbers}
    if args.heights is not None:
        block = (block or {}) | surfaces.measure_heights(run, mesh, args.heights)
    if args.error_mesh is not None:
        if scored is None:
            raise InputError("--error-mesh: nothing was measured - expected --reference, and a mesh")
        surfaces.write_errors(args.error_mesh, scored)
        print(f"{args.error_mesh}: red from {scored.worst:.3g} on")
    return block


def measured_on(args: argparse.Namespace) -> str:
    """The files that the mesh was compared with; empty for the scene's own surface."""
    return ", ".join(file.name for file in (args.reference, args.heights) if file is not None)


def blocks_of(
    split: str,
    images: dict[str, Any] | None,
    reference: str,
    mesh: dict[str, Any] | None,
    protocol: str = "generic",
) -> dict[str, dict[str, Any] | None]:
    """Where the numbers go in metrics.json, so that nothing that was measured otherwise is overwritten.

    images: "images" for the test views, else by the name of the split. mesh: "mesh", the newest, and by reference; of a
    protocol with units of its own by its name alone.
    """
    pictures: dict[str, dict[str, Any] | None] = {"images": images}
    if split != "test":
        pictures = {"splits": {split: images} if images else None}
    if protocol != "generic":
        return {**pictures, "protocols": {protocol: mesh} if mesh else None}
    by_reference = {"references": {reference: mesh}} if reference and mesh else {}
    return {**pictures, "mesh": mesh, **by_reference}


def write_numbers(path: Path, views: Path | None, **blocks: dict[str, Any] | None) -> None:
    """Write the blocks into the file of numbers, and what they say of single views as a table beside it."""
    from utils.evaluation.results import update_results
    from utils.evaluation.view_scores import write_views

    update_results(path, **blocks)
    images = blocks.get("images") or next(iter((blocks.get("splits") or {}).values()), None)
    if images and views is not None:
        write_views(views, images["per_view"])


def measure_poses(run: Run) -> dict[str, Any] | None:
    """Mean change of the training cameras' poses, after an alignment of all; None where none were learned."""
    if run.placed is None:
        return None
    moved = len(run.splits["train"])
    return {"rotation_degrees": run.placed.turn, "translation_scene_units": run.placed.shift, "cameras": moved}


def print_block(name: str, block: dict[str, Any] | None) -> None:
    """One line per number; those of single views were printed before."""
    from utils.evaluation.view_scores import shown

    if block is None:
        print(f"{name}: not measured")
        return
    for key, value in block.items():
        if not isinstance(value, list):
            print(f"{name + '.' + key:28s} {shown(value)}")


if __name__ == "__main__":
    run_script(main, memory="a smaller data.ram or a larger data.downscale may help")
