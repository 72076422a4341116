"""Ranks meet whatever the dead have left in the store, and learn who is missing."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import torch.distributed as dist

from utils import rendezvous, siblings
from utils.errors import InputError
from utils.rank_environment import RankEnvironment
from utils.rendezvous import meet, open_store


@pytest.fixture
def stores() -> Iterator[list[dist.Store]]:
    """A store's connections, one per rank."""
    first = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=20))
    rest = [dist.TCPStore("127.0.0.1", first.port, wait_for_workers=False) for _ in range(3)]
    yield [first, *rest]


def together(stores: list[dist.Store], worlds: list[int], seconds: float = 10.0) -> list[str | InputError]:
    """What each rank finds, or what is said to it."""

    def one(rank: int) -> str | InputError:
        try:
            return meet(stores[rank], rank, worlds[rank], seconds)
        except InputError as error:
            return error

    with ThreadPoolExecutor(len(worlds)) as pool:
        return list(pool.map(one, range(len(worlds))))


def test_each_attempt_has_a_name_of_its_own(stores: list[dist.Store]) -> None:
    names = [together(stores, [4] * 4) for _ in range(3)]
    assert all(len(set(found)) == 1 and isinstance(found[0], str) and found[0] for found in names)
    assert len({found[0] for found in names}) == 3


def test_words_of_the_dead_are_not_taken_for_those_of_the_living(stores: list[dist.Store]) -> None:
    """An attempt of more ranks that ended while it met; the first rank is then another process."""
    for rank in range(1, 6):
        stores[0].set(f"ask/{rank}", f"dead {rank}")
    (found,) = set(together(stores, [4] * 4))
    assert isinstance(found, str) and stores[0].get(f"word/{found}") == b""


def test_who_is_missing_is_named(stores: list[dist.Store], monkeypatch: pytest.MonkeyPatch) -> None:
    found = together(stores, [4, 4], seconds=0.6)
    assert [str(error) for error in found] == ["no word from rank 2, 3 of 4 within 0.6 s"] * 2
    monkeypatch.setattr(rendezvous, "GRACE_SECONDS", 0.1)
    with pytest.raises(InputError, match="the first rank did not answer within 0.1 s"):
        meet(dist.HashStore(), 1, 2, 0.1)


def test_different_numbers_of_ranks_are_named(stores: list[dist.Store]) -> None:
    for error in together(stores, [2, 3]):
        assert str(error).startswith("rank 0 expects 2 ranks, rank 1 on ") and " 3 - expected the same" in str(error)


def test_a_clock_that_is_off_is_said(
    stores: list[dist.Store], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = rendezvous.Presence
    monkeypatch.setattr(rendezvous, "Presence", lambda world, host, time: made(world, host, time - 60))
    together(stores, [2, 2])
    assert "warning: the clock of rank 1 on " in capsys.readouterr().err


def listener(answers: bool) -> socket.socket:
    found = socket.socket()
    found.bind(("127.0.0.1", 0))
    if answers:
        found.listen(4)
    return found


@pytest.mark.parametrize(
    ("rank", "address", "listens", "what"),
    [
        (0, "127.0.0.1", True, "EADDRINUSE|address already in use"),
        (1, "127.0.0.1", True, "what listens there did not answer within 1 s"),
        (1, "127.0.0.1", False, "nothing to be reached there within 1 s: Connection refused"),
        (1, "no-such-host.invalid", False, "nothing to be reached there within 1 s: .*(known|resolution|address)"),
    ],
)
def test_a_place_that_is_none_is_said(rank: int, address: str, listens: bool, what: str) -> None:
    with listener(listens) as taken:
        begun, port = time.monotonic(), taken.getsockname()[1]
        with pytest.raises((InputError, RuntimeError), match=what):
            open_store(RankEnvironment(rank, 2, rank, address, port, "torchrun"), 1.0)
        assert time.monotonic() - begun < 30


def test_siblings_are_found_and_those_that_hang_are_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    children = [subprocess.Popen(command) for _ in range(2)]
    own = {os.getpid(), *(child.pid for child in children)}
    monkeypatch.setattr(siblings.os, "getppid", os.getpid)
    monkeypatch.setattr(siblings, "_command", lambda process: b"same" if process in own else b"other")
    found = sorted(siblings.siblings())
    if not found:
        pytest.skip("the system does not tell who is whose child")
    assert found == sorted(child.pid for child in children)
    assert siblings.kill_hung_siblings(lambda process: process == children[0].pid, 0.1) == [children[1].pid]
    assert children[1].wait(20) == -9 and children[0].poll() is None
    children[0].kill()
    children[0].wait()
