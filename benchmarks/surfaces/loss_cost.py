"""What a loss costs: training steps with it and without it, by turns in one process."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, Any

from benchmarks import machine
from benchmarks.machine import count, repeated, timed
from benchmarks.train_step import overrides_of, running, short_run
from utils.errors import InputError, run_script

if TYPE_CHECKING:
    from engine.trainer import Trainer

TURN = 10  # steps with it, as many without
EXAMPLE = """examples:
  python -m benchmarks.surfaces.loss_cost --loss views --threads 1 'losses={views: {type: patch_ncc, weight: 0.3}}'
  python -m benchmarks.surfaces.loss_cost --loss eikonal --config configs/neus.yaml --warmup 2 --turns 2

The warm-up is without the loss, so that the surface is there. Each number is the median of the turns."""


def main() -> int:
    parser = machine.parser_of(__doc__, EXAMPLE)
    add = parser.add_argument
    add("--loss", required=True, metavar="NAME", help="of the config's losses")
    add("--config", default="configs/neus_hash.yaml", metavar="FILE", help="default: configs/neus_hash.yaml")
    add("--data", metavar="PATH", help="default: the procedural scene, 200 x 200")
    add("--warmup", type=count, default=300, metavar="N", help="steps before them; default: 300")
    add("--turns", type=count, default=6, metavar="N", help=f"of {TURN} steps with and {TURN} without; default: 6")
    add("--threads", type=count, metavar="N", help="of torch and the kernels; default: as torch finds")
    args = parser.parse_intermixed_args()

    import torch

    if args.threads:
        torch.set_num_threads(args.threads)
    config = short_run(
        args.config, overrides_of(args.data, args.device, args.overrides), args.warmup + 2 * TURN * args.turns
    )
    if args.loss not in config.losses:
        raise InputError(f"--loss {args.loss} - expected one of the config's: {', '.join(config.losses)}")
    with running(config) as run:
        found = by_turns(run, args.loss, warmup=args.warmup, turns=args.turns)
    about = {"config": args.config, "overrides": args.overrides, "loss": args.loss, "warmup": args.warmup}
    return machine.finish({**machine.describe(run.ranks.device), **about, **found}, args.out, f"loss-{args.loss}")


def by_turns(run: Trainer, name: str, *, warmup: int, turns: int) -> dict[str, Any]:
    """Medians of the CPU seconds (on CUDA seconds) of a step with and without a loss, and the share that it adds."""
    every = run.objective.losses
    others = {key: loss for key, loss in every.items() if key != name}
    run.objective.losses = others
    repeated(run.step_once, warmup)
    seconds: dict[bool, list[float]] = {True: [], False: []}
    for turn in range(2 * turns):
        on = turn % 2 == 0
        run.objective.losses = every if on else others
        wall, cpu = timed(lambda: repeated(run.step_once, TURN), run.ranks.device)
        seconds[on].append((wall if run.ranks.device.type == "cuda" else cpu) / TURN)
    with_it, without = median(seconds[True]), median(seconds[False])
    return {"s_with": with_it, "s_without": without, "s_of_loss": with_it - without, "share": with_it / without - 1}


if __name__ == "__main__":
    run_script(main)
