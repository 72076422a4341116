"""Time a training step, beside what the machine can do and the same step in PyTorch alone."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import machine
from benchmarks.machine import GEMM, count, repeated, timed
from utils.errors import run_script

if TYPE_CHECKING:
    from engine.experiment import ExperimentConfig
    from engine.trainer import Trainer

PROCEDURAL = "data={type: procedural, size: 200}"
NEVER = 1_000_000_000  # steps
# The published NeuS code with its own network and samplers: 27.2 CPU-s for a step of 512 rays, on two threads of a
# CPU whose fp32 matrix products run at 100 GFLOP per CPU-second (the median of five steps, default allocator).
REFERENCE_CPU_SECONDS_PER_RAY, REFERENCE_GEMM = 0.053, 100.0
EXAMPLE = """examples:
  python -m benchmarks.train_step
  python -m benchmarks.train_step --config configs/neus.yaml --warmup 2 --steps 3 train.rays=512
  python -m benchmarks.train_step --data DATA --device cuda --out

The timed steps are the last ones of a run of WARMUP + STEPS steps: every schedule is near its end,
all levels of a hash grid are in use. Pictures and checkpoints are left out, the log is not. On a
GPU where they were replayed from a graph, as many steps without one follow. Then some in
PyTorch alone: the same model, losses and optimizer, benchmarks/kernel_cases/baseline.py for the kernels."""


def main() -> int:
    parser = machine.parser_of(__doc__, EXAMPLE)
    add = parser.add_argument
    add("--config", default="configs/neus_hash.yaml", metavar="FILE", help="default: configs/neus_hash.yaml")
    add("--data", metavar="PATH", help="default: the procedural scene, 200 x 200")
    add("--steps", type=count, default=100, metavar="N", help="steps that are timed; default: 100")
    add("--warmup", type=count, default=300, metavar="N", help="steps before them; default: 300")
    add("--baseline", type=int, default=3, metavar="N", help="steps in PyTorch alone; 0: none; default: 3")
    add("--threads", type=count, metavar="N", help="of torch and the kernels; default: as torch finds")
    args = parser.parse_intermixed_args()

    import torch

    if args.threads:
        torch.set_num_threads(args.threads)
    overrides = overrides_of(args.data, args.device, args.overrides)
    found = measure(args.config, overrides, warmup=args.warmup, steps=args.steps, baseline=max(args.baseline, 0))
    return machine.finish(found, args.out, found["config"])


def overrides_of(data: str | None, device: str, others: Sequence[str]) -> list[str]:
    """The changes to a config that a benchmark's arguments mean. data: None for the procedural scene."""
    source = PROCEDURAL if data is None else f"data.path={json.dumps(data)}"
    return [source, f"device={device}", *others]


def measure(
    config: str,
    overrides: Sequence[str],
    *,
    warmup: int,
    steps: int,
    baseline: int = 0,
    gemm: tuple[int, int, int] = GEMM,
) -> dict[str, Any]:
    """Everything the table shows. Raises InputError for a wrong config or data.

    warmup, steps: numbers of training steps, >= 1. baseline: steps in PyTorch alone, 0 for none. gemm: rows, inner and
    columns of the matrix product.
    """
    from utils.distributed import choose_device

    read = short_run(config, overrides, warmup + steps, log_every=steps)
    device = choose_device(read.device)
    described = machine.describe(device)
    step = train(read, warmup, steps, baseline)
    # After the training, whose peak of memory they would raise.
    ceiling = machine.roofs(device, gemm)
    about = {"config": Path(config).stem, "overrides": list(overrides), "warmup": warmup, "steps": steps}
    found = {"date": described.pop("date"), **about, **described, **ceiling, **step}
    ratio = step["rays_per_cpu_s"] * REFERENCE_CPU_SECONDS_PER_RAY if device.type == "cpu" else None
    # The reference was measured on another CPU: the second number takes away what the CPU alone explains.
    equal = None if ratio is None else ratio * REFERENCE_GEMM / ceiling["gemm_gflop_per_s"]
    return {**found, "ratio_to_reference": ratio, "ratio_at_equal_gemm": equal}


def short_run(config: str, overrides: Sequence[str], steps: int, log_every: int = 50) -> ExperimentConfig:
    """The config of a run of so many steps that writes no pictures and no checkpoints on the way.

    log_every: the most steps between two lines of the log.
    """
    from engine.experiment import read_config

    every = min(read_config(config, overrides).train.log_every, log_every)
    length = ["train.minutes=null", f"train.steps={steps}", f"train.log_every={every}"]
    silent = ["train.validations=0", f"train.checkpoint_every={NEVER}"]
    return read_config(config, [*overrides, *length, *silent])


@contextmanager
def running(config: ExperimentConfig) -> Iterator[Trainer]:
    """A run in progress in a temporary folder, which is gone afterwards."""
    from engine import resume
    from utils import distributed

    with tempfile.TemporaryDirectory() as folder:
        ranks = distributed.setup(config.device)
        run = resume.open_trainer(config, Path(folder), ranks, allow_config_change=False)
        assert run is not None
        try:
            yield run
        finally:
            run.close()
            run.line.close()
            run.writer.close()


def train(config: ExperimentConfig, warmup: int, steps: int, baseline: int) -> dict[str, Any]:
    """Train warmup + steps steps and time the last ones, then some in PyTorch alone."""
    from utils.memory import peak_memory_mb

    with running(config) as run:
        device = run.ranks.device
        repeated(run.step_once, warmup)
        before = run.ray_count.taken
        wall, cpu = timed(lambda: repeated(run.step_once, steps), device)
        each = (run.ray_count.taken - before) / steps
        lines = (run.folder / "metrics.jsonl").read_text("utf-8").splitlines()
        memory = peak_memory_mb(device)
        recording, run.gradients.recording = run.gradients.recording, None
        recorded = recording is not None and recording.graph is not None
        eager = timed(lambda: repeated(run.step_once, steps), device)[0] / steps if recorded else None
        slow = baseline_step(run, baseline) if baseline else None
    logged = [row for row in map(json.loads, lines) if row["step"] > warmup]
    own = (wall if device.type == "cuda" else cpu) / steps
    return {
        "rays_per_step": each,
        "wall_s_per_step": wall / steps,
        "cpu_s_per_step": cpu / steps,
        "rays_per_s": each * steps / wall,
        "rays_per_cpu_s": each * steps / cpu,
        "samples_per_ray": mean(logged, "perf/samples_per_ray"),
        "train_psnr": mean(logged, "train/psnr"),
        "peak_memory_mb": memory,
        "eager_wall_s_per_step": eager,
        "baseline_s_per_step": slow,
        "ratio_to_baseline": None if slow is None else slow / own,
    }


def baseline_step(run: Trainer, steps: int) -> float:
    """Mean cost of a step in PyTorch alone: CPU seconds, on CUDA wall seconds; one step before does not count."""
    from benchmarks.kernel_cases.baseline import instead_of_kernels

    with instead_of_kernels():
        run.step_once()
        return machine.cost(lambda: repeated(run.step_once, steps), run.ranks.device) / steps


def mean(rows: list[dict[str, float]], key: str) -> float:
    """The mean of a logged number."""
    return sum(row[key] for row in rows) / len(rows)


if __name__ == "__main__":
    run_script(main)
