"""Counts restarts under torchrun: ranks are hurt on purpose, and the run must end as one that was left alone."""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.cluster.hurt_run import DATA, Outcome, Recovery, hurt, train_command
from benchmarks.machine import count, parser_of
from utils.errors import run_script

EXAMPLE = """examples:
  python -m benchmarks.cluster.restarts
  python -m benchmarks.cluster.restarts --fault kill --runs 5 --faults 3 --seed 10
  python -m benchmarks.cluster.restarts --fault mixed --runs 1 --data data.path=DATA

Two ranks on the CPU, 24 steps of neus_hash. Each fault gets a line: seconds until ranks were started
again, seconds until their first step. Ends with 1 where a run does not end, or ends otherwise than the
undisturbed one."""
STEPS, EVERY = 24, 4
KEYS = (f"train.steps={STEPS}", f"train.checkpoint_every={EVERY}", "distributed.check_every=1")
RESTARTS = 3
NOT_FINITE_AT = 2 * EVERY
NOT_FINITE = f"nan_gradient@{NOT_FINITE_AT}"  # it costs a step: the undisturbed run has it too
TIMEOUT = 8  # seconds until a rank that does not answer is taken for lost


@dataclass(frozen=True)
class Kind:
    """A count. draw: the faults of a run from its seed and their number; said: what the run must say.

    keys: of the hurt run alone. steady: faults that the run it is compared with suffers too.
    """

    runs: int
    draw: Callable[[int, int], str]
    keys: tuple[str, ...] = ()
    said: str = ""
    steady: str = ""
    restarts: int = RESTARTS


def spread(kind: str) -> Callable[[int, int], str]:
    """So many faults of a kind, at different steps, each on one of two ranks."""

    def draw(seed: int, faults: int) -> str:
        drawn = random.Random(seed)
        return ", ".join(
            f"{kind}@{step}:rank={drawn.randrange(2)}" for step in sorted(drawn.sample(range(1, STEPS), faults))
        )

    return draw


def mixed(seed: int, faults: int) -> str:
    """Twice as many kills, as many signals to single ranks, a hang, a full disk, and a gradient that is not finite.

    Nothing ends the ranks until a checkpoint holds the step of that gradient: taken again, it would be sound.
    """
    drawn = random.Random(seed)
    kinds = ["kill"] * (2 * faults) + ["term"] * faults + ["hang"]
    held = NOT_FINITE_AT + EVERY  # the next checkpoint waits until that of the step is written
    steps = drawn.sample([*range(1, NOT_FINITE_AT), *range(held + 1, STEPS)], len(kinds))
    several = [f"{kind}@{step}:rank={drawn.randrange(2)}" for kind, step in zip(kinds, steps, strict=True)]
    return ", ".join([*several, f"disk_full@{drawn.randrange(held + 1, STEPS - EVERY)}", NOT_FINITE])


HANGS = (f"distributed.timeout={TIMEOUT}",)
KINDS = {
    "kill": Kind(50, spread("kill"), said="another rank was lost or does not answer"),
    "hang": Kind(10, spread("hang"), HANGS, "another rank was lost or does not answer"),
    "flip": Kind(20, spread("flip"), said="the ranks' parameters differ at step "),
    "mixed": Kind(3, mixed, HANGS, steady=NOT_FINITE, restarts=30),
}


def main() -> int:
    parser = parser_of(__doc__, EXAMPLE)
    add = parser.add_argument
    add("--fault", action="append", choices=KINDS, help="may be repeated; default: all of them")
    add("--runs", type=count, metavar="N", help="of each kind; default: 50 kill, 10 hang, 20 flip, 3 mixed")
    add("--faults", type=count, default=1, metavar="N", help=f"in a run, at most {RESTARTS}, mixed 5; default: 1")
    add("--seed", type=int, default=0, metavar="N", help="of the first run; default: 0")
    add("--seconds", type=count, metavar="N", help="after so many no further run is begun")
    add("--config", default="neus_hash", metavar="NAME", help="in configs/; default: neus_hash")
    add("--data", default=DATA, metavar="KEYS", help="a key of the data; default: a procedural scene")
    args = parser.parse_intermixed_args()
    deadline = time.monotonic() + (args.seconds or float("inf"))
    failures = 0
    for name in args.fault or KINDS:
        runs = range(args.seed, args.seed + (args.runs or KINDS[name].runs))
        words = Words(args.config, args.data, tuple(args.overrides))
        failures += count_of(name, runs, words, faults=args.faults, deadline=deadline)
    return int(failures > 0)


