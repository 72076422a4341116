"""Train the runs of a sweep file, one after the other, or one of a job array; the same again goes on."""

from __future__ import annotations

import os

from engine import early
from utils.command_line import Parser, input_file, number
from utils.errors import InputError, run_script

EXAMPLE = """examples:
  python sweep.py sweep.yaml
  python sweep.py sweep.yaml --list
  sbatch --array=0-5 --wrap "python sweep.py sweep.yaml"      each takes SLURM_ARRAY_TASK_ID

a sweep file:
  config: configs/neus_hash.yaml
  output: runs/rates                      each run has a folder in it
  overrides: {data.path: data/figure, train.minutes: 5}
  grid:                                   each value with each
    optimizer.lr: [1e-3, 2e-3, 4e-3]
    seed: [0, 1]
  runs: [{train.rays: 2048}]              the grid once for each of these
  then: [{script: extract_mesh.py}, {script: evaluate.py, options: [--keep-renderings]}]

Runs that are finished are skipped, broken ones resumed. Then: python compare.py runs/rates/*"""
ARRAY = "SLURM_ARRAY_TASK_ID"


def main() -> int:
    parser = Parser(__doc__, EXAMPLE)
    add = parser.add_argument
    add("sweep", type=input_file("a sweep file", ".yaml", ".yml"), help="a YAML file, see below")
    add("--job", type=number(int, 0, 1_000_000), metavar="I", help=f"that run alone, from 0; default: ${ARRAY}")
    add("--list", action="store_true", help="print the runs, and which are finished, then stop")
    args = parser.parse()

    from engine.comparison.sweep import jobs_of, read_sweep, run_jobs, run_script

    sweep = read_sweep(args.sweep)
    jobs = jobs_of(sweep)
    for job in jobs:  # all mistakes before any work
        tree = early.check_config(job.config, job.overrides)
        early.check_places(tree, job.folder)
    if args.list:
        for index, job in enumerate(jobs):
            print(f"{index:3d} {'finished' if job.finished else '-':8s} {job.name}")
        return 0
    chosen = number_of_job(args.job)
    if chosen is None:
        return run_jobs(jobs, sweep.then, run_script)
    if chosen >= len(jobs):
        raise InputError(f"--job: got {chosen} - expected one of the {len(jobs)} runs, from 0 to {len(jobs) - 1}")
    return run_jobs([jobs[chosen]], sweep.then, run_script)


def number_of_job(said: int | None) -> int | None:
    """The run that the command line or a job array asks for; None: all. Raises InputError."""
    task = os.environ.get(ARRAY)
    if said is not None or not task:
        return said
    if not task.isdecimal():
        raise InputError(f"{ARRAY}: got {task[:20]!r} - expected a whole number")
    return int(task)


if __name__ == "__main__":
    run_script(main)
