"""The way of a training ray: which files it passes, from the objective to its losses, in the order of first entry."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from benchmarks import machine
from benchmarks.machine import ROOT
from benchmarks.train_step import PROCEDURAL, running, short_run
from utils.errors import run_script

EXAMPLE = """examples:
  python -m benchmarks.ray_path
  python -m benchmarks.ray_path configs/volsdf.yaml model.poses.type=so3xr3

Every call of a function of the project is seen while one batch is rendered and its losses are computed,
on one thread of a CPU; the choice of pixels before it and the step of the optimizer behind it are not.
entries: how often a file is entered from another one."""


def main() -> int:
    parser = machine.parser_of(__doc__, EXAMPLE)
    parser.add_argument("config", nargs="?", default="configs/neus_hash.yaml", help="default: configs/neus_hash.yaml")
    args = parser.parse_intermixed_args()
    passed = files_passed(args.config, args.overrides)
    for number, (name, entries) in enumerate(passed.items(), start=1):
        print(f"{number:3d}  {name:48s} {entries:4d} entries")
    kernels = sum(name.startswith("models/kernels/") for name in passed)
    print(f"{len(passed)} files, {kernels} of them kernels")
    return 0


def files_passed(config: str, overrides: list[str]) -> dict[str, int]:
    """Files of the project in the order in which a batch first enters them, and how often from another one.

    Raises InputError for a config that cannot be used.
    """
    read = short_run(config, [PROCEDURAL, "device=cpu", "train.threads=1", "train.rays=256", *overrides], 8)
    with running(read) as run:
        for _ in range(4):  # so that the samplers have found the object
            run.step_once()
        batch = next(run.sampler)
        run.sampler.close()
        run.objective.update(run.progress, run.step)
        passed: dict[str, int] = {}
        with watched(passed):
            run.objective(batch)
    return passed


@contextmanager
def watched(passed: dict[str, int]) -> Iterator[None]:
    """Within, calls of functions of the project are counted by file, where they come from another file."""

    def called(frame: FrameType, event: str, argument: Any) -> None:
        if event == "call" and (name := ours(frame)):
            caller = ours(frame.f_back) if frame.f_back else ""
            passed[name] = passed.get(name, 0) + int(caller != name)

    before: Callable[..., Any] | None = sys.getprofile()
    sys.setprofile(called)
    try:
        yield
    finally:
        sys.setprofile(before)


def ours(frame: FrameType) -> str:
    """The file of a frame within the project; empty for any other's, and for this one."""
    name = frame.f_code.co_filename
    inside = name.startswith(f"{ROOT}/") and "site-packages" not in name and name != __file__
    return name.removeprefix(f"{ROOT}/") if inside else ""


if __name__ == "__main__":
    run_script(main)
