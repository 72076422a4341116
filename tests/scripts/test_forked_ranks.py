"""Two ranks as forks of one process that has imported everything: faults without the time of torchrun and imports.

What is left out are agents and rendezvous, which benchmarks/cluster/restarts has: here both ranks are started again
when both have ended.
"""

import os
import random
import sys
import traceback
import warnings
from pathlib import Path
from typing import NoReturn

import pytest

import train
from benchmarks.cluster import hurt_run
from benchmarks.cluster.restarts import KEYS, STEPS
from engine.experiment import read_config
from tests.support.sources import ROOT
from tests.support.two_ranks import free_port
from utils.errors import run_script

pytestmark = pytest.mark.slow
MOST_STARTS = 4


def be_rank(rank: int, port: int, folder: Path, faults: str) -> NoReturn:
    """Train as one of two ranks, in a process that was forked for it, as `train.py` under torchrun does."""
    names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in names.items()} | {"MASTER_ADDR": "127.0.0.1"}
    log = os.open(folder.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(log, stream)
    sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
    warnings.simplefilter("ignore")  # which the test run makes errors of
    keys = [hurt_run.DATA, *hurt_run.KEYS, *KEYS, f"output={folder}", *([f"debug.faults={faults}"] if faults else [])]
    try:
        config = read_config(ROOT / "configs/neus_hash.yaml", keys)
        run_script(lambda: train.train(config, folder, False))
    except SystemExit as end:
        os._exit(int(end.code or 0))
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    os._exit(99)


def codes_of_two(folder: Path, faults: str) -> list[int]:
    """What both ranks end with; a signal's number is negative."""
    port, processes = free_port(), []
    for rank in range(2):
        with warnings.catch_warnings(action="ignore"):  # newer Pythons warn of forks beside threads
            processes.append(os.fork())
        if not processes[-1]:
            be_rank(rank, port, folder, faults)
    return [os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in processes]


def hurt(folder: Path, faults: str = "") -> tuple[str, list[list[int]], str]:
    """The digest of a run that is started until it is through, what its ranks ended with each time, and its words."""
    codes = [codes_of_two(folder, faults)]
    while codes[-1] != [0, 0] and len(codes) < MOST_STARTS:
        codes.append(codes_of_two(folder, faults))
    said = folder.with_suffix(".log").read_text("utf-8")
    assert codes[-1] == [0, 0], said[-3000:]
    return hurt_run.hash_of(folder), codes, said


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> str:
    found, codes, _ = hurt(tmp_path_factory.mktemp("undisturbed") / "run")
    assert len(codes) == 1
    return found


@pytest.mark.parametrize("seed", range(50))
def test_C1_a_rank_that_is_killed(seed: int, undisturbed: str, tmp_path: Path) -> None:
    draw = random.Random(seed)
    step, rank = draw.randrange(1, STEPS), draw.randrange(2)
    found, codes, _ = hurt(tmp_path / "run", f"kill@{step}:rank={rank}")
    assert found == undisturbed and codes[0][rank] == -9 and codes[0][1 - rank] == 6


@pytest.mark.parametrize("seed", range(20))
def test_C5_a_bit_that_flips_on_one_rank(seed: int, undisturbed: str, tmp_path: Path) -> None:
    found, codes, said = hurt(tmp_path / "run", f"flip@{1 + seed % (STEPS - 1)}:rank={seed % 2}")
    assert found == undisturbed and codes[0] == [6, 6] and "the ranks' parameters differ at step " in said