@dataclass(frozen=True)
class Words:
    """What is trained."""

    config: str
    data: str
    overrides: tuple[str, ...]

    def of(self, folder: Path, *keys: str) -> list[str]:
        """The words that train it into a folder."""
        return train_command(folder, *KEYS, *keys, *self.overrides, config=self.config, data=self.data)


def count_of(name: str, seeds: range, words: Words, *, faults: int, deadline: float) -> int:
    """Hurt runs by faults of a kind, and print what came of them; returns the number of runs that failed."""
    kind, outcomes, failed = KINDS[name], [], 0
    with tempfile.TemporaryDirectory() as place:
        expected = hurt(Path(place) / "run", words.of(Path(place) / "run"), faults=kind.steady)
    print(f"{name}: undisturbed {expected.digest[:16]}, {expected.cpu_seconds:.1f} CPU-s", flush=True)
    for seed in seeds:
        if time.monotonic() > deadline:
            break
        with tempfile.TemporaryDirectory() as place:
            folder, drawn = Path(place) / "run", kind.draw(seed, faults)
            outcomes.append(hurt(folder, words.of(folder, *kind.keys), faults=drawn, restarts=kind.restarts))
        fault = failure(outcomes[-1], expected.digest, kind.said)
        failed += bool(fault)
        print("\n".join(lines_of(seed, drawn, outcomes[-1], fault)), flush=True)
    print("\n".join(summary(name, outcomes, failed)), flush=True)
    return failed


def failure(outcome: Outcome, expected: str, said: str) -> str:
    """In words, what is not as it has to be; empty where all is."""
    if outcome.code != 0:
        ended = "did not end" if outcome.code is None else f"ended with {outcome.code}"
        return f"{ended}: ... {outcome.said[-2000:]}"
    if outcome.digest != expected or not expected:
        return f"other numbers than the undisturbed run: {outcome.digest[:16]}"
    if outcome.missing:
        return f"no step was seen after {', '.join(outcome.missing)}"
    return "" if said in outcome.said else f"did not say {said!r}"


def lines_of(seed: int, faults: str, outcome: Outcome, fault: str) -> list[str]:
    """A line of the run, and one of each fault."""
    first = f"seed {seed}: {fault or 'equal'} ({faults}; {outcome.seconds:.1f} s, {outcome.cpu_seconds:.1f} CPU-s)"
    rows = (f"  {one.fault:18s} ranks {one.started:5.1f} s  step {one.stepped:5.1f} s" for one in outcome.recoveries)
    return [first, *rows]


def summary(name: str, outcomes: list[Outcome], failed: int) -> list[str]:
    """Numbers of all runs of a kind."""
    found, good = _all(outcomes), len(outcomes) - failed
    lines = [f"{name}: {good} of {len(outcomes)} runs equal to the undisturbed one, {len(found)} restarts"]
    if found:
        started, stepped = [one.started for one in found], [one.stepped for one in found]
        lines.append(f"  ranks were started again after {_spread(started)}")
        lines.append(f"  the first new step came after   {_spread(stepped)}")
    return lines


def _all(outcomes: list[Outcome]) -> list[Recovery]:
    return [one for outcome in outcomes for one in outcome.recoveries]


def _spread(seconds: list[float]) -> str:
    """Median, 95th percentile (the value that so many do not exceed) and largest."""
    ordered = sorted(seconds)
    high = ordered[-(-95 * len(ordered) // 100) - 1]
    return f"{median(ordered):.1f} s in the median, p95 {high:.1f} s, at most {ordered[-1]:.1f} s"


if __name__ == "__main__":
    run_script(main)
