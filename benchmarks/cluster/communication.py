"""What ranks exchange in a training step: bytes, collectives, and the time that they take; started by torchrun."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from benchmarks.machine import count, parser_of
from benchmarks.train_step import overrides_of, running, short_run
from utils.errors import run_script

if TYPE_CHECKING:
    from engine.trainer import Trainer

EXAMPLE = """examples:
  python -m torch.distributed.run --standalone --nproc-per-node=2 -m benchmarks.cluster.communication
  python -m benchmarks.cluster.communication --config configs/nerf_hash.yaml train.rays=512

Steps of the first rank: as trained, and without the exchange of gradients. train.rays are those of all ranks."""
# Bytes per second and seconds per message between GPUs, for the model: rates that all-reduce is known to reach.
LINKS = {"NVLink": (200e9, 10e-6), "PCIe 4": (20e9, 15e-6), "100 Gb/s network": (10e9, 30e-6)}


LENGTH = 1_000_000  # steps of the run whose first ones are measured


@dataclass
class Exchange:
    """What was handed to collectives: their number and bytes."""

    calls: int = 0
    size: int = 0


def main() -> int:
    parser = parser_of(__doc__, EXAMPLE)
    parser.add_argument("--config", default="configs/neus_hash.yaml", metavar="FILE")
    parser.add_argument("--steps", type=count, default=20, metavar="N", help="steps that are timed; default: 20")
    args = parser.parse_intermixed_args()

    from utils import distributed

    try:
        found = measure(args.config, overrides_of(None, args.device, args.overrides), args.steps)
        for line in lines(found) if found["is_main"] else ():
            print(line)
    finally:
        distributed.cleanup()
    return 0


def measure(config: str, overrides: list[str], steps: int) -> dict[str, Any]:
    """Times in seconds, sizes in bytes; of this rank."""
    with running(short_run(config, overrides, LENGTH)) as run:
        who = {"config": Path(config).stem, "rays": run.ray_count.share.own}
        who |= {"world": run.ranks.world, "is_main": run.ranks.is_main}
        return {**who, **_measure(run, steps)}


def _measure(run: Trainer, steps: int) -> dict[str, Any]:
    _timed(run, 4)
    with counted() as exchange:
        run.step_once()
    gradients = sum(p.numel() * p.element_size() for p in run.objective.parameters() if p.requires_grad)
    slopes = [p.grad for p in run.objective.parameters() if p.grad is not None]
    rows = [float(slope.ne(0).any(1).float().mean()) for slope in slopes if slope.dim() == 2 and len(slope) > 10_000]
    found = {"gradients": gradients, "rows": max(rows, default=1.0), "exchange": exchange, "step": _timed(run, steps)}
    if run.ranks.world > 1:
        with _without_exchange(run):
            found["alone"] = _timed(run, steps)
    return found


@contextmanager
def _without_exchange(run: Trainer) -> Iterator[None]:
    """Each rank keeps its own gradients, as no run should; what ranks agree upon otherwise stays."""
    usual, exchange, run.gradients.exchange = run.config, run.gradients.exchange, None
    run.config = usual.model_copy(update={"distributed": usual.distributed.model_copy(update={"check_every": 0})})
    try:
        yield
    finally:
        run.gradients.exchange, run.config = exchange, usual


@contextmanager
def counted() -> Iterator[Exchange]:
    """Within, all-reduces are counted."""
    import torch.distributed as dist

    exchange, usual = Exchange(), dist.all_reduce

    def all_reduce(tensor: Any, *arguments: Any, **options: Any) -> Any:
        exchange.calls += 1
        exchange.size += tensor.numel() * tensor.element_size()
        return usual(tensor, *arguments, **options)

    dist.all_reduce = all_reduce
    try:
        yield exchange
    finally:
        dist.all_reduce = usual


def _timed(run: Trainer, steps: int) -> tuple[float, float]:
    """Median wall and CPU seconds of a step."""
    walls, cpus = [], []
    for _ in range(steps):
        wall, cpu = time.perf_counter(), time.process_time()
        run.step_once()
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    return median(walls), median(cpus)


def lines(found: dict[str, Any]) -> Iterator[str]:
    """What was measured, and the model of more ranks."""
    exchange, megabytes = found["exchange"], found["gradients"] / 1e6
    yield f"{found['config']}: {found['world']} ranks, {found['rays']} rays on the first"
    yield f"  gradients {megabytes:.2f} MB per step, rows of tables that are not zero {found['rows']:.0%}"
    yield f"  {exchange.calls} all-reduces of {exchange.size} bytes in all"
    for name in ("step", "alone"):
        if name in found:
            wall, cpu = found[name]
            yield f"  {name:6s} {1000 * wall:7.1f} ms wall {1000 * cpu:7.1f} ms CPU"
    for link, (rate, latency) in LINKS.items():
        for ranks in (8, 64):
            seconds = seconds_of_exchange(
                max(exchange.size, found["gradients"]), max(exchange.calls, 1), ranks, rate, latency
            )
            least = 9000 * seconds  # ms, of which the exchange is then a tenth of the whole
            yield f"  model: {ranks:2d} GPUs, {link}: {1000 * seconds:.2f} ms; 0.9 from {least:.1f} ms per step on"


def seconds_of_exchange(size: int, calls: int, ranks: int, rate: float, latency: float) -> float:
    """Seconds that a step waits for `calls` all-reduces of `size` bytes in all, none of it overlapped.

    rate: bytes per second of a link; latency: seconds per message. Bytes go around a ring, messages up and down a tree.
    """
    messages = 2 * max((ranks - 1).bit_length(), 1) * calls
    return 2 * (ranks - 1) / ranks * size / rate + messages * latency


if __name__ == "__main__":
    run_script(main)
