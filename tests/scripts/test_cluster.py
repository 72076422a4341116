"""Agents of torchrun that are signaled, killed and lost: a run ends with the numbers of one that was left alone.

`make nightly ARGS="tests/scripts/test_cluster.py -k C3"` runs one of them. Ranks that are killed, hung or have other
numbers are counted by `make restarts`.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks.cluster.hurt_run import ENVIRONMENT, finished, hash_of, torchrun, train_command
from benchmarks.cluster.restarts import KEYS, STEPS
from engine.signals import MARKER
from tests.support.sources import ROOT
from tests.support.two_ranks import free_port, rank_environments
from utils.checkpoint import load_checkpoint, newest_checkpoint
from utils.siblings import PROCESSES

pytestmark = pytest.mark.slow
SIGNALS = ("--signals-to-handle=SIGTERM,SIGINT,SIGUSR1", "--shutdown-timeout=30")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("undisturbed")
    finished([*torchrun(), *train_command(folder, *KEYS)])
    return hash_of(folder)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGUSR1"])
def test_C3_a_signal_to_the_agent(name: str, seed: int, undisturbed: str, tmp_path: Path) -> None:
    command = [*torchrun(*SIGNALS), *train_command(tmp_path, *KEYS)]
    process = subprocess.Popen(command, cwd=ROOT, env=ENVIRONMENT, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    children = wait_for_steps(tmp_path, 1 + seed % 12, process)
    process.send_signal(getattr(signal, name))
    process.wait(60)
    assert not alive(children)
    if len(list((tmp_path / "checkpoints").glob("step_*"))) and newest_step(tmp_path) != STEPS:
        assert (tmp_path / MARKER).exists() == (name != "SIGINT")
    finished([*torchrun(), *train_command(tmp_path, *KEYS)])
    assert hash_of(tmp_path) == undisturbed and not (tmp_path / MARKER).exists()


def tasks(command: list[str]) -> list[subprocess.Popen[bytes]]:
    """Two ranks as a scheduler starts them, without an agent."""
    silent: Any = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    command = [sys.executable, *command]
    return [subprocess.Popen(command, cwd=ROOT, env=environment, **silent) for environment in rank_environments()]


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGUSR1"])
def test_C3_a_signal_to_all_tasks(name: str, seed: int, undisturbed: str, tmp_path: Path) -> None:
    """As srun forwards it; within ten seconds all have left, with the documented code."""
    command = train_command(tmp_path, *KEYS)
    ranks = tasks(command)
    wait_for_steps(tmp_path, 1 + seed % 12, ranks[0])
    for process in ranks:
        process.send_signal(getattr(signal, name))
    codes = {process.wait(10) for process in ranks}
    assert codes <= {0, 130 if name == "SIGINT" else 75} and len(codes) == 1
    assert (tmp_path / MARKER).exists() == (75 in codes)
    if 0 not in codes:
        assert newest_step(tmp_path) < STEPS
        assert [process.wait(100) for process in tasks(command)] == [0, 0]
    assert hash_of(tmp_path) == undisturbed and not (tmp_path / MARKER).exists()


def test_the_end_of_an_agent_leaves_no_orphans(tmp_path: Path) -> None:
    command = [*torchrun(), *train_command(tmp_path, "train.steps=100000")]
    process = subprocess.Popen(command, cwd=ROOT, env=ENVIRONMENT, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    children = wait_for_steps(tmp_path, 5, process)
    process.kill()
    process.wait()
    deadline = time.monotonic() + 30
    while alive(children) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not alive(children) and (tmp_path / MARKER).exists()
    assert newest_checkpoint(tmp_path / "checkpoints") is not None


def test_a_machine_that_is_lost_leaves_fewer_ranks_and_the_same_rays(tmp_path: Path) -> None:
    """Two agents on the loopback; one is killed for good, with its rank."""
    folder, place = tmp_path / "run", f"--rdzv-endpoint=127.0.0.1:{free_port()}"
    options = ["--nnodes=1:2", "--nproc-per-node=1", "--rdzv-backend=c10d", place, "--rdzv-id=x", "--max-restarts=3",
               "--local-addr=127.0.0.1", "--rdzv-conf", "last_call_timeout=8,keep_alive_interval=2"]  # fmt: skip
    keys = ("train.steps=150", "train.checkpoint_every=10", "distributed.timeout=10")
    command = [sys.executable, "-m", "torch.distributed.run", *options, *train_command(folder, *keys)]
    agents = []
    for _ in range(2):
        agents.append(subprocess.Popen(command, cwd=ROOT, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True))
        time.sleep(3)
    for process in [*wait_for_steps(folder, 25, agents[1]), agents[1].pid]:
        os.kill(process, signal.SIGKILL)
    said = agents[0].communicate(timeout=250)[1]
    agents[1].communicate()
    assert agents[0].returncode == 0 and "resumed at step " in said
    newest = newest_checkpoint(folder / "checkpoints")
    assert newest is not None
    state, manifest = load_checkpoint(newest)
    assert manifest["info"] == {"world": 1}
    assert state["sampler"]["position"] == 150 * 64 * 4  # candidates per ray, of which the loss chooses


def wait_for_steps(folder: Path, steps: int, process: subprocess.Popen[str] | subprocess.Popen[bytes]) -> list[int]:
    """Return the ranks of an agent when the run has made so many steps, or has ended."""
    log = folder / "metrics.jsonl"
    while not (log.is_file() and log.read_text("utf-8").count("\n") >= steps):
        assert process.poll() in (None, 0)
        time.sleep(0.05)
    children = PROCESSES / f"{process.pid}/task/{process.pid}/children"
    return [int(text) for text in children.read_text().split()] if process.poll() is None else []


def alive(processes: list[int]) -> list[int]:
    return [process for process in processes if (PROCESSES / str(process)).exists()]


def newest_step(folder: Path) -> int:
    """The step of the newest checkpoint."""
    return int((folder / "checkpoints" / "latest").read_text("utf-8").split("_")[1])
