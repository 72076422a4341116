"""The time that ranks spend on one another, against made-up clocks; what a GPU says of itself."""

import builtins
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from engine.cluster import performance
from engine.cluster.performance import COMMUNICATION, SCALING, Communication, gpu_load, words
from tests.engine.test_training import SPHERE, log_of, trained
from utils import distributed

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


def test_the_share_is_that_of_the_clocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """40 steps of 10 ms: gradients take 2 ms of each, other collectives 1 ms: 30 %."""
    now, waited = [100.0], [7.0]
    monkeypatch.setattr(performance.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(distributed, "seconds_in_collectives", lambda: waited[0])
    exchange: Any = SimpleNamespace(seconds=lambda: 2e-3)
    communication = Communication(exchange)
    assert communication.read() == {}
    for _ in range(2):  # the second time from where the first ended
        for _ in range(40):
            communication.after_step()
            now[0], waited[0] = now[0] + 0.01, waited[0] + 0.001
        found = communication.read()
        assert found == {COMMUNICATION: pytest.approx(0.3), SCALING: pytest.approx(0.7)}
    assert words(found) == ["communication 30%, scaling at most 70%"]


def test_collectives_of_one_process_take_no_time() -> None:
    before = distributed.seconds_in_collectives()
    assert distributed.any_rank(True) and distributed.broadcast_from_main(3) == 3
    assert distributed.seconds_in_collectives() - before < 1e-3


@pytest.mark.parametrize("tells", [True, False, None])
def test_a_gpu_says_what_it_can(tells: bool | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one that is not there: with nvidia-ml-py, with one that refuses, without it."""

    def utilization(device: torch.device) -> int:
        if not tells:
            raise RuntimeError("the driver does not tell")
        return 87

    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 3 * 2**30)
    monkeypatch.setattr(torch.cuda, "utilization", utilization)
    monkeypatch.setattr(performance, "find_spec", lambda name: None if tells is None else object())
    monkeypatch.setattr(builtins, "print", lambda *a, **k: pytest.fail("a word"))
    expected = {"perf/gpu_memory_mb": 3072.0, **({"perf/gpu_utilization": 0.87} if tells else {})}
    assert gpu_load(GPU) == expected and gpu_load(CPU) == {}
    assert words(expected) == ["GPU 3.0 GiB", *(["87% busy"] if tells else [])]


def test_a_run_of_one_rank_on_a_cpu_has_none_of_it(tmp_path: Path) -> None:
    trained(tmp_path, 1, SPHERE, "train.validations=0")
    assert not {COMMUNICATION, SCALING, performance.MEMORY} & log_of(tmp_path)[0].keys()
