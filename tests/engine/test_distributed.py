"""Ranks: what the environment says, which device is chosen, and that two of them agree."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.support.sources import ROOT
from tests.support.two_ranks import free_port, said_by_two_ranks
from utils.distributed import any_rank, barrier, broadcast_from_main, choose_device, cleanup, mean_across_ranks, setup
from utils.errors import InputError

TWO_RANKS = """
import json, sys, torch
from utils import distributed
ranks = distributed.setup("cpu")
value = torch.tensor([1.0, 10.0], requires_grad=True) * (ranks.rank + 1)
mean = distributed.mean_across_ranks(value)
said = {
    "rank": ranks.rank, "world": ranks.world, "main": ranks.is_main, "mean": mean.tolist(),
    "detached": not mean.requires_grad, "untouched": value.tolist(),
    "one": distributed.any_rank(ranks.rank == 1), "none": distributed.any_rank(False),
    "text": distributed.broadcast_from_main(f"from {ranks.rank}"),
}
distributed.barrier()
distributed.cleanup()
print(json.dumps(said))
"""


def test_two_ranks_agree() -> None:
    for rank, said in enumerate(said_by_two_ranks(TWO_RANKS)):
        assert said == {
            "rank": rank, "world": 2, "main": rank == 0, "mean": [1.5, 15.0], "detached": True,
            "untouched": [rank + 1.0, 10.0 * (rank + 1)], "one": True, "none": False, "text": "from 0",
        }  # fmt: skip


def test_a_single_process_needs_no_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    ranks = setup("cpu")
    assert (ranks.rank, ranks.world, ranks.local_rank, ranks.is_main) == (0, 1, 0, True)
    assert ranks.device == torch.device("cpu")
    value = torch.ones(2, requires_grad=True)
    assert torch.equal(mean_across_ranks(value), value) and not mean_across_ranks(value).requires_grad
    assert any_rank(True) and not any_rank(False)
    assert broadcast_from_main(Path("x")) == Path("x")
    barrier()
    cleanup()


@pytest.mark.parametrize(
    ("environment", "what"),
    [
        ({"RANK": "0"}, "WORLD_SIZE=, LOCAL_RANK= - expected whole numbers"),
        ({"RANK": "x", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}, "RANK=x - expected whole numbers, as torchrun sets them"),
        ({"RANK": "2", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}, "RANK=2 - expected less than WORLD_SIZE=2"),
    ],
)
def test_a_wrong_environment_is_named(
    environment: dict[str, str], what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, text in environment.items():
        monkeypatch.setenv(name, text)
    with pytest.raises(InputError, match=what):
        setup("cpu")


RESTARTED = """
import os, signal, sys, torch
from utils import distributed
from utils.errors import run_script
def main():
    ranks, attempt = distributed.setup("cpu", timeout=3), os.environ["TORCHELASTIC_RESTART_COUNT"]
    if ranks.rank == 1 and attempt != "2":
        os.kill(os.getpid(), signal.SIGKILL if attempt == "0" else signal.SIGSTOP)
    try:
        distributed.sum_across_ranks(torch.ones(1))
    except RuntimeError as error:
        assert distributed.rank_is_gone(error)
        print(ranks.loss_line(error), flush=True)
        distributed.abandon()
        return 6
    print(f"met in attempt {attempt}", flush=True)
    distributed.cleanup()
run_script(main)
"""


def test_ranks_that_torchrun_starts_anew_meet_after_a_kill_and_a_hang(tmp_path: Path) -> None:
    """Without the dead ones' addresses, and without half a minute for the one that does not end."""
    script = tmp_path / "script.py"
    script.write_text(f"import sys\nsys.path.insert(0, {str(ROOT)!r})\n{RESTARTED}", "utf-8")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--max-restarts=2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*launch, script], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("met in attempt 2") == 2
    lost = "rank 0 of 2: another rank was lost or does not answer: "
    assert done.stdout.count(lost) == 2


@pytest.mark.parametrize("name", ["tpu", "cuda:", "cuda:x", "cuda:-1", "cuda:" + "9" * 400, "cpu:0", "", "\x1b[31m"])
def test_a_device_that_is_none_is_one_short_line(name: str) -> None:
    with pytest.raises(InputError, match=r"^device: got '[^\x1b]{0,60}' - expected one like auto, cpu, cuda, cuda:1$"):
        choose_device(name)
    assert choose_device("cpu").type == "cpu"


@pytest.mark.parametrize("device", ["cpux", "meta", "", "cuda:99"])
def test_a_wrong_device_is_named(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(InputError, match="^device: "):
        setup(device)


def test_ranks_that_do_not_meet_are_told_where(monkeypatch: pytest.MonkeyPatch) -> None:
    port = str(free_port())
    names = {
        "RANK": "1",
        "WORLD_SIZE": "2",
        "LOCAL_RANK": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
    }
    for name, text in names.items():
        monkeypatch.setenv(name, text)
    with pytest.raises(InputError, match=f"rank 1 of 2 .torchrun. could not join .* 127.0.0.1:{port}: nothing to be"):
        setup("cpu", meet_within=1)
