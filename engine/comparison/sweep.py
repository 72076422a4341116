"""A sweep: runs of one config that differ in some keys, by a grid, a list, or both."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from utils.config.loading import load_config
from utils.config.parts import StrictModel
from utils.errors import InputError
from utils.files import write_json

Scalar = str | int | float | bool | None
Value = Scalar | list[Any] | dict[str, Any]
FINISHED = "finished.json"
SIGNALED = (75, 130, 141)  # the sweep ends too
MOST_RUNS = 10_000
SHORT = 24  # characters of a value in a name
ROOT = Path(__file__).resolve().parents[2]

Command = Sequence[str]


class Further(StrictModel):
    """What is done with a run after its training: a script of ours, and its options."""

    script: Literal["evaluate.py", "extract_mesh.py", "render.py", "bake.py"]
    options: list[str] = []


class SweepConfig(StrictModel):
    """A sweep file."""

    config: str = Field(description="the config of all runs")
    output: str = Field(description="folder in which each run has its own")
    overrides: dict[str, Value] = Field({}, description="keys of all runs")
    grid: dict[str, list[Value]] = Field({}, description="keys with values, each combined with each")
    runs: list[dict[str, Value]] = Field([], description="keys of one run each; with a grid, of all of its runs each")
    then: list[Further] = Field([], description="done with each run after its training")


@dataclass(frozen=True)
class Job:
    """One run of a sweep: its name, its folder, its overrides as train.py takes them."""

    name: str
    folder: Path
    config: str
    overrides: tuple[str, ...]

    @property
    def finished(self) -> bool:
        """Whether it was done to the end, with these overrides."""
        try:
            found = json.loads((self.folder / FINISHED).read_text("utf-8"))
        except (OSError, ValueError):
            return False
        return isinstance(found, dict) and found.get("overrides") == list(self.overrides)


def read_sweep(path: Path) -> SweepConfig:
    """The sweep of a file. Raises InputError."""
    return load_config(path, [], SweepConfig)


def jobs_of(sweep: SweepConfig) -> list[Job]:
    """The runs of a sweep, always in the same order: the last key of the grid changes fastest. Raises InputError."""
    empty = [key for key, values in sweep.grid.items() if not values]
    if empty:
        raise InputError(f"grid.{empty[0]}: got no values - expected a list of them")
    count = max(len(sweep.runs), 1)
    for values in sweep.grid.values():
        count *= len(values)
    if count > MOST_RUNS:
        raise InputError(f"grid: gives {count} runs - expected at most {MOST_RUNS}")
    choices = [dict(zip(sweep.grid, values, strict=True)) for values in itertools.product(*sweep.grid.values())]
    changes = [{**one, **choice} for one in sweep.runs or [{}] for choice in choices]
    names = list(_names(changes))
    output = Path(sweep.output).expanduser()
    return [
        Job(name, output / name, sweep.config, (*_texts({**sweep.overrides, **change}), f"output={output / name}"))
        for name, change in zip(names, changes, strict=True)
    ]


def run_job(job: Job, then: Sequence[Further], run: Callable[[Command], int]) -> int:
    """Train a run, or go on with it, and do what comes then; the first exit code that is not 0, else 0.

    run: runs a command and returns its exit code. A run that was finished is left alone.
    """
    if job.finished:
        print(f"{job.name}: finished before", flush=True)
        return 0
    print(f"{job.name}: {' '.join(job.overrides)}", flush=True)
    commands = [["train.py", job.config, *job.overrides]]
    commands += [[step.script, str(job.folder), *step.options] for step in then]
    for command in commands:
        code = run(command)
        if code != 0:
            print(f"{job.name}: {command[0]} ended with code {code}", file=sys.stderr, flush=True)
            return code
    write_json(job.folder / FINISHED, {"overrides": list(job.overrides)})
    return 0


def run_jobs(jobs: Sequence[Job], then: Sequence[Further], run: Callable[[Command], int]) -> int:
    """Run one job after the other; one that fails does not keep the others. The first code that is not 0, else 0.

    A signal to one of them ends all: the same command goes on.
    """
    codes = []
    for job in jobs:
        codes.append(run_job(job, then, run))
        if codes[-1] in SIGNALED:
            break
    return next((code for code in codes if code != 0), 0)


def run_script(command: Command) -> int:
    """Run a script of ours in a process of its own, in the current folder; its exit code, as a shell has it."""
    done = subprocess.run([sys.executable, str(ROOT / command[0]), *command[1:]], check=False)
    return done.returncode if done.returncode >= 0 else 128 - done.returncode


def _texts(changes: Mapping[str, Any]) -> Iterator[str]:
    """Changes as train.py takes them; JSON is YAML."""
    return (f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in changes.items())


def _names(changes: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """A name for each run, of what it changes: `lr-0.001_opacity-laplace`. Raises InputError where two are the same."""
    keys = list(dict.fromkeys(key for change in changes for key in change))
    short = _short_keys(keys)
    seen: set[str] = set()
    for number, change in enumerate(changes):
        said = [f"{short[key]}-{_said(value)}" for key, value in change.items()]
        name = "_".join(said) or "run"
        if name in seen:
            name = f"{name}_{number}"
        if any({**other} == {**change} for other in changes[:number]):
            raise InputError(f"runs: {name} - the same keys and values twice - expected runs that differ")
        seen.add(name)
        yield name


def _short_keys(keys: Sequence[str]) -> dict[str, str]:
    """For each dotted key as many of its last words as tell it from the others; a `type` is called by what has it."""
    found = {}
    for key in keys:
        words = [word for word in key.split(".") if word != "type"] or [key]
        counts = range(1, len(words) + 1)
        endings = (".".join(words[-count:]) for count in counts)
        others = [other.removesuffix(".type") for other in keys if other != key]
        found[key] = next((end for end in endings if not any(o == end or o.endswith(f".{end}") for o in others)), key)
    return found


def _said(value: Any) -> str:
    """A value in a file's name; of a part its type."""
    if isinstance(value, dict) and isinstance(value.get("type"), str):
        value = value["type"]
    text = value if isinstance(value, str) else json.dumps(value)
    return re.sub(r"[^\w.+-]+", "-", text).strip("-")[:SHORT] or "empty"
