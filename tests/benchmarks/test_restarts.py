"""What counts restarts: it sees faults and the steps after them, and calls a run that ends otherwise a failure."""

import os
import re
import time
from pathlib import Path

import pytest

from benchmarks.cluster import hurt_run, restarts
from benchmarks.cluster.hurt_run import Outcome, Recovery, Watch
from engine.cluster.faults import read_faults
from utils.siblings import _command

SAME = "ab" * 32


def outcome(code: int | None = 0, digest: str = SAME, missing: tuple[str, ...] = ()) -> Outcome:
    return Outcome(code, digest, "a rank was lost", [Recovery("kill@3:rank=1", 0.5, 4.0)], list(missing), 9.0, 8.0)


def written(file: Path, text: str, when: float) -> None:
    file.write_text(text, "utf-8")
    os.utime(file, (when, when))


@pytest.fixture
def ranks(monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """The processes that the agent has, as it seems."""
    found: set[int] = set()
    monkeypatch.setattr(hurt_run, "children_of", lambda agent: set(found))
    return found


def test_the_time_from_a_fault_to_new_ranks_and_to_their_first_step(tmp_path: Path, ranks: set[int]) -> None:
    watch, now = Watch(tmp_path, 1), time.time()
    ranks |= {11, 12}
    watch.look()
    written(tmp_path / "metrics.jsonl", "1\n2\n3\n", now + 1)
    watch.look()
    assert not watch.recoveries
    written(tmp_path / "faults_1.txt", "nan_gradient@2\nkill@3:rank=1\n", now - 5)
    watch.look()
    written(tmp_path / "metrics.jsonl", "1\n2\n3\n4\n", now + 2)  # the other rank logs its last step
    ranks -= {12}
    watch.look()
    assert list(watch.open_faults) == ["kill@3:rank=1"] and not watch.recoveries
    ranks.clear()
    ranks |= {13, 14}
    written(tmp_path / "metrics.jsonl", "1\n2\n", now + 3)  # taken back to the checkpoint
    watch.look()
    written(tmp_path / "metrics.jsonl", "1\n2\n3\n", now + 15)
    watch.look()
    (found,) = watch.recoveries
    assert found.fault == "kill@3:rank=1" and found.stepped == pytest.approx(20, abs=1e-3)
    assert found.started == pytest.approx(5, abs=2) and not watch.open_faults


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (outcome(), ""),
        (outcome(code=None), "did not end: "),
        (outcome(code=1), "ended with 1: "),
        (outcome(digest="cd" * 32), "other numbers than the undisturbed run: cdcd"),
        (outcome(digest=""), "other numbers"),
        (outcome(missing=("term@23",)), "no step was seen after term@23"),
    ],
)
def test_what_is_a_failure(found: Outcome, said: str) -> None:
    failure = restarts.failure(found, SAME, "rank was lost")
    assert failure.startswith(said) if said else not failure
    assert restarts.failure(outcome(), SAME, "other words") and restarts.failure(outcome(), "", "")


@pytest.mark.parametrize("name", restarts.KINDS)
def test_faults_are_drawn_at_different_steps_and_are_faults(name: str) -> None:
    for seed in range(20):
        text = restarts.KINDS[name].draw(seed, 3)
        faults = read_faults(text)
        assert text == restarts.KINDS[name].draw(seed, 3)
        ending = [fault for fault in faults if fault.kind not in hurt_run.HARMLESS]
        assert len({fault.step for fault in ending}) == len(ending) >= 3
        assert all(0 < fault.step < restarts.STEPS for fault in faults)


def test_nothing_takes_the_step_of_a_gradient_that_is_not_finite_back() -> None:
    for seed in range(50):
        faults = {fault.kind: fault.step for fault in read_faults(restarts.mixed(seed, 1))}
        spoiled = faults.pop("nan_gradient")
        assert spoiled % restarts.EVERY == 0 and faults["disk_full"] > spoiled
        assert not any(spoiled <= step <= spoiled + restarts.EVERY for step in faults.values())


def test_median_and_percentile_are_of_all_runs() -> None:
    times = [Recovery("kill@1", float(number), 2.0 * number) for number in range(1, 21)]
    many = Outcome(0, SAME, "", times, [], 1.0, 1.0)
    lines = restarts.summary("kill", [many], failed=1)
    assert lines[0] == "kill: 0 of 1 runs equal to the undisturbed one, 20 restarts"
    numbers = [[float(found) for found in re.findall(r"\d+\.\d", line)] for line in lines[1:]]
    assert numbers == [[10.5, 19.0, 20.0], [21.0, 38.0, 40.0]]
    assert len(restarts.summary("kill", [], failed=0)) == 1


def test_a_run_that_does_not_end_is_killed_with_its_ranks(tmp_path: Path) -> None:
    process = hurt_run.started(["sh", "-c", "sleep 60 & wait"])
    while not (ranks := hurt_run.children_of(process.pid)):
        time.sleep(0.01)
    code, _ = hurt_run._ended(process, 0.1)
    assert code is None
    deadline = time.monotonic() + 10
    while any(_command(rank) for rank in ranks):
        assert time.monotonic() < deadline
    assert hurt_run.hash_of(tmp_path) == "" and hurt_run.children_of(process.pid) == set()
