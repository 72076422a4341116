"""Time every kernel: its PyTorch baseline, what the machine allows, its share of a training step."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import machine
from benchmarks.machine import GEMM, best, count, repeated
from utils.errors import InputError, run_script

if TYPE_CHECKING:
    import torch

    from benchmarks.kernel_cases.case import Case, Roofs
    from benchmarks.kernel_cases.cases import Sizes

GOAL = 10.0  # times the baseline
ROUNDS = 4
EXAMPLE = """examples:
  python -m benchmarks.kernels
  python -m benchmarks.kernels --samples 262144 --rays 8192 --device cuda --out
  python -m benchmarks.kernels --steps 0            the kernels alone, no training step

kernels: ours and baseline are the least of some repeats; items are points, samples or rays; of_roof is
the share of what the machine could do: rows read from or added to a level of the table, bytes
copied, products; at_roof: the ratio if it were all of that; difference: the largest, relative; of a
march and a trace the share of samples and rays that differ.
step: launches and time of each kernel in training steps."""


def main() -> int:
    parser = machine.parser_of(__doc__, EXAMPLE)
    add = parser.add_argument
    add("--config", default="configs/neus_hash.yaml", metavar="FILE", help="default: configs/neus_hash.yaml")
    add("--data", metavar="PATH", help="of the training steps; default: the procedural scene, 200 x 200")
    add("--rays", type=count, default=2048, metavar="N", help="default: 2048")
    add("--samples", type=count, default=24_000, metavar="N", help="on them, about; default: 24000")
    add("--pixels", type=count, default=1 << 16, metavar="N", help="rays that are traced; default: 65536")
    add("--lattice", type=count, default=128, metavar="N", help="points per side of what is traced; default: 128")
    add("--steps", type=int, default=20, metavar="N", help="training steps for the shares; 0: none; default: 20")
    add("--warmup", type=count, default=300, metavar="N", help="steps before them; default: 300")
    add("--threads", type=count, default=1, metavar="N", help="of the CPU; default: 1")
    args = parser.parse_intermixed_args()

    from benchmarks.kernel_cases.cases import Sizes
    from benchmarks.train_step import overrides_of

    sizes = Sizes(rays=args.rays, samples=args.samples, pixels=args.pixels, lattice=args.lattice)
    overrides = [*overrides_of(args.data, args.device, args.overrides), f"train.threads={args.threads}"]
    found = measure(args.config, overrides, sizes, warmup=args.warmup, steps=max(args.steps, 0))
    return machine.finish(found, args.out, "kernels")


def measure(
    config: str,
    overrides: Sequence[str],
    sizes: Sizes,
    *,
    warmup: int,
    steps: int,
    gemm: tuple[int, int, int] = GEMM,
) -> dict[str, Any]:
    """Everything the table shows. Raises InputError for a wrong config or data, or a config without a hash grid.

    warmup, steps: training steps before those whose kernels are timed, and those. gemm: see `machine.roofs`.
    """
    from benchmarks.kernel_cases.cases import cases, make_inputs
    from engine.build import use_threads
    from engine.experiment import read_config
    from models.encodings.hash_grid import HashGridConfig
    from utils.distributed import choose_device

    read = read_config(config, overrides)
    field: Any = read.model.foreground.field
    encoding = getattr(field, "encoding", None)
    if not isinstance(encoding, HashGridConfig):
        raise InputError(f"{config}: model.foreground.field.encoding - no hash grid - expected one, as in neus_hash")
    device = choose_device(read.device)
    use_threads(read.train.threads)
    ceiling, roofs = measure_roofs(device, 2**encoding.log2_rows, gemm)
    inputs = make_inputs(sizes, encoding, device)
    width = getattr(field, "geometry", None)
    rows = [compare(case, roofs, device) for case in cases(sizes, inputs, width.width if width else 64)]
    about = {"config": Path(config).stem, "overrides": list(overrides), "rays": sizes.rays}
    about |= {"samples": len(inputs.points), "levels": encoding.levels, "rows": inputs.levels.rows}
    slow = [name for name, row in zip(full_names(rows), rows, strict=True) if row["ratio"] < GOAL]
    step = of_step(config, overrides, warmup, steps) if steps else {}
    return {**machine.describe(device), **about, **ceiling, "below_10x": slow, "kernels": rows, **step}


def measure_roofs(device: torch.device, rows: int, gemm: tuple[int, int, int] = GEMM) -> tuple[dict[str, float], Roofs]:
    """The machine's rates, as printed and as the cases ask for them. rows: of a level of the table."""
    from benchmarks.kernel_cases.case import Roofs
    from benchmarks.micro import rates

    found = machine.roofs(device, gemm) | rates(device, rows=rows)
    roofs = Roofs(
        flop=1e9 * found["gemm_gflop_per_s"],
        copied=1e9 * found["copy_gb_per_s"],
        read=1e9 * found["read_float2_g_per_s"],
        added=1e9 * found["add_float2_g_per_s"],
    )
    return found, roofs


def compare(case: Case, roofs: Roofs, device: torch.device) -> dict[str, Any]:
    """A line of the table."""
    from benchmarks.kernel_cases.cases import largest_difference

    difference = (case.differ or largest_difference)(*(form() for form in case.forms))
    least = case.least.seconds(roofs) if case.least else None
    # In turn, so that what else the machine does falls on both.
    rounds = [[best(form, device, 1) for form in case.forms] for _ in range(ROUNDS)]
    ours, baseline = (min(times) for times in zip(*rounds, strict=True))
    return {
        "kernel": case.name,
        "items": case.items,
        "ours_us": 1e6 * ours,
        "baseline_us": 1e6 * baseline,
        "ratio": baseline / ours,
        "items_per_s": case.items / ours,
        "of_roof": least and least / ours,
        "at_roof": least and baseline / least,
        "difference": difference,
    }


def full_names(rows: list[dict[str, Any]]) -> list[str]:
    """The names of the lines; an indented one belongs to the line above that is not."""
    names: list[str] = []
    head = ""
    for row in rows:
        name = row["kernel"]
        head = head if name.startswith(" ") else name
        names.append(f"{head}:{name[1:]}" if name.startswith(" ") else name)
    return names


def of_step(config: str, overrides: Sequence[str], warmup: int, steps: int) -> dict[str, Any]:
    """What the kernels are of a training step: "step_s", on CUDA the number of kernels of anybody, and a table."""
    from benchmarks.launches import cuda_launches, shares
    from benchmarks.train_step import running, short_run

    eager = [*overrides, "train.cuda_graph=false"]  # a replay starts nothing that could be watched
    with running(short_run(config, eager, warmup + 2 * steps)) as run:
        repeated(run.step_once, warmup)
        whole, rows = shares(run.step_once, steps, run.ranks.device)
        anybody = cuda_launches(run.step_once, steps, run.ranks.device)
    return {"step_s": whole, **anybody, "step": rows}


if __name__ == "__main__":
    run_script(main)
