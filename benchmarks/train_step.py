"""Time a training step, beside what the machine can do: matrix products and copies in one process."""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from utils.errors import run_script

RESULTS = Path(__file__).parent / "results"
PROCEDURAL = "data={type: procedural, size: 200}"
GEMM = (4096, 1024, 1024)
COPY_BYTES = 1 << 28
# The published NeuS code with its own network and samplers: 27.2 CPU-s for a step of 512 rays, on two threads of a
# CPU whose fp32 matrix products run at 100 GFLOP per CPU-second (the median of five steps, default allocator).
REFERENCE_CPU_SECONDS_PER_RAY, REFERENCE_GEMM = 0.053, 100.0
EXAMPLE = """examples:
  python -m benchmarks.train_step
  python -m benchmarks.train_step --config configs/neus.yaml --warmup 2 --steps 3 train.rays=512
  python -m benchmarks.train_step --data DATA --device cuda --out

The timed steps are the last ones of a run of WARMUP + STEPS steps: every schedule is near its end,
all levels of a hash grid are in use. Pictures and checkpoints are left out, the log is not."""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("overrides", nargs="*", metavar="key.sub=value", help="changes to the config")
    add("--config", default="configs/neus_hash.yaml", metavar="FILE", help="default: configs/neus_hash.yaml")
    add("--data", metavar="PATH", help="default: the procedural scene, 200 x 200")
    add("--steps", type=count, default=100, metavar="N", help="steps that are timed; default: 100")
    add("--warmup", type=count, default=300, metavar="N", help="steps before them; default: 300")
    add("--device", default="cpu", help="cpu or cuda; default: cpu")
    add("--threads", type=count, metavar="N", help="of torch and the kernels; default: as torch finds")
    add("--out", nargs="?", const="", metavar="FILE.json", help="default: a dated file in benchmarks/results/")
    add("--debug", action="store_true", help="show tracebacks of user errors")
    args = parser.parse_args()

    import torch

    if args.threads:
        torch.set_num_threads(args.threads)
    data = [PROCEDURAL] if args.data is None else [f"data.path={json.dumps(args.data)}"]
    overrides = [*data, f"device={args.device}", *args.overrides]
    found = measure(args.config, overrides, warmup=args.warmup, steps=args.steps)
    print_table(found)
    if args.out is not None:
        print(write(found, Path(args.out) if args.out else dated_file(found)))
    return 0


def measure(
    config: str, overrides: Sequence[str], *, warmup: int, steps: int, gemm: tuple[int, int, int] = GEMM
) -> dict[str, Any]:
    """Everything the table shows. Raises InputError for a wrong config or data.

    warmup, steps: numbers of training steps, >= 1. gemm: rows, inner and columns of the matrix product.
    """
    import torch

    from experiment import choose_device, read_config

    every = min(read_config(config, overrides).train.log_every, steps)  # at least one line among the timed steps
    length = ["train.minutes=null", f"train.steps={warmup + steps}", f"train.log_every={every}"]
    silent = ["train.validations=0", "train.checkpoint_every=1_000_000_000"]
    read = read_config(config, [*overrides, *length, *silent])
    device = choose_device(read.device)
    machine = {**hardware(device), **versions(), "threads": torch.get_num_threads()}
    with tempfile.TemporaryDirectory() as folder:
        step = train(read, Path(folder), warmup, steps)
    # After the training, whose peak of memory they would raise.
    ceiling = {"gemm_gflop_per_s": gemm_rate(device, gemm), "copy_gb_per_s": copy_rate(device)}
    about = {"config": Path(config).stem, "overrides": list(overrides), "warmup": warmup, "steps": steps}
    found = {"date": datetime.now(UTC).strftime("%Y-%m-%d"), **about, **machine, **ceiling, **step}
    ratio = step["rays_per_cpu_s"] * REFERENCE_CPU_SECONDS_PER_RAY if device.type == "cpu" else None
    # The reference was measured on another CPU: the second number takes away what the CPU alone explains.
    equal = None if ratio is None else ratio * REFERENCE_GEMM / ceiling["gemm_gflop_per_s"]
    return {**found, "ratio_to_reference": ratio, "ratio_at_equal_gemm": equal}


