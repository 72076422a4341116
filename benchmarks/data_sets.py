"""Load data sets, look at their sparse points, and train on each for a moment: does the loss fall?"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from utils.errors import InputError, run_script

EXAMPLE = """examples:
  python -m benchmarks.data_sets data/fox data/lego
  python -m benchmarks.data_sets data/colmap_fox:data.type=colmap:data.images=data/fox/images
  python -m benchmarks.data_sets data/room:config=neus_hash_room                 another config for one set

Prints a line of a Markdown table per set, at the end what is wrong with the others. The config is
neus_hash for sets with masks, neus_hash_open for others."""
MEGABYTE = 1024  # kilobytes, as the system counts memory
EDGE = 20  # steps at both ends whose losses are compared


@dataclass(frozen=True)
class Found:
    """What one set is, and what its training did."""

    name: str
    format: str
    views: int
    size: str
    load_s: float
    memory_mb: float
    reprojection: float | None  # pixels, median
    first: float  # loss at the start
    last: float  # and at the end

    def row(self) -> str:
        """A line of the table."""
        error = "" if self.reprojection is None else f"{self.reprojection:.3g}"
        return (
            f"| {self.name} | `{self.format}` | {self.views} | {self.size} | {self.load_s:.2f} | {self.memory_mb:.0f}"
            f" | {error} | {self.first:.3f} | {self.last:.3f} |"
        )


HEAD = """| Set | Format | Views | Size | Load, s | Memory, MB | Reprojection, px | Loss, first steps | last steps |
|---|---|---|---|---|---|---|---|---|"""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sets", nargs="+", metavar="PATH[:key=value...]", help="a set, and changes for it")
    parser.add_argument("--steps", type=int, default=200, metavar="N", help="of training; default: 200")
    parser.add_argument("--rays", type=int, default=512, metavar="N", help="per step; default: 512")
    args = parser.parse_args()
    print(HEAD)
    unusable = []
    for one in args.sets:
        path, *keys = one.split(":")
        # A process of its own: memory is that of this set.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=context) as process:
            try:
                found = process.submit(measure, path, keys, args.steps, args.rays).result()
            except InputError as error:
                unusable.append(str(error))  # the others are worth their lines all the same
                continue
        print(found.row(), flush=True)
    if unusable:
        raise InputError("\n".join(unusable))
    return 0


def measure(path: str, keys: list[str], steps: int, rays: int) -> Found:
    """Load a set, train on it. Raises InputError for unusable data."""
    from dataio.checks.reprojection import reprojection
    from dataio.recognition import AutoData
    from engine import resume
    from engine.experiment import read_config
    from utils import distributed

    chosen = [key.removeprefix("config=") for key in keys if key.startswith("config=")]
    short = [f"train.steps={steps}", "train.minutes=null", f"train.rays={rays}", "train.log_every=1"]
    silent = ["train.validations=0", "train.checkpoint_every=1_000_000_000", "device=cpu"]
    overrides = [f"data.path={json.dumps(path)}", *(key for key in keys if not key.startswith("config="))]
    data = read_config("configs/neus_hash.yaml", overrides).data
    data = data.resolve() if isinstance(data, AutoData) else data
    before = memory()
    begun = time.perf_counter()
    scene = data.load()
    seconds, used = time.perf_counter() - begun, memory() - before
    error = None if scene.points is None else reprojection(data.parse())
    config = chosen[0] if chosen else "neus_hash_open" if scene.masks is None else "neus_hash"
    read = read_config(f"configs/{config}.yaml", [*overrides, *short, *silent])
    with tempfile.TemporaryDirectory() as folder:
        run = resume.open_trainer(read, Path(folder), distributed.setup("cpu"), allow_config_change=False)
        if run is None:
            raise InputError(f"--steps: got {steps} - expected a positive number")
        while run.progress < 1:
            run.step_once()
        run.close()
        run.line.close()
        run.writer.close()
        rows = [json.loads(line) for line in (Path(folder) / "metrics.jsonl").read_text("utf-8").splitlines()]
    losses = [row["train/loss"] for row in rows if "train/loss" in row]
    sizes = sorted({(int(width), int(height)) for width, height in scene.cameras.size})
    size = " x ".join(map(str, sizes[-1])) + (f" and {len(sizes) - 1} more" if len(sizes) > 1 else "")
    return Found(
        name=Path(path).name,
        format=str(data.model_dump()["type"]),
        views=len(scene.names),
        size=size,
        load_s=seconds,
        memory_mb=used,
        reprojection=None if error is None else error.median,
        first=statistics.mean(losses[:EDGE]),
        last=statistics.mean(losses[-EDGE:]),
    )


def memory() -> float:
    """Peak resident memory of this process so far, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MEGABYTE


if __name__ == "__main__":
    run_script(main)
