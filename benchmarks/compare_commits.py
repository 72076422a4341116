"""Two commits beside each other: the seeded losses of every config, and rays per CPU-second by turns in one run."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.machine import ROOT, count
from utils.errors import InputError, run_script

SMALL = ("data={type: procedural, size: 48, views: 12}", "train.minutes=null", "train.rays=64", "train.log_every=1",
         "train.validations=0", "train.threads=1", "device=cpu")  # fmt: skip
SPEED = ("configs/neus_hash.yaml", "configs/nerf_hash.yaml", "configs/neus.yaml train.rays=256")
EXAMPLE = """examples:
  python -m benchmarks.compare_commits HEAD~3
  python -m benchmarks.compare_commits HEAD~3 --speed --turns 8
  python -m benchmarks.compare_commits v1 "--speed=configs/neus.yaml train.rays=256"

The other commit is checked out beside this working tree, and both run with this Python. Losses are
compared to the last digit. exit code: 1 where they differ"""
# What a process of each commit does: a run in progress, of which it takes as many steps as it reads.
WORKER = """
import json, sys
import torch
torch.set_num_threads(1)
from benchmarks.machine import timed, repeated
from benchmarks.train_step import PROCEDURAL, running, short_run
config, *overrides = sys.argv[1:]
read = short_run(config, [PROCEDURAL, "device=cpu", "train.threads=1", *overrides], 1_000_000)
with running(read) as run:
    for line in sys.stdin:
        wall, cpu = timed(lambda: repeated(run.step_once, int(line)), run.ranks.device)
        print(json.dumps({"rays_per_cpu_s": int(line) * read.train.rays / cpu}), file=sys.stderr, flush=True)
"""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("commit", help="the other commit, or the folder of another checkout")
    parser.add_argument("--steps", type=count, default=12, metavar="N", help="of each config; default: 12")
    parser.add_argument("--speed", nargs="?", const="", metavar="CONFIG", help="compare the speed instead")
    parser.add_argument("--turns", type=count, default=6, metavar="N", help="of each commit; default: 6")
    parser.add_argument("--debug", action="store_true", help="show tracebacks of user errors")
    args = parser.parse_args()
    with checked_out(args.commit) as other:
        if args.speed is None:
            return compare_losses(other, args.steps)
        for line in (args.speed,) if args.speed else SPEED:
            compare_speed(other, line.split(), args.turns)
    return 0


@contextmanager
def checked_out(commit: str) -> Iterator[Path]:
    """The folder of a commit's files, gone afterwards; a folder is taken as it is."""
    if (Path(commit) / "train.py").is_file():
        yield Path(commit).resolve()
        return
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "commit"
        added = _git("worktree", "add", "--detach", str(tree), commit)
        if added.returncode:
            raise InputError(f"{commit}: no commit - {added.stderr.strip().splitlines()[-1]}")
        try:
            yield tree
        finally:
            _git("worktree", "remove", "--force", str(tree))


def _git(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True)


def compare_losses(other: Path, steps: int) -> int:
    """Print one line per config; returns 1 where a loss of this tree is not that of the other."""
    worst = 0
    for config in sorted((ROOT / "configs").rglob("*.yaml")):
        name = str(config.relative_to(ROOT))
        if config.parent.name == "data" or not (other / name).is_file():
            continue
        before, now = (losses(tree, name, steps) for tree in (other, ROOT))
        same = before == now and len(now) == steps
        print(f"{name:44s} {'same' if same else 'DIFFERENT'}  last loss {now[-1]['train/loss']!r}", flush=True)
        worst = max(worst, int(not same))
    return worst


def losses(tree: Path, config: str, steps: int) -> list[dict[str, float]]:
    """What a run of a tree logs at each step of its loss and its terms."""
    with tempfile.TemporaryDirectory() as folder:
        overrides = [*SMALL, f"train.steps={steps}", f"output={folder}"]
        done = subprocess.run(
            [sys.executable, "train.py", config, *overrides], cwd=tree, capture_output=True, text=True
        )
        if done.returncode:
            raise InputError(f"{tree}: {config}: {done.stderr.strip().splitlines()[-1]}")
        rows = map(json.loads, (Path(folder) / "metrics.jsonl").read_text("utf-8").splitlines())
        return [{key: value for key, value in row.items() if key.startswith("train/")} for row in rows]


def compare_speed(other: Path, words: Sequence[str], turns: int) -> None:
    """Print rays per CPU-second of both trees, which take turns, on one thread; the first turn does not count."""
    steps = 1 if any(word.startswith("train.rays=") for word in words) else 40  # of a published network one
    with ExitStack() as stack:
        workers = [stack.enter_context(working(tree, words)) for tree in (other, ROOT)]
        pairs = [[rate(worker, steps) for worker in workers] for _ in range(turns + 1)][1:]
    before, now = (median(column) for column in zip(*pairs, strict=True))
    ratio = median(new / old for old, new in pairs)
    print(f"{' '.join(words):70s} {before:9.0f} -> {now:9.0f} rays per CPU-second, ratio {ratio:.3f}", flush=True)


@contextmanager
def working(tree: Path, words: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    """A process of a tree that waits for a number of steps to take."""
    command = [sys.executable, "-c", WORKER, *words]
    pipe: Any = subprocess.PIPE
    worker = subprocess.Popen(command, cwd=tree, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
    try:
        yield worker
    finally:
        worker.kill()
        worker.wait()


def rate(worker: subprocess.Popen[str], steps: int) -> float:
    """Rays per CPU-second of the next steps. Raises InputError where the process has ended."""
    assert worker.stdin is not None and worker.stderr is not None
    worker.stdin.write(f"{steps}\n")
    worker.stdin.flush()
    said = []
    for line in worker.stderr:
        if line.startswith('{"rays_per_cpu_s"'):
            return float(json.loads(line)["rays_per_cpu_s"])
        said.append(line.strip())
    raise InputError(f"a run ended: {said[-1] if said else 'without a word'}")


if __name__ == "__main__":
    run_script(main)