def train(config: Any, folder: Path, warmup: int, steps: int) -> dict[str, float]:
    """Train warmup + steps steps in `folder`, and time the last ones. config: an ExperimentConfig."""
    import training
    from utils import distributed

    ranks = distributed.setup(config.device)
    run = training.open_training(config, folder, ranks, allow_config_change=False)
    assert run is not None
    try:
        repeated(run.step_once, warmup)
        wall, cpu = timed(lambda: repeated(run.step_once, steps), ranks.device)
    finally:
        run.sampler.close()
        run.line.close()
        run.writer.close()
    rays = config.train.rays * steps
    lines = (folder / "metrics.jsonl").read_text("utf-8").splitlines()
    logged = [row for row in map(json.loads, lines) if row["step"] > warmup]
    return {
        "rays_per_step": config.train.rays,
        "wall_s_per_step": wall / steps,
        "cpu_s_per_step": cpu / steps,
        "rays_per_s": rays / wall,
        "rays_per_cpu_s": rays / cpu,
        "samples_per_ray": mean(logged, "perf/samples_per_ray"),
        "train_psnr": mean(logged, "train/psnr"),
        "peak_memory_mb": training.peak_memory_mb(ranks.device),
    }


def repeated(work: Callable[[], object], times: int) -> None:
    """Do it so many times."""
    for _ in range(times):
        work()


def mean(rows: list[dict[str, float]], key: str) -> float:
    """The mean of a logged number."""
    return sum(row[key] for row in rows) / len(rows)


def timed(work: Callable[[], object], device: Any) -> tuple[float, float]:
    """Wall and CPU seconds (of all threads of this process) that `work` takes, the GPU's work included."""
    synchronize(device)
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    synchronize(device)
    return time.perf_counter() - wall, time.process_time() - cpu


def synchronize(device: Any) -> None:
    """Wait for a GPU; nothing on a CPU."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)


def gemm_rate(device: Any, shape: tuple[int, int, int], repeats: int = 3) -> float:
    """GFLOP of an fp32 matrix product per CPU-second (on CUDA: per second), the best of some repeats."""
    import torch

    rows, inner, columns = shape
    a, b = torch.randn(rows, inner, device=device), torch.randn(inner, columns, device=device)
    out = torch.empty(rows, columns, device=device)
    seconds = best(lambda: torch.mm(a, b, out=out), device, repeats)
    return 2e-9 * rows * inner * columns / seconds


def copy_rate(device: Any, repeats: int = 3) -> float:
    """GB read and written per CPU-second (on CUDA: per second) in copying a quarter of a GiB."""
    import torch

    source = torch.ones(COPY_BYTES // 4, device=device)
    target = torch.empty_like(source)
    return 2e-9 * COPY_BYTES / best(lambda: target.copy_(source), device, repeats)


def best(work: Callable[[], object], device: Any, repeats: int) -> float:
    """The shortest CPU time (on CUDA: wall time) of some repeats, after one that does not count."""
    work()
    times = [timed(work, device) for _ in range(repeats)]
    return max(min(wall if device.type == "cuda" else cpu for wall, cpu in times), 1e-9)


def hardware(device: Any) -> dict[str, Any]:
    """What the machine is."""
    import torch

    names = [line.partition(":")[2].strip() for line in cpu_lines() if line.startswith("model name")]
    found: dict[str, Any] = {"cpu": names[0] if names else platform.machine(), "cores": os.cpu_count()}
    if device.type == "cuda":
        found["gpu"] = torch.cuda.get_device_name(device)
    return {**found, "device": device.type}


def cpu_lines() -> list[str]:
    """Linux's description of the CPU; nothing elsewhere."""
    try:
        return Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return []


def versions() -> dict[str, str]:
    """Of what the time depends on."""
    import torch
    import warp

    return {"python": platform.python_version(), "torch": str(torch.__version__), "warp": warp.__version__}


def print_table(found: dict[str, Any]) -> None:
    """One line per number."""
    for key, value in found.items():
        text = f"{value:.4g}" if isinstance(value, float) else "-" if value is None else str(value)
        print(f"{key:22s} {text}")


def dated_file(found: dict[str, Any]) -> Path:
    """Where a result is kept: one file per day, config and device; a later one replaces it."""
    return RESULTS / f"{found['date']}-{found['config']}-{found['device']}.json"


def write(found: dict[str, Any], path: Path) -> Path:
    """Write the numbers as JSON; returns the path."""
    from utils.files import write_json

    write_json(path, found)
    return path


def count(text: str) -> int:
    """An argparse type: a whole number from 1 on."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"a number from 1 on expected, got {text}")
    return value


if __name__ == "__main__":
    run_script(main)
