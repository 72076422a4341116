"""Train for several lengths of time, each a run of its own, and measure pictures and mesh of each.

Schedules follow the budget: a run of three minutes is not the beginning of one of ten, and one that
is stopped on its way is worse than one that was made to end there. So each mark is a run from the
start. The scripts are those that a user calls: train.py, extract_mesh.py, evaluate.py.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.machine import GEMM, ROOT
from benchmarks.train_step import overrides_of
from utils.errors import InputError, run_script

EXAMPLE = """examples:
  python -m benchmarks.time_to_quality --minutes 1,3,10
  python -m benchmarks.time_to_quality --data figure --reference figure/mesh.ply --minutes 5
  python -m benchmarks.time_to_quality --device cuda --minutes 0.25,1,3 --keep runs/quality --out

seconds and memory are those of the training, as metrics.json has them; psnr is the mean over all
held-out views in full size; mesh distances are in radii of the true mesh's bounding sphere, with
--reference or where the data know their surface. For the PyTorch form see train_step."""
# What a line shows: its name, and where it is in metrics.json.
COLUMNS = (
    ("steps", "train", "steps"),
    ("wall_s", "train", "seconds"),
    ("cpu_s", "train", "cpu_seconds"),
    ("peak_mb", "train", "peak_memory_mb"),
    ("psnr", "images", "psnr"),
    ("views", "images", "views"),
    ("chamfer", "mesh", "chamfer"),
    ("accuracy", "mesh", "accuracy"),
    ("complete", "mesh", "completeness"),
    ("f_0.01", "mesh", "f_score_0.01"),
    ("f_0.005", "mesh", "f_score_0.005"),
)


def main() -> int:
    parser = machine.parser_of(__doc__, EXAMPLE)
    add = parser.add_argument
    add("--config", default="configs/neus_hash.yaml", metavar="FILE", help="default: configs/neus_hash.yaml")
    add("--data", metavar="PATH", help="default: the procedural scene, 200 x 200")
    add("--minutes", type=marks, default=(1.0, 3.0, 10.0), metavar="M,...", help="of training; default: 1,3,10")
    add("--reference", metavar="MESH", help="the true surface")
    add("--no-mesh", action="store_true", help="pictures only")
    add("--resolution", type=int, default=256, metavar="N", help="of the mesh; default: 256")
    add("--keep", type=Path, metavar="FOLDER", help="keep the runs there; default: they are dropped")
    args = parser.parse_intermixed_args()
    overrides = overrides_of(args.data, args.device, args.overrides)
    mesh = None if args.no_mesh else Mesh(args.resolution, args.reference)
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.keep or Path(temporary)
        found = measure(args.config, overrides, args.minutes, folder, mesh=mesh)
    return machine.finish(found, args.out, f"time_to_quality-{Path(args.config).stem}")


@dataclass(frozen=True)
class Mesh:
    """How the mesh is made, and what it is compared with: None for what the data know, if they do."""

    resolution: int
    reference: str | None


def measure(
    config: str,
    overrides: Sequence[str],
    minutes: Sequence[float],
    folder: Path,
    *,
    mesh: Mesh | None,
    gemm: tuple[int, int, int] = GEMM,
) -> dict[str, Any]:
    """Everything the table shows. folder: of the runs. mesh: None for pictures only.

    Raises InputError for a wrong config, and when training or evaluation ends with an error.
    """
    from engine.experiment import read_config
    from utils.distributed import choose_device

    device = choose_device(read_config(config, overrides).device)
    found = {**machine.describe(device), "config": Path(config).stem, "overrides": list(overrides)}
    rows = [quality(config, overrides, length, folder / f"{length:g}_minutes", mesh=mesh) for length in minutes]
    return {**found, **machine.roofs(device, gemm), "quality": rows}


def quality(
    config: str, overrides: Sequence[str], minutes: float, folder: Path, *, mesh: Mesh | None
) -> dict[str, Any]:
    """Train for so long, measure, and return the row of the table. A run that is complete is measured again."""
    from utils.evaluation.results import read_results

    place = f"output={json.dumps(str(folder))}"
    ended("train.py", script("train.py", config, *overrides, f"train.minutes={minutes}", place))
    measured = [f"--device={key.partition('=')[2]}" for key in overrides if key.startswith("device=")][-1:]
    if mesh is not None:
        code = script("extract_mesh.py", str(folder), f"--resolution={mesh.resolution}", *measured)
        if code == 0 and mesh.reference is not None:  # there may be no surface yet
            measured.append(f"--reference={mesh.reference}")
    ended("evaluate.py", script("evaluate.py", str(folder), *measured))
    blocks = read_results(folder / "metrics.json")
    return {"minutes": minutes, **{name: (blocks[block] or {}).get(key) for name, block, key in COLUMNS}}


def script(name: str, *arguments: str) -> int:
    """Run a script in a process of its own; what it prints goes to stderr. Returns its exit code."""
    return subprocess.run([sys.executable, str(ROOT / name), *arguments], stdout=sys.stderr, check=False).returncode


def ended(name: str, code: int) -> None:
    """Raise InputError for an exit code that is not 0; the script has said why."""
    if code:
        raise InputError(f"{name}: ended with code {code} - its own lines are above")


def marks(text: str) -> tuple[float, ...]:
    """An argparse type: minutes with commas."""
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if not values or not all(0 < value < 1e5 for value in values):
        raise argparse.ArgumentTypeError(f"minutes above 0 with commas expected, got {text}")
    return values


if __name__ == "__main__":
    run_script(main)
