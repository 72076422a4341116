"""Train on poses that are off, with and without refinement, and on true ones: errors of the poses, PSNR of other views.

The data are written anew as transforms.json, once as they are and once with the training cameras turned and moved at
random. Poses are compared, and held-out views rendered, after the similarity that fits the true training poses best.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import machine
from benchmarks.time_to_quality import ended, script
from benchmarks.train_step import overrides_of
from utils.errors import run_script

if TYPE_CHECKING:
    import numpy as np

    from dataio.scene import Scene
    from engine.run import Run

EXAMPLE = """examples:
  python -m benchmarks.pose_refinement --data data/figure --minutes 15
  python -m benchmarks.pose_refinement --data data/figure --minutes 3 --runs refined optimizer.parts.poses=3e-3
  python -m benchmarks.pose_refinement --minutes 3 --degrees 1 --percent 2 --keep runs/poses

Overrides are of the refined run alone. before and after: mean errors of the training poses, in degrees
and in percent of the cameras' distance from what they look at."""
RUNS = ("true", "wrong", "refined")


def main() -> int:
    parser = machine.parser_of(__doc__, EXAMPLE)
    add = parser.add_argument
    add("--config", default="configs/neus_hash.yaml", metavar="FILE", help="without refinement")
    add("--refining", default="configs/neus_hash_poses.yaml", metavar="FILE", help="with refinement")
    add("--data", metavar="PATH", help="default: the procedural scene, 200 x 200")
    add("--minutes", type=float, default=15.0, metavar="M", help="of each training; default: 15")
    add("--degrees", type=float, default=0.5, metavar="D", help="by which cameras are turned; default: 0.5")
    add("--percent", type=float, default=1.0, metavar="P", help="of their distance, by which they move; default: 1")
    add("--runs", type=runs, default=RUNS, metavar="RUN,...", help="of true,wrong,refined; default: all")
    add("--keep", type=Path, metavar="FOLDER", help="keep data and runs there; default: they are dropped")
    args = parser.parse_intermixed_args()
    error = Error(args.degrees, args.percent)
    configs = {name: (args.refining if name == "refined" else args.config) for name in args.runs}
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.keep or Path(temporary)
        budget = [f"device={args.device}", f"train.minutes={args.minutes}"]
        found = measure(configs, overrides_of(args.data, args.device, []), folder, error, budget, args.overrides)
    return machine.finish(found, args.out, "pose_refinement")


def runs(text: str) -> tuple[str, ...]:
    """An argparse type: names of runs with commas."""
    names = tuple(text.split(","))
    if unknown := [name for name in names if name not in RUNS]:
        raise argparse.ArgumentTypeError(f"unknown run {unknown[0]!r}, expected some of {','.join(RUNS)}")
    return names


@dataclass(frozen=True)
class Error:
    """How far training cameras are off, each about an axis and along a direction of its own: degrees, and percent of
    the distance to what the cameras look at.
    """

    degrees: float
    percent: float
    seed: int = 0


def measure(
    configs: dict[str, str],
    data: Sequence[str],
    folder: Path,
    error: Error,
    budget: Sequence[str],
    overrides: Sequence[str],
) -> dict[str, Any]:
    """Everything the table shows. configs: by name of the run, "true" on true poses, "refined" with the overrides.

    data: overrides that name the data. folder: of copies and runs. budget: overrides of all runs. Raises InputError for
    a wrong config or data, and when training ends with an error.
    """
    from dataio.export import write_transforms
    from engine.experiment import read_config
    from utils.distributed import choose_device

    read = read_config(next(iter(configs.values())), [*data, *budget])
    truth = read.data.load()
    write_transforms(truth, folder / "true")
    write_transforms(disturbed(truth, error), folder / "wrong")
    rows = []
    for name, config in configs.items():
        place = f"output={json.dumps(str(folder / f'run_{name}'))}"
        copy = f"data={{type: transforms, path: {json.dumps(str(folder / ('true' if name == 'true' else 'wrong')))}}}"
        own = overrides if name == "refined" else ()
        ended("train.py", script("train.py", config, *budget, copy, *framed(truth), *own, place))
        rows.append({"run": name, **quality(truth, folder / f"run_{name}", read.device)})
    about = {"degrees": error.degrees, "percent": error.percent, "overrides": list(overrides)}
    return {**machine.describe(choose_device(read.device)), **about, "budget": list(budget), "poses": rows}


def framed(scene: Scene) -> list[str]:
    """Overrides that keep the unit sphere where it is in a scene, whatever its cameras look at."""
    import numpy as np

    radius = float(np.cbrt(np.linalg.det(scene.world_from_scene[:3, :3])))
    return [f"data.center={scene.world_from_scene[:3, 3].tolist()}", f"data.radius={radius}"]


def disturbed(scene: Scene, error: Error) -> Scene:
    """The scene with its training cameras off."""
    import numpy as np
    import torch
    from torch.nn.functional import normalize

    from models.poses.so3xr3 import So3xR3Config

    random = torch.Generator().manual_seed(error.seed)
    train = torch.from_numpy(scene.splits["train"])
    axes, ways = normalize(torch.randn(2, len(train), 3, generator=random), dim=-1)
    poses = So3xR3Config().build(len(scene.cameras))
    with torch.no_grad():
        poses.correction[train, :3] = float(np.radians(error.degrees)) * axes
        poses.correction[train, 3:] = error.percent / 100 * distance(scene) * ways
    return replace(scene, cameras=poses.refined(scene.cameras))


def distance(scene: Scene) -> float:
    """Median distance of the training cameras from the point that they look at, scene units."""
    import numpy as np

    from dataio.normalize import look_at_point

    shot = scene.cameras[scene.splits["train"]]
    centers = shot.centers.double().numpy()
    middle = look_at_point(centers, shot.forward.double().numpy())
    return float(np.median(np.linalg.norm(centers - middle, axis=1)))


def quality(truth: Scene, folder: Path, device: str) -> dict[str, Any]:
    """The errors of a run's poses before and after it, and the PSNR of held-out views, from where they truly are."""
    import numpy as np

    from dataio.alignment import fit_poses
    from engine.run import Run
    from utils.evaluation.results import read_results

    run = Run.open(folder, device)
    given, train = run.config.data.load().reframed(run.world_from_scene), truth.splits["train"]
    scene = truth.reframed(run.world_from_scene)
    true, before, after = (poses_of(x)[train] for x in (scene, given, run))
    training = read_results(folder / "metrics.json")["train"] or {}
    row: dict[str, Any] = {"steps": run.step, "cpu_s": training.get("cpu_seconds")}
    for when, poses in (("before", before), ("after", after)):
        turn, shift = errors(true, poses)
        row |= {f"degrees_{when}": turn, f"percent_{when}": 100 * shift / distance(scene)}
    cameras = scene.cameras.transformed(np.asarray(fit_poses(true, after)))
    return row | {"psnr": held_out_psnr(run, replace(scene, cameras=cameras)), "views": len(scene.splits["test"])}


def poses_of(of: Scene | Run) -> np.ndarray:
    """[C, 3, 4] camera-to-world, scene frame."""
    import numpy as np

    return np.asarray(of.cameras.camera_to_world.double().cpu().numpy())


def errors(true: np.ndarray, poses: np.ndarray) -> tuple[float, float]:
    """Mean angle in degrees and mean distance, scene units, of poses [N, 3, 4] from the true ones, aligned to them."""
    import torch

    from dataio.alignment import fit_poses, pose_distances
    from dataio.cameras import Cameras

    cameras = Cameras.make(torch.from_numpy(poses), [1.0, 1.0, 0.5, 0.5], [1, 1])
    aligned = cameras.transformed(fit_poses(poses, true)).camera_to_world.double().numpy()
    turn, shift = pose_distances(true, aligned)
    return float(turn.mean()), float(shift.mean())


def held_out_psnr(run: Run, scene: Scene) -> float:
    """Mean PSNR over the held-out views of a scene, rendered by its cameras in full size."""
    import torch

    from models.rendering.frames import render_image
    from utils.evaluation.image_metrics import psnr

    cameras, found = scene.cameras.to(run.device), []
    for view in (int(view) for view in scene.splits["test"]):
        photograph = torch.from_numpy(scene.images[view]).double() / 255
        found.append(psnr(render_image(run.model, cameras, view, photograph=True).color.double(), photograph).item())
    return sum(found) / max(len(found), 1)


if __name__ == "__main__":
    run_script(main)
